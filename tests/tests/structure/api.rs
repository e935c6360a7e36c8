//! What is public in the packages that are published: a list in the repository, `tests/data/public-api`, made from the sources. A
//! change of it shows in review, and comes with a line in `CHANGELOG.md`.
//!
//! `MM_UPDATE_DOCS=1 cargo test -p mm-tests --test structure api` writes it anew; it refuses if the list changes and what the change log
//! says of the next version is what it was when the list was written last.
//!
//! All that says `pub` is listed where it is defined: the compiler denies `pub` to what cannot be reached from outside
//! (`unreachable_pub`). Nothing is told of what types really are: bounds that a compiler derives, like `Send`, are not seen.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{Attribute, Fields, ImplItem, Item, TraitItem, Visibility};

use crate::sources::root;

/// Packages and their folders.
const PACKAGES: [(&str, &str); 4] = [
    ("mm", "mm/src"),
    ("boot", "boot/src"),
    ("boot_build", "boot/build/src"),
    ("boot_memory", "boot/memory/src"),
];
const HOW: &str = "MM_UPDATE_DOCS=1 cargo test -p mm-tests --test structure api";
const HEADING: &str = "# CHANGELOG.md, Unreleased: ";

/// The list of a package, as it is made.
#[derive(Default)]
struct Api {
    lines: BTreeSet<String>,
    /// Public types, by their last names: what is implemented for others is nobody's business.
    types: BTreeSet<String>,
    /// Implementations, and for which type.
    impls: Vec<(String, String)>,
}

impl Api {
    fn of(name: &str, folder: &Path) -> Self {
        let mut api = Self::default();
        api.file(name, &folder.join("lib.rs"), folder);
        for (of, line) in core::mem::take(&mut api.impls) {
            if api.types.contains(&of) {
                api.lines.insert(line);
            }
        }
        api
    }

    /// A file, and where the files of its modules are.
    fn file(&mut self, path: &str, file: &Path, folder: &Path) {
        let text =
            fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let parsed =
            syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.items(path, &parsed.items, folder);
    }

    fn items(&mut self, path: &str, items: &[Item], folder: &Path) {
        for item in items {
            if !is_for_tests(attributes(item)) {
                self.item(path, item, folder);
            }
        }
    }

    fn add(&mut self, path: &str, attributes: &[Attribute], what: impl ToTokens) {
        let conditions = kept(attributes);
        self.lines
            .insert(format!("{path}: {}", compact(quote!(#conditions #what))));
    }

    fn item(&mut self, path: &str, item: &Item, folder: &Path) {
        match item {
            Item::Mod(module) => {
                let name = module.ident.to_string();
                let inner = format!("{path}::{name}");
                if is_public(&module.vis) {
                    self.add(&inner, &module.attrs, quote!(pub mod));
                }
                match &module.content {
                    Some((_, items)) => self.items(&inner, items, &folder.join(&name)),
                    None => self.file(&inner, &module_file(folder, &name), &folder.join(&name)),
                }
            }
            Item::Use(item) if is_public(&item.vis) => {
                let tree = &item.tree;
                self.add(path, &item.attrs, quote!(pub use #tree));
            }
            Item::Fn(item) if is_public(&item.vis) => self.add(path, &item.attrs, &item.sig),
            Item::Const(item) if is_public(&item.vis) => {
                let (name, kind) = (&item.ident, &item.ty);
                self.add(path, &item.attrs, quote!(const #name: #kind));
            }
            Item::Static(item) if is_public(&item.vis) => {
                let (name, kind) = (&item.ident, &item.ty);
                self.add(path, &item.attrs, quote!(static #name: #kind));
            }
            Item::Type(item) if is_public(&item.vis) => {
                let (name, generics, kind) = (&item.ident, &item.generics, &item.ty);
                self.types.insert(name.to_string());
                self.add(path, &item.attrs, quote!(type #name #generics = #kind));
            }
            Item::Struct(item) if is_public(&item.vis) => {
                let (name, generics) = (&item.ident, &item.generics);
                let bounds = &generics.where_clause;
                self.types.insert(name.to_string());
                self.add(path, &item.attrs, quote!(struct #name #generics #bounds));
                self.fields(&format!("{path}::{name}"), &item.fields, false);
            }
            Item::Enum(item) if is_public(&item.vis) => {
                let (name, generics) = (&item.ident, &item.generics);
                self.types.insert(name.to_string());
                self.add(path, &item.attrs, quote!(enum #name #generics));
                for variant in &item.variants {
                    let (inner, value) = (&variant.ident, &variant.discriminant);
                    let value = value.as_ref().map(|(_, value)| quote!(= #value));
                    let inner = format!("{path}::{name}::{inner}");
                    self.add(&inner, &variant.attrs, quote!(variant #value));
                    self.fields(&inner, &variant.fields, true);
                }
            }
            Item::Trait(item) if is_public(&item.vis) => {
                let (name, generics, above) = (&item.ident, &item.generics, &item.supertraits);
                let (safety, bounds) = (&item.unsafety, &generics.where_clause);
                self.types.insert(name.to_string());
                self.add(
                    path,
                    &item.attrs,
                    quote!(#safety trait #name #generics: #above #bounds),
                );
                for inner in &item.items {
                    self.of_trait(&format!("{path}::{name}"), inner);
                }
            }
            Item::Impl(item) => self.implementation(path, item),
            Item::Macro(item) => {
                let exported = item
                    .attrs
                    .iter()
                    .any(|it| it.path().is_ident("macro_export"));
                let tokens = without_docs(item.mac.tokens.clone());
                match &item.ident {
                    Some(name) if exported => self.add(path, &item.attrs, quote!(macro #name)),
                    None if says_pub(&tokens.to_string()) => {
                        let name = &item.mac.path;
                        self.add(path, &item.attrs, quote!(#name! { #tokens }));
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn fields(&mut self, path: &str, fields: &Fields, are_public: bool) {
        for (place, field) in fields.iter().enumerate() {
            if are_public || is_public(&field.vis) {
                let name = field
                    .ident
                    .as_ref()
                    .map_or_else(|| place.to_string(), ToString::to_string);
                let kind = &field.ty;
                self.add(&format!("{path}.{name}"), &field.attrs, kind);
            }
        }
    }

    fn of_trait(&mut self, path: &str, item: &TraitItem) {
        match item {
            TraitItem::Fn(item) => {
                let (signature, provided) =
                    (&item.sig, item.default.as_ref().map(|_| quote!({ .. })));
                self.add(path, &item.attrs, quote!(#signature #provided));
            }
            TraitItem::Const(item) => {
                let (name, kind) = (&item.ident, &item.ty);
                let provided = item.default.as_ref().map(|_| quote!(= ..));
                self.add(path, &item.attrs, quote!(const #name: #kind #provided));
            }
            TraitItem::Type(item) => {
                let (name, bounds) = (&item.ident, &item.bounds);
                self.add(path, &item.attrs, quote!(type #name: #bounds));
            }
            other => panic!("{path}: {}", other.to_token_stream()),
        }
    }

    fn implementation(&mut self, path: &str, item: &syn::ItemImpl) {
        let syn::Type::Path(of) = &*item.self_ty else {
            return;
        };
        let of = of
            .path
            .segments
            .last()
            .map_or_else(String::new, |last| last.ident.to_string());
        let (generics, kind, safety) = (&item.generics, &item.self_ty, &item.unsafety);
        let bounds = &generics.where_clause;
        if let Some((not, name, _)) = &item.trait_ {
            let conditions = kept(&item.attrs);
            let line = quote!(#conditions #safety impl #generics #not #name for #kind #bounds);
            self.impls.push((of, format!("{path}: {}", compact(line))));
            return;
        }
        for inner in &item.items {
            let line = match inner {
                ImplItem::Fn(inner) if is_public(&inner.vis) => {
                    let (conditions, signature) = (kept(&inner.attrs), &inner.sig);
                    quote!(#conditions #signature)
                }
                ImplItem::Const(inner) if is_public(&inner.vis) => {
                    let (conditions, name, of) = (kept(&inner.attrs), &inner.ident, &inner.ty);
                    quote!(#conditions const #name: #of)
                }
                _ => continue,
            };
            let head = compact(quote!(impl #generics #kind #bounds));
            self.impls
                .push((of.clone(), format!("{path}: {head}: {}", compact(line))));
        }
    }
}

/// Whether what a macro gets has something public in it.
fn says_pub(tokens: &str) -> bool {
    let mut behind = tokens.split("pub ").skip(1);
    behind.any(|rest| !rest.starts_with('('))
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn module_file(folder: &Path, name: &str) -> PathBuf {
    let file = folder.join(format!("{name}.rs"));
    match file.is_file() {
        true => file,
        false => folder.join(name).join("mod.rs"),
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Mod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        _ => &[],
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    let mut texts = attributes.iter().map(|it| it.to_token_stream().to_string());
    texts.any(|text| text.contains("cfg (test)") || text.contains("cfg (all (test"))
}

/// What changes the meaning for who uses it.
fn kept(attributes: &[Attribute]) -> TokenStream {
    const KEPT: [&str; 6] = [
        "cfg",
        "derive",
        "must_use",
        "non_exhaustive",
        "repr",
        "deprecated",
    ];
    let kept = attributes
        .iter()
        .filter(|it| KEPT.iter().any(|name| it.path().is_ident(name)));
    kept.map(|it| {
        // Why something must be used is prose.
        let is_prose = it.path().is_ident("must_use") || it.path().is_ident("deprecated");
        let (path, meta) = (it.path(), &it.meta);
        if is_prose {
            quote!(#[#path])
        } else {
            quote!(#[#meta])
        }
    })
    .collect()
}

/// Tokens without what documents them.
fn without_docs(tokens: TokenStream) -> TokenStream {
    let mut kept: Vec<TokenTree> = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                let is_doc = group.delimiter() == Delimiter::Bracket
                    && group.stream().to_string().starts_with("doc =");
                let is_attribute =
                    matches!(kept.last(), Some(TokenTree::Punct(it)) if it.as_char() == '#');
                if is_doc && is_attribute {
                    kept.pop();
                    continue;
                }
                let inner = without_docs(group.stream());
                kept.push(proc_macro2::Group::new(group.delimiter(), inner).into());
            }
            other => kept.push(other),
        }
    }
    kept.into_iter().collect()
}

/// Tokens as they are written, more or less: nobody but readers takes this apart.
fn compact(tokens: impl ToTokens) -> String {
    let mut text = tokens.to_token_stream().to_string();
    for (from, to) in [
        (" :: ", "::"),
        (" ::", "::"),
        (":: ", "::"),
        (" < ", "<"),
        (" <", "<"),
        ("< ", "<"),
        (" >", ">"),
        (" ,", ","),
        (" :", ":"),
        (" (", "("),
        ("( ", "("),
        (" )", ")"),
        ("& ", "&"),
        (" ;", ";"),
        ("# [", "#["),
        ("[ ", "["),
        (" ]", "]"),
        (" !", "!"),
        ("-> ", "-> "),
    ] {
        text = text.replace(from, to);
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What the change log says of the next version, as one number (FNV-1a).
fn unreleased() -> String {
    let log = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let (_, rest) = log.split_once("## Unreleased\n").unwrap();
    let text = rest.split("\n## ").next().unwrap();
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

/// The list that stands in the repository, and the change log's number then.
fn written(path: &Path) -> (String, String) {
    let text = fs::read_to_string(path).unwrap_or_default();
    let (head, list) = text.split_once('\n').unwrap_or_default();
    (
        list.to_owned(),
        head.strip_prefix(HEADING).unwrap_or_default().to_owned(),
    )
}

#[test]
fn what_is_public_is_on_the_list() {
    let folder = root().join("tests/data/public-api");
    let now = unreleased();
    for (name, sources) in PACKAGES {
        let lines = Api::of(name, &root().join(sources)).lines;
        let list: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let path = folder.join(format!("{name}.txt"));
        let (before, log) = written(&path);
        if list == before {
            continue;
        }
        let old: BTreeSet<String> = before.lines().map(str::to_owned).collect();
        let gone: Vec<_> = old.difference(&lines).take(5).collect();
        let new: Vec<_> = lines.difference(&old).take(5).collect();
        let changes = format!("{name}: gone: {gone:#?}\nnew: {new:#?}");
        assert!(
            env::var_os("MM_UPDATE_DOCS").is_some(),
            "{changes}\nsay so in CHANGELOG.md, then {HOW}"
        );
        assert!(
            log != now,
            "{changes}\nCHANGELOG.md says nothing that it did not say before"
        );
        fs::create_dir_all(&folder).unwrap();
        fs::write(&path, format!("{HEADING}{now}\n{list}")).unwrap();
    }
}

#[test]
fn a_list_has_what_users_see() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write(
        "lib.rs",
        "pub mod inner; mod hidden; pub use hidden::Shown; pub(crate) fn own() {}
         #[cfg(test)] mod tests { pub fn test() {} }",
    );
    write(
        "inner.rs",
        "/// Doc.
         #[derive(Clone)] pub struct Pair<T>(pub T, u8);
         impl<T: Copy> Pair<T> { /// Doc.
             #[must_use = \"why\"] pub const fn first(&self) -> T { self.0 } fn own(&self) {} }
         impl<T> Drop for Pair<T> { fn drop(&mut self) {} }
         pub enum Kind { One = 1, Two { it: u8 } }
         pub unsafe trait Rule: Sync { const N: u8 = 3; fn must(&self); fn may(&self) {} }
         flags! { /// Doc.
             pub struct Flags: u8 { const A = 1; } }",
    );
    write(
        "hidden.rs",
        "pub struct Shown { pub a: u8, b: u8 } struct Own; impl Own { pub fn f() {} } impl Drop for Own { fn drop(&mut self) {} }",
    );
    let lines = Api::of("it", folder.path()).lines;
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(
        lines,
        [
            "it: pub use hidden::Shown",
            "it::hidden: struct Shown",
            "it::hidden::Shown.a: u8",
            "it::inner: #[derive(Clone)] struct Pair<T>",
            "it::inner: enum Kind",
            "it::inner: flags! { pub struct Flags: u8 { const A = 1; } }",
            "it::inner: impl<T: Copy> Pair<T>: #[must_use] const fn first(&self) -> T",
            "it::inner: impl<T> Drop for Pair<T>",
            "it::inner: pub mod",
            "it::inner: unsafe trait Rule: Sync",
            "it::inner::Kind::One: variant = 1",
            "it::inner::Kind::Two.it: u8",
            "it::inner::Kind::Two: variant",
            "it::inner::Pair.0: T",
            "it::inner::Rule: const N: u8 = ..",
            "it::inner::Rule: fn may(&self) { .. }",
            "it::inner::Rule: fn must(&self)",
        ]
    );
}
