//! What is registered in the reference kernel is on the page that lists it: commands and
//! parameters, word for word.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::sources::root;

/// The string literals that follow each `name`, up to the end of the macro call.
fn literals_after(text: &str, name: &str) -> Vec<Vec<String>> {
    let calls = text.split(name).skip(1);
    calls.filter_map(literals).collect()
}

/// The string literals from the beginning of a text on, as far as commas separate them.
fn literals(text: &str) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(literal) = rest.strip_prefix('"') {
        let mut value = String::new();
        let mut letters = literal.char_indices();
        let end = loop {
            match letters.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(letters.next()?.1),
                (_, letter) => value.push(letter),
            }
        };
        found.push(value);
        rest = literal[end + 1..].trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    (!found.is_empty()).then_some(found)
}

/// The lines that the kernel's sources ask for.
fn registered(folder: &Path, lines: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            registered(&path, lines);
        } else if path.extension().is_some_and(|its| its == "rs") {
            // Examples in comments register nothing.
            let text = fs::read_to_string(&path).unwrap();
            let is_code = |line: &&str| !line.trim_start().starts_with("//");
            let code: String = text
                .lines()
                .filter(is_code)
                .flat_map(|line| [line, "\n"])
                .collect();
            for call in literals_after(&code, "command! {") {
                if let [name, usage, help, ..] = &call[..] {
                    let synopsis = format!("{name} {usage}");
                    lines.insert(format!("- `{}`: {help}", synopsis.trim_end()));
                }
            }
            for call in literals_after(&code, "kernel_param!(") {
                lines.insert(match &call[..] {
                    [name, takes, help] => format!("- `{name}={takes}`: {help}"),
                    [name, help] => format!("- `{name}`: {help}"),
                    other => panic!("{}: {other:?}", path.display()),
                });
            }
        }
    }
}

#[test]
fn the_list_of_commands_and_parameters_is_complete_and_true() {
    let mut expected = BTreeSet::new();
    registered(&root().join("kernel/src"), &mut expected);
    assert!(expected.len() > 50, "only {} were found", expected.len());
    let page = fs::read_to_string(root().join("docs/kernel.md")).unwrap();
    let listed: BTreeSet<String> = page
        .lines()
        .filter(|line| line.starts_with("- `"))
        .map(str::to_owned)
        .collect();
    let missing: Vec<_> = expected.difference(&listed).collect();
    let wrong: Vec<_> = listed.difference(&expected).collect();
    assert!(
        missing.is_empty() && wrong.is_empty(),
        "docs/kernel.md lacks:\n{missing:#?}\nand says of what there is not:\n{wrong:#?}"
    );
}

#[test]
fn literals_are_read_as_rust_reads_them() {
    let text = "x!(\"a\", \"say \\\"b\\\"\",\n \"c\", d); x!(1)";
    assert_eq!(literals_after(text, "x!("), [["a", "say \"b\"", "c"]]);
}
