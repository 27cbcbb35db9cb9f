//! The tables of dependencies in `docs/dependencies.md`, of which two columns are made from `Cargo.toml` and `Cargo.lock`.
//!
//! After a change of a dependency, `FRAMELET_WRITE_TABLES=1 cargo test --test dependencies` writes these columns.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::{env, fs};

use serde_json::Value;

const PAGE: &str = "docs/dependencies.md";

/// The headings of the tables, in their order.
const KINDS: [&str; 3] =
    ["Of the library and the program", "Optional", "For tests and benchmarks only"];

/// What each package of `Cargo.lock` depends on.
type Lock = BTreeMap<String, BTreeSet<String>>;

/// Reads a lock file. Versions of a package count as one.
fn lock(text: &str) -> Lock {
    let mut lock = Lock::new();
    for package in text.split("[[package]]\n").skip(1) {
        let name = package.lines().find_map(|line| line.strip_prefix("name = ")).unwrap();
        let entry = lock.entry(name.trim_matches('"').to_owned()).or_default();
        let needed = package.lines().filter_map(|line| line.strip_prefix(" \""));
        entry.extend(needed.map(|line| line.split([' ', '"']).next().unwrap().to_owned()));
    }
    lock
}

/// Returns the cell that says what a crate brings.
fn brings(lock: &Lock, name: &str) -> String {
    let (mut all, mut left) = (BTreeSet::new(), vec![name]);
    while let Some(next) = left.pop() {
        left.extend(
            lock[next].iter().filter(|needed| all.insert(needed.as_str())).map(String::as_str),
        );
    }
    let direct: Vec<&str> = lock[name].iter().map(String::as_str).collect();
    match all.len() {
        0 => "nothing".into(),
        in_all if in_all == direct.len() => direct.join(", "),
        in_all => format!("{}; {in_all} in all", direct.join(", ")),
    }
}

/// Returns the manifest as cargo understands it.
fn manifest() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["packages"][0].clone()
}

/// Returns the dependencies of each kind with their features, if they are optional.
fn direct(manifest: &Value) -> [BTreeMap<String, String>; 3] {
    let mut kinds: [BTreeMap<String, String>; 3] = Default::default();
    for dependency in manifest["dependencies"].as_array().unwrap() {
        let name = dependency["name"].as_str().unwrap();
        let (is_dev, is_optional) = (dependency["kind"] == "dev", dependency["optional"] == true);
        let wanted = format!("dep:{name}");
        let features = manifest["features"].as_object().unwrap().iter();
        let features = features.filter(|(_, enables)| {
            enables.as_array().unwrap().iter().any(|enabled| *enabled == *wanted)
        });
        let features: Vec<String> = features.map(|(feature, _)| format!("`{feature}`")).collect();
        let kind = if is_dev { 2 } else { usize::from(is_optional) };
        let features = if is_optional { features.join(", ") } else { String::new() };
        kinds[kind].insert(name.to_owned(), features);
    }
    kinds
}

/// Returns the page with its columns, and the crates that each of its tables names.
fn with_columns(
    page: &str,
    direct: &[BTreeMap<String, String>; 3],
    lock: &Lock,
) -> (String, [Vec<String>; 3]) {
    let (mut written, mut named) = (String::new(), <[Vec<String>; 3]>::default());
    let mut kind = None;
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            kind = Some(KINDS.iter().position(|known| *known == heading).expect(heading));
        }
        let mut cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let is_row = kind.is_some() && cells.len() > 6 && !["crate", "---"].contains(&cells[1]);
        let known = kind.filter(|_| is_row).and_then(|kind| direct[kind].get(cells[1]));
        if let (Some(kind), true) = (kind, is_row) {
            named[kind].push(cells[1].to_owned());
        }
        let Some(features) = known else {
            written += &format!("{line}\n");
            continue;
        };
        let (brings, last) = (brings(lock, cells[1]), cells.len() - 2);
        cells[last] = &brings;
        if !features.is_empty() {
            cells[last - 1] = features;
        }
        written += &format!("{}\n", cells.join(" | ").trim());
    }
    (written, named)
}

#[test]
fn the_page_has_each_dependency_with_what_it_brings() {
    let (page, direct) = (fs::read_to_string(PAGE).unwrap(), direct(&manifest()));
    let lock = lock(&fs::read_to_string("Cargo.lock").unwrap());
    let (expected, named) = with_columns(&page, &direct, &lock);
    for (kind, (mut named, direct)) in KINDS.iter().zip(named.into_iter().zip(&direct)) {
        named.sort();
        let direct: Vec<&String> = direct.keys().collect();
        assert_eq!(named.iter().collect::<Vec<_>>(), direct, "{kind}: the page and Cargo.toml");
    }
    if env::var_os("FRAMELET_WRITE_TABLES").is_some() {
        fs::write(PAGE, expected).unwrap();
        return;
    }
    for (is, should) in page.lines().zip(expected.lines()) {
        let again = "FRAMELET_WRITE_TABLES=1 cargo test --test dependencies";
        assert_eq!(is, should, "{PAGE} is out of date; {again} writes it");
        let empty = is.starts_with('|')
            && is.trim_matches('|').split('|').any(|cell| cell.trim().is_empty());
        assert!(!empty, "a cell is empty: {is}");
    }
}

#[test]
fn what_a_crate_brings_is_counted_once() {
    let text = "[[package]]\nname = \"a\"\nversion = \"1\"\ndependencies = [\n \"b\",\n \"c 2.0\",\n]\n\n\
                [[package]]\nname = \"b\"\ndependencies = [\n \"c 1.0\",\n \"d\",\n]\n\n\
                [[package]]\nname = \"c\"\nversion = \"1.0\"\n\n[[package]]\nname = \"c\"\nversion = \"2.0\"\n\n\
                [[package]]\nname = \"d\"\n";
    let lock = lock(text);
    for (name, expected) in [("a", "b, c; 3 in all"), ("b", "c, d"), ("d", "nothing")] {
        assert_eq!(brings(&lock, name), expected);
    }
}
