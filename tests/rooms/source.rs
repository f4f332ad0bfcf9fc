//! What a source file names: the rooms of this crate, and other crates. Tests (`#[cfg(test)]`) are not looked at.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, mem};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{
    Attribute, ImplItem, Item, ItemExternCrate, ItemMod, ItemUse, LitStr, Meta, Path as CodePath, UseTree, Visibility,
};

/// A file of the crate.
pub struct Source {
    pub path: PathBuf,
    /// Its modules from the crate's root, `["guard", "lease"]` for `guard/lease.rs`. The first is its room.
    pub module: Vec<String>,
    pub text: String,
    /// It is compiled for tests only.
    pub of_tests: bool,
}

/// What a file names.
#[derive(Debug, Default)]
pub struct Names {
    pub rooms: BTreeSet<String>,
    /// Paths into this crate, from its root.
    pub paths: BTreeSet<Vec<String>>,
    /// First parts of paths that may be crates: no module or import of this file bears that name.
    pub crates: BTreeSet<String>,
}

/// All files that `lib.rs` and `main.rs` lead to.
pub fn sources(src: &Path) -> Vec<Source> {
    let mut found = vec![Source::read(src.join("main.rs"), vec!["main".into()], false)];
    let mut left = vec![Source::read(src.join("lib.rs"), Vec::new(), false)];
    while let Some(source) = left.pop() {
        let is_mod = source.path.file_name().is_some_and(|name| name == "mod.rs" || name == "lib.rs");
        let folder = if is_mod { source.path.with_file_name("") } else { source.path.with_extension("") };
        for item in source.parsed().items {
            let Item::Mod(ItemMod { ident, content: None, attrs, .. }) = item else { continue };
            let (name, of_tests) = (ident.to_string(), source.of_tests || is_test(&attrs));
            if attrs.iter().any(|attribute| attribute.path().is_ident("path")) {
                assert!(of_tests, "{name}: a #[path] is not followed here");
                continue;
            }
            let paths = [folder.join(format!("{name}.rs")), folder.join(&name).join("mod.rs")];
            let path = paths.into_iter().find(|path| path.exists()).expect("the file of a module");
            left.push(Source::read(path, source.module.iter().cloned().chain([name]).collect(), of_tests));
        }
        found.push(source);
    }
    found
}

impl Source {
    fn read(path: PathBuf, module: Vec<String>, of_tests: bool) -> Self {
        let text = fs::read_to_string(&path).expect("a source file");
        Self { path, module, text, of_tests }
    }

    /// The room that the file is part of; none for `lib.rs`.
    pub fn room(&self) -> Option<&str> {
        self.module.first().map(String::as_str)
    }

    /// The same file with another text.
    pub fn with(&self, text: String) -> Self {
        Self { path: self.path.clone(), module: self.module.clone(), text, of_tests: self.of_tests }
    }

    fn parsed(&self) -> syn::File {
        syn::parse_file(&self.text).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()))
    }

    /// What it names outside tests.
    pub fn names(&self) -> Names {
        let file = self.parsed();
        let mut reader = Reader {
            module: self.module.clone(),
            own: own(&file.items),
            modules: modules(&file.items),
            names: Names::default(),
        };
        reader.visit_file(&file);
        reader.names
    }

    /// The types and traits that it defines outside tests, private ones too.
    pub fn types(&self) -> Vec<String> {
        let mut types = Types::default();
        types.visit_file(&self.parsed());
        types.0
    }
}

#[derive(Default)]
struct Types(Vec<String>);

impl<'ast> Visit<'ast> for Types {
    fn visit_item(&mut self, item: &'ast Item) {
        if is_test(attributes(item)) {
            return;
        }
        match item {
            Item::Enum(item) => self.0.push(item.ident.to_string()),
            Item::Struct(item) => self.0.push(item.ident.to_string()),
            Item::Trait(item) => self.0.push(item.ident.to_string()),
            Item::Type(item) => self.0.push(item.ident.to_string()),
            Item::Union(item) => self.0.push(item.ident.to_string()),
            Item::Macro(item) => self.declared(item.mac.tokens.clone()),
            _ => {}
        }
        visit::visit_item(self, item);
    }
}

impl Types {
    /// The types that a macro is asked to declare.
    fn declared(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (at, token) in tokens.iter().enumerate() {
            match (token, tokens.get(at + 1)) {
                (TokenTree::Ident(word), Some(TokenTree::Ident(name))) if *word == "struct" || *word == "enum" => {
                    self.0.push(name.to_string());
                }
                (TokenTree::Group(group), _) => self.declared(group.stream()),
                _ => {}
            }
        }
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        Meta::Path(_) | Meta::NameValue(_) => false,
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        // Other items are always checked.
        _ => &[],
    }
}

/// The names of a module's own modules and imports. A path that begins with one of them does not name a crate.
fn own(items: &[Item]) -> BTreeSet<String> {
    let mut own = BTreeSet::new();
    for item in items.iter().filter(|item| !is_test(attributes(item))) {
        match item {
            Item::Mod(item) => own.extend([item.ident.to_string()]),
            Item::Use(item) => {
                let mut paths = Vec::new();
                flatten(&item.tree, &mut Vec::new(), &mut paths);
                // `use hyper;` names the crate itself.
                let longer = paths.into_iter().filter(|import| import.path.len() > 1);
                own.extend(longer.map(|import| import.name));
            }
            _ => {}
        }
    }
    own
}

/// The modules that are declared here. A path that begins with one of them leads there.
fn modules(items: &[Item]) -> BTreeSet<String> {
    let module = |item: &Item| match item {
        Item::Mod(item) if !is_test(&item.attrs) => Some(item.ident.to_string()),
        _ => None,
    };
    items.iter().filter_map(module).collect()
}

/// One name that a `use` brings.
struct Import {
    path: Vec<String>,
    name: String,
}

fn flatten(tree: &UseTree, before: &mut Vec<String>, found: &mut Vec<Import>) {
    let (ident, name) = match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, found);
            before.pop();
            return;
        }
        UseTree::Group(group) => {
            group.items.iter().for_each(|tree| flatten(tree, before, found));
            return;
        }
        UseTree::Name(name) => (name.ident.to_string(), name.ident.to_string()),
        UseTree::Rename(rename) => (rename.ident.to_string(), rename.rename.to_string()),
        UseTree::Glob(_) => ("*".into(), "*".into()),
    };
    let mut path = before.clone();
    // `use a::{self}` brings `a`.
    if ident != "self" || path.is_empty() {
        path.push(ident);
    }
    let name = if name == "self" { path.last().cloned().unwrap_or_default() } else { name };
    found.push(Import { path, name });
}

struct Reader {
    module: Vec<String>,
    own: BTreeSet<String>,
    modules: BTreeSet<String>,
    names: Names,
}

impl Reader {
    /// `from_root`: the path begins with `::`, and names a crate.
    fn path(&mut self, path: &[String], from_root: bool) {
        let (mut at, mut rest) = match path.split_first() {
            Some((first, _)) if from_root => {
                self.names.crates.insert(first.clone());
                return;
            }
            Some((first, rest)) if first == "crate" || first == "onlyonce" => (Vec::new(), rest),
            Some((first, _)) if first == "self" || first == "super" => (self.module.clone(), path),
            Some((first, _)) if self.modules.contains(first) => (self.module.clone(), path),
            Some((first, _)) => {
                if !self.own.contains(first) {
                    self.names.crates.insert(first.clone());
                }
                return;
            }
            None => return,
        };
        while let Some((first, after)) = rest.split_first().filter(|(first, _)| *first == "self" || *first == "super") {
            if first == "super" {
                at.pop();
            }
            rest = after;
        }
        at.extend(rest.iter().cloned());
        self.names.rooms.extend(at.first().cloned());
        self.names.paths.insert(at);
    }

    /// Unparsed tokens of a macro or an attribute.
    fn tokens(&mut self, tokens: TokenStream, in_attribute: bool) {
        let is_colon =
            |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(mark)) if mark.as_char() == ':');
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            let mut path = Vec::new();
            let from_root = is_colon(tokens.get(at)) && is_colon(tokens.get(at + 1));
            if from_root {
                at += 2;
            }
            while let Some(TokenTree::Ident(ident)) = tokens.get(at) {
                path.push(ident.to_string());
                at += 1;
                if !(is_colon(tokens.get(at)) && is_colon(tokens.get(at + 1))) {
                    break;
                }
                at += 2;
            }
            // A name alone is a variable, a field, or an item at hand.
            if path.len() > 1 || (from_root && !path.is_empty()) {
                self.path(&path, from_root);
            }
            if from_root || !path.is_empty() {
                continue;
            }
            match &tokens[at] {
                TokenTree::Group(group) => self.tokens(group.stream(), in_attribute),
                // As in `#[serde(with = "a::path")]`.
                TokenTree::Literal(literal) if in_attribute => {
                    let text = syn::parse_str::<LitStr>(&literal.to_string());
                    if let Ok(path) = text.and_then(|text| text.parse::<CodePath>()) {
                        self.visit_path(&path);
                    }
                }
                TokenTree::Literal(_) | TokenTree::Punct(_) | TokenTree::Ident(_) => {}
            }
            at += 1;
        }
    }
}

fn segments(path: &CodePath) -> Vec<String> {
    path.segments.iter().map(|segment| segment.ident.to_string()).collect()
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let of_a_test = matches!(item, ImplItem::Fn(method) if is_test(&method.attrs));
        if !of_a_test {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        let Some((_, items)) = &item.content else { return };
        let outer = (mem::replace(&mut self.own, own(items)), mem::replace(&mut self.modules, modules(items)));
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
        (self.own, self.modules) = outer;
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let mut imports = Vec::new();
        flatten(&item.tree, &mut Vec::new(), &mut imports);
        for import in imports {
            self.path(&import.path, item.leading_colon.is_some());
        }
    }

    /// `pub(in crate::room)` says who may name it, and names nothing itself.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_item_extern_crate(&mut self, item: &'ast ItemExternCrate) {
        self.names.crates.insert(item.ident.to_string());
    }

    fn visit_path(&mut self, path: &'ast CodePath) {
        let (segments, from_root) = (segments(path), path.leading_colon.is_some());
        if segments.len() > 1 || from_root {
            self.path(&segments, from_root);
        }
        visit::visit_path(self, path);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        match &attribute.meta {
            Meta::List(list) => {
                self.visit_path(&list.path);
                self.tokens(list.tokens.clone(), true);
            }
            Meta::Path(_) | Meta::NameValue(_) => visit::visit_attribute(self, attribute),
        }
    }

    fn visit_token_stream(&mut self, tokens: &'ast TokenStream) {
        self.tokens(tokens.clone(), false);
    }
}
