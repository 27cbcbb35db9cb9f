//! The plan of `src/`: layers are folders, imports go downward only, and no files import each other in a
//! circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What each part of `src/` may import, from the top floor to the bottom. All may import themselves.
const MAY_IMPORT: [(&str, &[&str]); 11] = [
    // The program uses nothing that the library does not offer to everybody: `framelet::…`.
    ("cli", &[]),
    ("server", &["sink", "message", "stream", "tls", "net", "runtime", "wire"]),
    ("sink", &["format", "message", "tls", "wire"]),
    ("client", &["stream", "tls", "net", "runtime", "wire"]),
    ("format", &["message", "stream", "wire"]),
    ("message", &["stream", "net", "wire"]),
    ("stream", &["runtime", "wire"]),
    ("tls", &["net", "wire"]),
    ("net", &["wire"]),
    ("runtime", &[]),
    ("wire", &[]),
];

/// The files of `src/`, as modules: `["wire", "layout"]` is `src/wire/layout.rs`.
type Module = Vec<String>;

/// What each module imports, which is what its text names with `crate::` or `super::`. Tests in it, and
/// comments, do not count.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

fn imports(files: &BTreeMap<Module, String>) -> Imports {
    let mut imports = Imports::new();
    for (module, text) in files {
        let code = without_tests(text);
        let named = paths(&code).into_iter().filter_map(|path| resolve(files, module, &path));
        imports.insert(module.clone(), named.filter(|named| named != module).collect());
    }
    imports
}

/// Returns what is before the tests, without comments. Tests come last in a file.
fn without_tests(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let is_module = |next: &&str| next.contains("mod ") && next.ends_with('{');
        if line == "#[cfg(test)]" && lines.peek().is_some_and(is_module) {
            break;
        }
        if !line.trim_start().starts_with("//") {
            code += line;
            code += "\n";
        }
    }
    code
}

/// Returns all paths in `code` that may lead to another file, without the braces of a `use`.
fn paths<'a>(code: &'a str) -> Vec<Vec<&'a str>> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut paths = Vec::new();
    let mut before = "";
    let child = |line: &'a str| {
        let item = line.split("//").next()?.trim_end().strip_suffix(';')?;
        item.rsplit_once("mod ").map(|(_, child)| child)
    };
    let children: Vec<&str> = code.lines().filter_map(child).collect();
    for word in code.split(|c: char| !is_path(c)) {
        // Also `use child::Name;`.
        assert!(
            !word.ends_with("crate::"),
            "imports in braces after crate:: are not followed: name each file"
        );
        let starts = ["crate::", "super::", "self::"].iter().any(|start| word.starts_with(start));
        // Also `child::name` without a `use`.
        let of_child = word.split_once("::").is_some_and(|(first, _)| children.contains(&first));
        if starts || of_child || before == "use" && word.contains("::") {
            paths.push(word.split("::").filter(|part| !part.is_empty()).collect());
        }
        before = word;
    }
    paths
}

/// Returns the module that a path leads to from `module`: the longest part of it that is a file.
fn resolve(files: &BTreeMap<Module, String>, module: &Module, path: &[&str]) -> Option<Module> {
    let mut found = if path[0] == "crate" { Module::new() } else { module.clone() };
    for part in path {
        match *part {
            "crate" | "self" => {}
            "super" => drop(found.pop()),
            part => found.push(part.into()),
        }
    }
    while !found.is_empty() && !files.contains_key(&found) {
        found.pop();
    }
    (!found.is_empty()).then_some(found)
}

/// Returns what is wrong with the plan, in words.
fn faults(imports: &Imports, parents: bool) -> Vec<String> {
    let allowed = BTreeMap::from(MAY_IMPORT);
    let mut faults = Vec::new();
    for (module, imported) in imports {
        for other in imported {
            let (from, to) = (module[0].as_str(), other[0].as_str());
            if from != to && !allowed.get(from).is_some_and(|may| may.contains(&to)) {
                faults.push(format!("{} must not import {}", name(module), name(other)));
            }
            // What a folder's face has, it has from its files.
            if parents && other.len() < module.len() && module.starts_with(other) {
                faults.push(format!("{} imports its parent {}", name(module), name(other)));
            }
        }
    }
    faults.extend(circle(imports));
    faults
}

/// Returns the permissions that no import needs, in words.
fn unused(imports: &Imports) -> Vec<String> {
    let used: BTreeSet<(&str, &str)> = imports
        .iter()
        .flat_map(|(module, named)| named.iter().map(|named| (&*module[0], &*named[0])))
        .collect();
    let permissions = MAY_IMPORT.iter().flat_map(|(from, may)| may.iter().map(|to| (*from, *to)));
    permissions
        .filter(|permission| !used.contains(permission))
        .map(|(from, to)| format!("nothing in {from} imports {to}"))
        .collect()
}

/// Returns a circle of imports, if there is one: takes away what imports nothing until nothing is left.
fn circle(imports: &Imports) -> Option<String> {
    let mut left = imports.clone();
    loop {
        let done: Vec<Module> =
            left.iter().filter(|(_, named)| named.is_empty()).map(|(m, _)| m.clone()).collect();
        if done.is_empty() {
            break;
        }
        left.retain(|module, _| !done.contains(module));
        left.values_mut().for_each(|named| named.retain(|module| !done.contains(module)));
    }
    // Each that is left imports another one that is left: following them leads into the circle.
    let mut way = vec![left.keys().next()?];
    loop {
        let next = left[way[way.len() - 1]].first()?;
        if let Some(start) = way.iter().position(|module| *module == next) {
            let names: Vec<String> = way[start..].iter().map(|module| name(module)).collect();
            return Some(format!("a circle: {} -> {}", names.join(" -> "), names[0]));
        }
        way.push(next);
    }
}

fn name(module: &Module) -> String {
    format!("src/{}.rs", module.join("/"))
}

fn read(directory: &Path, module: &Module, files: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let inner: Module = module.iter().cloned().chain([stem.to_owned()]).collect();
        // Tests are a file or a folder of this name, and may import what they test.
        if stem == "tests" {
            continue;
        }
        if path.is_dir() {
            read(&path, &inner, files);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            files.insert(inner, fs::read_to_string(&path).unwrap());
        }
    }
}

/// The files of the library and the program, without what ties them together.
fn files() -> BTreeMap<Module, String> {
    let mut files = BTreeMap::new();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    read(&src, &Module::new(), &mut files);
    for root in ["lib", "main"] {
        files.remove(&vec![root.to_owned()]).unwrap();
    }
    files
}

#[test]
fn imports_go_downward_and_in_no_circle() {
    let files = files();
    assert!(files.len() > 50, "these are not all: {:?}", files.keys());
    // Only the library has faces that tie files together.
    let (program, library): (BTreeMap<_, _>, _) =
        files.into_iter().partition(|(module, _)| module[0] == "cli");
    let faults: Vec<String> = faults(&imports(&library), true)
        .into_iter()
        .chain(faults(&imports(&program), false))
        .collect();
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn every_permission_is_used() {
    assert_eq!(unused(&imports(&files())), Vec::<String>::new());
}

/// Returns the permissions in the table of a page: rows of a folder or file, what it holds, and what it may
/// import.
fn table(page: &str) -> Vec<(String, Vec<String>)> {
    let rows = page.lines().skip_while(|line| !line.ends_with("| may import |")).skip(2);
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let name = cells[0].trim_matches('`').trim_end_matches(".rs").trim_end_matches('/');
        let may = match cells[2] {
            // These are no folders of the library.
            "nothing" | "the public API, as any user" => Vec::new(),
            may => may.split(", ").map(str::to_owned).collect(),
        };
        (name.to_owned(), may)
    };
    rows.take_while(|line| line.starts_with('|')).map(row).collect()
}

#[test]
fn the_map_shows_the_permissions_that_are_checked() {
    let page = fs::read_to_string("ARCHITECTURE.md").unwrap();
    let checked = MAY_IMPORT.map(|(from, may)| {
        (from.to_owned(), may.iter().map(|to| (*to).to_owned()).collect::<Vec<_>>())
    });
    assert_eq!(table(&page), checked);
}

#[test]
fn a_permission_that_nothing_uses_is_found() {
    let module = |path: &str| path.split('/').map(str::to_owned).collect::<Module>();
    let uses = BTreeMap::from([(module("net/a"), BTreeSet::from([module("wire/b")]))]);
    let unused = unused(&uses);
    assert!(unused.contains(&"nothing in stream imports wire".to_owned()), "{unused:?}");
    assert!(!unused.contains(&"nothing in net imports wire".to_owned()), "{unused:?}");
}

#[test]
fn every_file_is_on_a_floor() {
    let floors: BTreeSet<&str> = MAY_IMPORT.iter().map(|(floor, _)| *floor).collect();
    let files = files();
    let unknown = files.keys().find(|module| !floors.contains(module[0].as_str()));
    assert_eq!(unknown, None, "src/ has only lib.rs, main.rs and the floors");
}

#[test]
fn what_is_against_the_plan_is_found() {
    for (files, expected) in [
        (
            &[("wire/layout", "use crate::stream::reader::Reader;"), ("stream/reader", "")][..],
            "src/wire/layout.rs must not import src/stream/reader.rs",
        ),
        (
            &[("net/a", "fn f() -> crate::wire::b::B {}"), ("wire/b", "use crate::net::a::A;")],
            "src/wire/b.rs must not import src/net/a.rs",
        ),
        (
            &[("wire/a", "use super::{b::B};\nuse super::b::C;"), ("wire/b", "use super::a::A;")],
            "a circle: src/wire/a.rs -> src/wire/b.rs -> src/wire/a.rs",
        ),
        (
            &[("sink/file", "use note::Note;"), ("sink/file/note", "use super::FileSync;")],
            "src/sink/file/note.rs imports its parent src/sink/file.rs",
        ),
        (
            &[("cli/a", "mod b; // a part\nfn f() { b::f() }"), ("cli/a/b", "use super::f;")],
            "a circle: src/cli/a.rs -> src/cli/a/b.rs -> src/cli/a.rs",
        ),
        (
            &[("sink/file", "use note::Note;"), ("sink/file/note", "use super::FileSync;")],
            "a circle: src/sink/file.rs -> src/sink/file/note.rs -> src/sink/file.rs",
        ),
    ] {
        let files = files.iter().map(|(path, text)| {
            (path.split('/').map(str::to_owned).collect::<Module>(), (*text).to_owned())
        });
        let found = faults(&imports(&files.collect()), true);
        assert!(found.iter().any(|fault| fault == expected), "{expected}: {found:?}");
    }
}
