//! Every public item of the library is used by an example that `cargo test` runs.
//!
//! Public items are the functions, constants, types and traits that the library exports, and their functions, methods and
//! constants. Examples are the code blocks in the documentation of `src/`, those of the guide, and the programs in `examples/`.
//! An example uses a type, constant or free function if it names it or is its documentation. It uses a method if it has
//! `Type::name`, or calls `.name` in the documentation of the type or where it names the type, and the text does not show that
//! this is a method of another type: see [`Example::calls`].

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What only examples with `no_run` use, and why.
const CANNOT_RUN: [(&str, &str); 2] = [
    ("RedisSink", "it needs a Redis"),
    ("TlsConnector::with_system_roots", "it needs a certificate that the system trusts"),
];

/// A public item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    /// The type or trait that it belongs to; empty if it stands alone.
    owner: String,
    name: String,
    /// The file and the line.
    at: String,
}

/// The names of what each type or trait has.
type Members<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

impl Item {
    fn path(&self) -> String {
        match self.owner.as_str() {
            "" => self.name.clone(),
            owner => format!("{owner}::{}", self.name),
        }
    }
}

#[derive(Debug)]
struct Example {
    /// The code without comments, each chain of calls on one line.
    code: String,
    /// The type, trait, function or constant that it documents, or whose method; empty if there is none.
    owner: String,
    runs: bool,
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn words(text: &str) -> impl DoubleEndedIterator<Item = &str> {
    text.split(|c| !is_word(c)).filter(|word| !word.is_empty())
}

/// Returns where `text` has `part` as whole words.
fn positions(text: &str, part: &str) -> impl Iterator<Item = usize> {
    text.match_indices(part).map(|(at, _)| at).filter(move |&at| {
        let (before, after) =
            (text[..at].chars().next_back(), text[at + part.len()..].chars().next());
        !after.is_some_and(is_word) && (!part.starts_with(is_word) || !before.is_some_and(is_word))
    })
}

impl Example {
    fn new<'a>(lines: impl IntoIterator<Item = &'a str>, owner: &str, runs: bool) -> Example {
        let mut code = String::new();
        for line in lines {
            let line = line.strip_prefix("# ").unwrap_or(line).trim();
            let line = line.split_once(" // ").map_or(line, |(line, _)| line.trim_end());
            if !line.starts_with("//") {
                code.push_str(if line.starts_with('.') { "" } else { "\n" });
                code.push_str(line);
            }
        }
        Example { code, owner: owner.to_owned(), runs }
    }

    fn names(&self, name: &str) -> bool {
        self.owner == name || positions(&self.code, name).next().is_some()
    }

    fn uses(&self, item: &Item, members: &Members<'_>) -> bool {
        match item.owner.as_str() {
            "" => self.names(&item.name),
            owner => self.calls(owner, &item.name, members),
        }
    }

    /// Returns whether the method is called, or implemented. If the text shows the type of what it is called on, and that
    /// type has a method of this name as well, it is a call of that one. If the text does not show it, this must be the
    /// only type of the example with a method of this name, or the one that the example documents.
    fn calls(&self, owner: &str, name: &str, members: &Members<'_>) -> bool {
        let is_implemented = self.code.contains(&format!("impl {owner} for"))
            && self.code.contains(&format!("fn {name}("));
        let mut others =
            members.iter().filter(|(other, names)| **other != owner && names.contains(name));
        let is_likely =
            self.owner == owner || self.names(owner) && !others.any(|(other, _)| self.names(other));
        let is_call = |at: usize| {
            self.code[at + 1 + name.len()..].starts_with(['(', ':'])
                && match type_of(&self.code[..at], members) {
                    Some(known) if known == owner => true,
                    Some(known) if members[known].contains(name) => false,
                    _ => is_likely,
                }
        };
        is_implemented
            || positions(&self.code, &format!("{owner}::{name}")).next().is_some()
            || positions(&self.code, &format!(".{name}")).any(is_call)
    }
}

/// Splits `code` before the expression at its end: a chain of calls. Returns where that begins, and the chain without what
/// is in brackets.
fn last_chain(code: &str) -> (usize, String) {
    let (mut depth, mut chain, mut start) = (0, Vec::new(), 0);
    for (at, c) in code.char_indices().rev() {
        match c {
            ')' | ']' | '}' => depth += 1,
            '(' | '[' | '{' if depth > 0 => depth -= 1,
            _ if depth > 0 => {}
            '.' | ':' | '?' | '<' | '>' => chain.push(c),
            c if is_word(c) => chain.push(c),
            _ => {
                start = at + c.len_utf8();
                break;
            }
        }
    }
    (start, chain.into_iter().rev().collect())
}

/// Returns the type of the expression at the end of `code`, as far as it is named: in the expression itself, or where its
/// variable is declared.
fn type_of<'a>(code: &str, members: &Members<'a>) -> Option<&'a str> {
    let named = |text: &str| {
        words(text).rev().find_map(|word| members.get_key_value(word)).map(|(name, _)| *name)
    };
    let (start, chain) = last_chain(code);
    named(&chain).or_else(|| {
        let variable = words(&chain).next()?;
        let before = &code[..start];
        let declared = |form: String| positions(before, &form).last().map(|at| at + form.len());
        let annotated = declared(format!("{variable}:")).map(|from| (from, true));
        let assigned = [format!("let {variable} ="), format!("let mut {variable} =")];
        let assigned = assigned.into_iter().filter_map(declared).map(|from| (from, false));
        let (from, is_annotation) = assigned.chain(annotated).max()?;
        let declaration = &before[from..];
        match is_annotation {
            true => named(declaration.split([',', ')', '=', '|', ';']).next()?),
            false => named(&last_chain(declaration.split(';').next()?).1),
        }
    })
}

/// Adds the examples in the lines of a documentation.
fn add_examples(docs: &[&str], owner: &str, examples: &mut Vec<Example>) {
    let mut open: Option<(&str, Vec<&str>)> = None;
    for line in docs {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(language), None) => open = Some((language, Vec::new())),
            (Some(_), Some((language, lines))) => {
                if ["", "rust", "no_run"].contains(language) {
                    examples.push(Example::new(lines.drain(..), owner, *language != "no_run"));
                }
                open = None;
            }
            (None, Some((_, lines))) => lines.push(line),
            (None, None) => {}
        }
    }
}

/// Returns the name of the item that a line begins, if it is public, or in a trait.
fn item(line: &str, in_trait: bool) -> Option<&str> {
    let line = match line.strip_prefix("pub ") {
        Some(line) => line,
        None if in_trait => line,
        None => return None,
    };
    let mut parts = words(line).skip_while(|word| *word == "async").peekable();
    let is_const = parts.next_if_eq(&"const").is_some();
    match parts.next()? {
        "fn" | "struct" | "enum" | "trait" | "type" => parts.next(),
        name => is_const.then_some(name),
    }
}

/// Returns the type that a line such as `impl<S> Trait for Type<S> {` is about.
fn implementer(line: &str) -> &str {
    let mut depth = 0;
    let after_generics = line.find(|c| {
        depth += i32::from(c == '<') - i32::from(c == '>');
        depth == 0 && (c == ' ' || c == '>')
    });
    let line = after_generics.map_or("", |at| &line[at + 1..]);
    let line = line.split_once(" for ").map_or(line, |(_, of)| of);
    words(line).next().unwrap_or_default()
}

/// Adds the public items of a file, and the examples in its documentation.
fn add(file: &str, text: &str, items: &mut Vec<Item>, examples: &mut Vec<Example>) {
    let (mut owner, mut in_trait, mut docs) = (String::new(), false, Vec::new());
    let mut lines = text.lines().enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        let trimmed = line.trim_start();
        // Tests come last in a file.
        if line == "#[cfg(test)]" && lines.peek().is_some_and(|(_, next)| next.ends_with(" {")) {
            break;
        }
        if let Some(doc) = trimmed.strip_prefix("///").or(trimmed.strip_prefix("//!")) {
            docs.push(doc.strip_prefix(' ').unwrap_or(doc));
            continue;
        }
        if trimmed.starts_with("#[") {
            continue;
        }
        let is_outermost = !line.starts_with(' ');
        if is_outermost && !line.is_empty() {
            in_trait = line.starts_with("pub trait ");
            owner = match line.strip_prefix("impl") {
                Some(_) => implementer(line).to_owned(),
                None => item(line, false).unwrap_or_default().to_owned(),
            };
        }
        let is_member = line.starts_with("    ") && !line.starts_with("     ");
        if let Some(name) =
            item(trimmed, in_trait && is_member).filter(|_| is_outermost || is_member)
        {
            let owner = if is_outermost { String::new() } else { owner.clone() };
            items.push(Item { owner, name: name.into(), at: format!("{file}:{}", index + 1) });
        }
        add_examples(&docs, &owner, examples);
        docs.clear();
    }
}

/// Finds the files of the library.
fn sources(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        // For builds without a feature: the same names, and nothing that works.
        let is_stand_in = name.starts_with("no_") || name == "none.rs";
        if path.is_dir() && name != "cli" {
            sources(&path, files);
        } else if name.ends_with(".rs") && !is_stand_in {
            files.push(path);
        }
    }
    files.sort();
}

/// Returns the public items of the library, and all examples.
fn library() -> (Vec<Item>, Vec<Example>) {
    let (mut files, mut items, mut examples) = (Vec::new(), Vec::new(), Vec::new());
    sources(Path::new("src"), &mut files);
    let mut exported = BTreeSet::new();
    for file in &files {
        let (text, before) = (fs::read_to_string(file).unwrap(), items.len());
        add(file.to_str().unwrap(), &text, &mut items, &mut examples);
        // The modules that lib.rs has as `pub mod`.
        if file.components().count() == 2 {
            let uses = text.split("\npub use ").skip(1).filter_map(|rest| rest.split(';').next());
            let names = uses.flat_map(|names| names.split([' ', ',', '{', '}', '\n']));
            exported.extend(names.filter_map(|name| Some(name.rsplit("::").next()?.to_owned())));
            exported.extend(items[before..].iter().map(|item| item.name.clone()));
        }
    }
    items.retain(|item| {
        exported.contains(if item.owner.is_empty() { &item.name } else { &item.owner })
    });
    let guide = fs::read_to_string("docs/library.md").unwrap();
    add_examples(&guide.lines().collect::<Vec<_>>(), "", &mut examples);
    let tests = fs::read_to_string("tests/examples.rs").unwrap();
    for file in fs::read_dir("examples").unwrap() {
        let path = file.unwrap().path();
        let runs = tests.contains(&format!("\"{}\"", path.file_stem().unwrap().to_str().unwrap()));
        examples.push(Example::new(fs::read_to_string(path).unwrap().lines(), "", runs));
    }
    (items, examples)
}

/// Returns the items that no example uses.
fn unused<'a>(items: &'a [Item], examples: &[Example]) -> Vec<&'a Item> {
    let mut members = Members::new();
    for item in items {
        members.entry(&item.owner).or_default().insert(&item.name);
    }
    let is_used = |item: &Item| {
        let is_exempt = CANNOT_RUN.iter().any(|(of, _)| *of == item.owner || *of == item.path());
        examples.iter().any(|example| (example.runs || is_exempt) && example.uses(item, &members))
    };
    items.iter().filter(|item| !is_used(item)).collect()
}

#[test]
fn every_public_item_is_in_an_example_that_runs() {
    let (items, examples) = library();
    assert!(items.len() > 250, "these are not all: {items:?}");
    assert!(examples.len() > 150, "these are not all: {examples:?}");
    let unused = unused(&items, &examples);
    let unused: Vec<_> =
        unused.iter().map(|item| format!("{}: {}", item.at, item.path())).collect();
    assert_eq!(unused, Vec::<String>::new(), "no example that runs uses these");
}

#[test]
fn what_no_example_uses_is_found() {
    let text = r#"
/// ```
/// let mut a = A::new();
/// assert_eq!(a
///     .first(), 1);
/// # a.hidden();
/// // a.comment();
/// ```
/// ```text
/// a.text();
/// ```
pub struct A;

impl<T: Iterator<Item = u8>> A<T> {
    pub fn new() -> A {}
    pub const fn first(&self) {}
    pub(crate) fn internal(&self) {}
    pub async fn hidden(&self) {}
    pub fn comment(&self) {}
    pub fn text(&self) {}
    /// ```
    /// A::new().both();
    /// ```
    pub fn both(&self) {}
    pub fn unclear(&self) {}
}

/// ```no_run
/// B::new().not_run();
/// ```
/// ```
/// let a = A::new();
/// a.both();
/// ```
pub struct B;

impl B {
    pub const LIMIT: usize = 1;
    pub fn new() -> B {}
    pub fn both(&self) {}
    pub fn not_run(&self) {}
    pub fn unclear(&self) {}
}

pub trait C {
    fn required(&self);
    fn provided(&self) {}
}

/// ```
/// impl C for usize {
///     fn required(&self) {}
/// }
/// let (a, b) = (A::new(), B::new());
/// b.unclear();
/// ```
pub fn alone() {}

pub const NUMBER: usize = 1;
"#;
    let (mut items, mut examples) = (Vec::new(), Vec::new());
    add("a.rs", text, &mut items, &mut examples);
    let unused: Vec<_> = unused(&items, &examples).into_iter().map(Item::path).collect();
    let of_a = ["A::comment", "A::text", "A::unclear"];
    let of_b = ["B::LIMIT", "B::both", "B::not_run", "B::unclear"];
    assert_eq!(unused, [&of_a[..], &of_b, &["C::provided", "NUMBER"]].concat());
}
