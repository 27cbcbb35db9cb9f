//! The list of promises in `docs/promises.md`, whose last column is made from the comments of the tests, and from those
//! at the top of scripts.
//!
//! After a change of such a comment, `FRAMELET_WRITE_TABLES=1 cargo test --test promise_list` writes it again.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

const PAGE: &str = "docs/promises.md";

/// The last promise.
const LAST: u32 = 31;

/// The tests of each promise, as `FILE::NAME`.
type Tests = BTreeMap<u32, Vec<String>>;

/// Returns the numbers in a text: P1 is 1.
fn numbers(text: &str) -> impl Iterator<Item = u32> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter_map(|word| word.strip_prefix('P')?.parse().ok())
}

/// Adds the tests of a file whose comments name promises.
fn add(file: &str, text: &str, tests: &mut Tests) {
    let (mut comment, mut is_test) = (String::new(), false);
    for line in text.lines().map(str::trim) {
        if let Some(more) = line.strip_prefix("///") {
            comment += more;
        } else if line.starts_with("#[") {
            is_test |= line == "#[test]";
        } else {
            let name = line.strip_prefix("fn ").and_then(|rest| rest.split_once('('));
            if let Some((name, _)) = name.filter(|_| is_test) {
                for number in numbers(&comment) {
                    tests.entry(number).or_default().push(format!("`{file}::{name}`"));
                }
            }
            (comment, is_test) = (String::new(), false);
        }
    }
}

/// Adds a script whose first comment names promises.
fn add_script(file: &str, text: &str, tests: &mut Tests) {
    let comment = text.lines().take_while(|line| line.starts_with('#'));
    for number in comment.flat_map(numbers) {
        let named = tests.entry(number).or_default();
        let name = format!("`{file}`");
        if !named.contains(&name) {
            named.push(name);
        }
    }
}

fn sources(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|ext| ext == "rs" || ext == "sh") {
            files.push(path);
        }
    }
}

/// Returns the tests and scripts that name promises, in the order of their files.
fn tests() -> Tests {
    let (mut files, mut tests) = (Vec::new(), Tests::new());
    ["src", "tests", "scripts"]
        .iter()
        .for_each(|directory| sources(Path::new(directory), &mut files));
    files.sort();
    for file in files {
        let is_script = file.extension().unwrap() == "sh";
        let add: fn(&str, &str, &mut Tests) = if is_script { add_script } else { add };
        add(file.to_str().unwrap(), &fs::read_to_string(&file).unwrap(), &mut tests);
    }
    tests
}

/// Returns the page with this last column.
fn with_tests(page: &str, tests: &Tests) -> String {
    let row = |line: &str| {
        let cells: Option<(u32, &str)> = line.strip_prefix("| P").and_then(|rest| {
            let (number, rest) = rest.split_once(" | ")?;
            Some((number.parse().ok()?, rest.split_once(" |")?.0))
        });
        match cells {
            Some((number, promise)) => {
                let named = tests.get(&number).map(|tests| tests.join(", "));
                format!("| P{number} | {promise} | {} |\n", named.as_deref().unwrap_or("none yet"))
            }
            None => format!("{line}\n"),
        }
    };
    page.lines().map(row).collect()
}

#[test]
fn the_list_of_promises_names_the_tests_that_name_them() {
    let page = fs::read_to_string(PAGE).unwrap();
    let tests = tests();
    let listed = page.lines().filter_map(|line| line.strip_prefix("| P")?.split(' ').next());
    let listed: Vec<u32> = listed.map(|number| number.parse().unwrap()).collect();
    assert_eq!(listed, (1..=LAST).collect::<Vec<_>>(), "each promise has one row, in order");
    let unknown = tests.iter().find(|(number, _)| !listed.contains(number));
    assert_eq!(unknown, None, "a promise that {PAGE} does not have");
    let expected = with_tests(&page, &tests);
    if env::var_os("FRAMELET_WRITE_TABLES").is_some() {
        fs::write(PAGE, expected).unwrap();
        return;
    }
    for (is, should) in page.lines().zip(expected.lines()) {
        let again = "FRAMELET_WRITE_TABLES=1 cargo test --test promise_list";
        assert_eq!(is, should, "{PAGE} is out of date; {again} writes it");
    }
}

#[test]
fn only_tests_whose_comment_names_a_promise_are_listed() {
    let text = "/// P1 and P2, for a file.\n#[cfg(unix)]\n#[test]\nfn one() {\n\
                /// P1.\nfn helper() {\n#[test]\nfn nameless() {\n/// PROXY, P.\n#[test]\nfn other() {\n";
    let mut tests = Tests::new();
    add("tests/a.rs", text, &mut tests);
    let one = || vec!["`tests/a.rs::one`".to_owned()];
    assert_eq!(tests, BTreeMap::from([(1, one()), (2, one())]));
    let page = "| P1 | A. | old |\n| P3 | B. | |\n| other | row |\n";
    let expected = "| P1 | A. | `tests/a.rs::one` |\n| P3 | B. | none yet |\n| other | row |\n";
    assert_eq!(with_tests(page, &tests), expected);
    assert_eq!(with_tests(expected, &tests), expected);
}

#[test]
fn only_scripts_whose_first_comment_names_a_promise_are_listed() {
    let text = "#!/bin/sh\n# P2 and P3, and\n# P3 for long.\n\n# P1 is not tested here.\n";
    let mut tests = Tests::new();
    add_script("a.sh", text, &mut tests);
    let one = || vec!["`a.sh`".to_owned()];
    assert_eq!(tests, BTreeMap::from([(2, one()), (3, one())]));
}
