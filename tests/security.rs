//! The table of attacks in `SECURITY.md`: its tests exist, and `scripts/attacks.sh` runs all of them.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::Command;

/// A row of the table.
struct Row {
    attack: String,
    holds: String,
    file: String,
    test: String,
    measured: String,
}

fn rows(page: &str) -> Vec<Row> {
    let rows = page.lines().skip_while(|line| !line.ends_with("| test | measured |")).skip(2);
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, attack, holds, test, measured, _] = cells[..] else { panic!("four cells: {line}") };
        let (file, test) = test.trim_matches('`').split_once("::").unwrap();
        let [attack, holds, file, test, measured] =
            [attack, holds, file, test, measured].map(str::to_owned);
        Row { attack, holds, file, test, measured }
    };
    rows.take_while(|line| line.starts_with('|')).map(row).collect()
}

/// Returns the names of the tests in a file.
fn tests(text: &str) -> Vec<&str> {
    let (mut names, mut is_test) = (Vec::new(), false);
    for line in text.lines().map(str::trim) {
        is_test |= line == "#[test]";
        if let Some((name, _)) = line.strip_prefix("fn ").and_then(|rest| rest.split_once('(')) {
            if is_test {
                names.push(name);
            }
            is_test = false;
        }
    }
    names
}

fn page() -> Vec<Row> {
    let rows = rows(&fs::read_to_string("SECURITY.md").unwrap());
    assert!(rows.len() > 30, "these are not all");
    rows
}

#[test]
fn each_attack_names_a_test_that_exists_and_what_it_measured() {
    for Row { attack, file, test, measured, .. } in page() {
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(tests(&text).contains(&test.as_str()), "{attack}: no test {test} in {file}");
        assert!(!measured.is_empty(), "{attack}: scripts/attacks.sh --write writes the last cell");
    }
}

#[test]
fn the_script_runs_the_tests_of_the_table() {
    let output = Command::new("bash").args(["scripts/attacks.sh", "--list"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let row = |Row { attack, file, test, .. }| format!("{file}::{test}\t{attack}");
    let expected: Vec<String> = page().into_iter().map(row).collect();
    let listed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(listed.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_promise_that_a_row_names_has_its_test_and_no_attack_is_left_out() {
    let (rows, promises) = (page(), fs::read_to_string("docs/promises.md").unwrap());
    for Row { holds, file, test, .. } in &rows {
        let promise = holds.split_once(": ").map(|(promise, _)| promise);
        if let Some(promise) = promise.filter(|promise| promise.starts_with('P')) {
            let start = format!("| {promise} | ");
            let line = promises.lines().find(|line| line.starts_with(&start)).unwrap();
            assert!(line.contains(&format!("`{file}::{test}`")), "{test} is no test of {promise}");
        }
    }
    let text = fs::read_to_string("tests/attacks.rs").unwrap();
    for test in tests(&text) {
        assert!(rows.iter().any(|row| row.test == test), "SECURITY.md does not list {test}");
    }
}
