//! The library's source files.

use std::fs;
use std::path::{Path, PathBuf};

/// The workspace.
pub(crate) fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("tests/ lies in the workspace")
        .to_owned()
}

/// One file of the library.
pub(crate) struct Source {
    /// Its path below `mm/src`, without `.rs`: `frame/table/claim`.
    pub(crate) name: String,
    /// Its text.
    pub(crate) text: String,
}

impl Source {
    /// The level-one module that the file belongs to.
    pub(crate) fn module(&self) -> &str {
        self.name.split('/').next().unwrap()
    }

    /// Lines of code outside unit tests: no blank ones, no comments.
    pub(crate) fn code(&self) -> impl Iterator<Item = &str> {
        let body = self.text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let lines = body.lines().map(str::trim);
        lines.filter(|line| !line.is_empty() && !line.starts_with("//"))
    }
}

/// Every file of the library but the crate's head.
pub(crate) fn sources() -> Vec<Source> {
    let base = root().join("mm/src");
    let mut found = Vec::new();
    let mut folders = vec![base.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&base).unwrap().with_extension("");
            let name = name.to_str().unwrap().to_owned();
            let of_tests = name.ends_with("tests");
            if path.extension().is_some_and(|ending| ending == "rs") && name != "lib" && !of_tests {
                let text = fs::read_to_string(&path).unwrap();
                found.push(Source { name, text });
            }
        }
    }
    assert!(found.len() > 40, "the sources are where they were");
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}
