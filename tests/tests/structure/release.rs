//! What is published and what it says of itself, and under which licences everything is that is built with.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde::Deserialize;
use spdx::{Expression, ParseMode};

use crate::sources::root;

/// What goes to a registry (`docs/releasing.md`).
const PUBLISHED: [&str; 4] = ["boot", "boot-build", "boot-memory", "mm"];

/// What ends up in a kernel, or builds one.
const SHIPPED: [&str; 8] = [
    "boot",
    "boot-build",
    "boot-memory",
    "mm",
    "kernel",
    "blog-os-style",
    "tiny-kernel",
    "virtio-blk",
];

/// Licences that ask for a notice, and no more.
const PERMISSIVE: [&str; 9] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// Beside those, for tools of the host: mdBook's, whose terms end at its files, and that of pictures in web pages.
const OF_TOOLS: [&str; 2] = ["CC-BY-4.0", "MPL-2.0"];

/// What `cargo metadata` tells, as far as it is asked here.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    /// Where it comes from; none for packages of the workspace.
    source: Option<String>,
    /// Registries that it may go to; none for any.
    publish: Option<Vec<String>>,
    description: Option<String>,
    readme: Option<String>,
    rust_version: Option<String>,
    keywords: Vec<String>,
    categories: Vec<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// None, `build` or `dev`.
    kind: Option<String>,
}

/// All packages of `Cargo.lock` that a build for this target may use. Nothing is fetched if they have been before.
fn metadata() -> Metadata {
    let ask = |offline: &[&str]| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut cargo = Command::new(cargo);
        cargo.args(["metadata", "--locked", "--format-version", "1"]);
        cargo.args([
            "--all-features",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ]);
        cargo
            .args(offline)
            .current_dir(root())
            .output()
            .expect("cargo runs")
    };
    let mut output = ask(&["--offline"]);
    if !output.status.success() {
        output = ask(&[]);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

impl Metadata {
    /// What packages of the workspace are built of, themselves included.
    fn built_of(&self, names: &[&str]) -> BTreeSet<&str> {
        let nodes: BTreeMap<_, _> = self
            .resolve
            .nodes
            .iter()
            .map(|node| (&node.id, node))
            .collect();
        let ours = |package: &&Package| package.source.is_none();
        let roots = self.packages.iter().filter(ours);
        let roots = roots.filter(|package| names.contains(&package.name.as_str()));
        let mut left: Vec<_> = roots.map(|package| &package.id).collect();
        assert_eq!(left.len(), names.len(), "{names:?} are packages");
        let mut found = BTreeSet::new();
        while let Some(id) = left.pop() {
            if found.insert(id.as_str()) {
                let is_built = |kind: &Kind| kind.kind.as_deref() != Some("dev");
                let deps = nodes[id].deps.iter();
                let deps = deps.filter(|dep| dep.dep_kinds.iter().any(is_built));
                left.extend(deps.map(|dep| &dep.pkg));
            }
        }
        found
    }
}

/// Whether one of the ways to take a licence is by licences of a list.
fn allows(licence: &str, list: &[&str]) -> bool {
    // Lax for "MIT/Apache-2.0", which older packages say.
    let expression = Expression::parse_mode(licence, ParseMode::LAX);
    expression.is_ok_and(|expression| {
        expression.evaluate(|wanted| {
            wanted
                .license
                .id()
                .is_some_and(|id| list.contains(&id.name))
        })
    })
}

#[test]
fn licences_are_known_and_allowed() {
    let metadata = metadata();
    let shipped = metadata.built_of(&SHIPPED);
    let of_host: Vec<_> = PERMISSIVE.into_iter().chain(OF_TOOLS).collect();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let list: &[&str] = match shipped.contains(package.id.as_str()) {
            true => &PERMISSIVE,
            false => &of_host,
        };
        let licence = package.license.as_deref().unwrap_or("none");
        if !allows(licence, list) {
            let Package { name, version, .. } = package;
            wrong.push(format!("{name} {version}: {licence}, allowed are {list:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(metadata.packages.len() > 150 && shipped.len() > 20);
}

#[test]
fn the_check_of_licences_can_fail() {
    let both = [PERMISSIVE.as_slice(), &OF_TOOLS].concat();
    for licence in [
        "GPL-3.0-only",
        "none",
        "MIT AND GPL-2.0-only",
        "",
        "LicenseRef-Own",
    ] {
        assert!(!allows(licence, &both), "{licence}");
    }
    assert!(!allows("MPL-2.0", &PERMISSIVE) && allows("MPL-2.0", &both));
    let fine = [
        "MIT/Apache-2.0",
        "GPL-3.0-only OR MIT",
        "Apache-2.0 WITH LLVM-exception",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
    ];
    for licence in fine {
        assert!(allows(licence, &PERMISSIVE), "{licence}");
    }
    // The book's maker is not shipped; what a kernel is built with is.
    let metadata = metadata();
    let named = |name: &str| {
        let package = metadata
            .packages
            .iter()
            .find(|package| package.name == name);
        package.unwrap().id.as_str()
    };
    let shipped = metadata.built_of(&SHIPPED);
    assert!(shipped.contains(named("bitflags")) && !shipped.contains(named("mdbook-driver")));
}

#[test]
fn what_is_published_says_what_it_is() {
    let metadata = metadata();
    let ours = metadata
        .packages
        .iter()
        .filter(|package| package.source.is_none());
    let (published, kept): (Vec<_>, Vec<_>) = ours.partition(|package| package.publish.is_none());
    let names: BTreeSet<_> = published
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    assert_eq!(names, BTreeSet::from(PUBLISHED));
    assert!(
        kept.iter()
            .all(|package| package.publish.as_deref() == Some(&[]))
    );
    for package in published {
        let name = &package.name;
        let say = [
            &package.description,
            &package.readme,
            &package.rust_version,
            &package.license,
        ];
        assert!(say.iter().all(|text| text.is_some()), "{name}: {say:?}");
        let (keywords, categories) = (&package.keywords, &package.categories);
        // crates.io takes five of each, and keywords of 20 letters.
        assert!((1..=5).contains(&keywords.len()), "{name}: {keywords:?}");
        assert!(
            (1..=5).contains(&categories.len()),
            "{name}: {categories:?}"
        );
        assert!(
            keywords.iter().all(|word| word.len() <= 20),
            "{name}: {keywords:?}"
        );
    }
    // What a published package is built with has to be published, too.
    let built_of = metadata.built_of(&PUBLISHED);
    let kept: Vec<_> = kept
        .iter()
        .filter(|package| built_of.contains(package.id.as_str()))
        .map(|package| &package.name)
        .collect();
    assert!(kept.is_empty(), "published packages need {kept:?}");
}
