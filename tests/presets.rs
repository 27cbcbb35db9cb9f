//! The tables of presets in the pages and in the dissector, which are made from the presets.
//!
//! After a change of a preset, `FRAMELET_WRITE_TABLES=1 cargo test --test presets` writes them again.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::{env, fs};

use framelet::Layout;
use framelet::wire::{LengthCounts, PRESETS, Part, Preset};

/// The kinds of layouts, in the order of the README's table.
const KINDS: [&str; 6] = [
    "its length",
    "its length, which counts itself",
    "a header or fixed bytes, and its length",
    "its length, which counts the whole frame",
    "its length in digits or BER",
    "header lines with `Content-Length`",
];

/// Returns the index of the preset's kind.
fn kind(preset: &Preset) -> usize {
    let layout: Layout = preset.notation.parse().unwrap();
    let parts = layout.parts();
    let is_text =
        |text: &str| ["dec", "hex", "bcd", "ber"].iter().any(|kind| text.starts_with(kind));
    match &parts[..] {
        [Part::Lines, ..] => 5,
        _ if preset.notation.split(':').any(is_text) => 4,
        _ if parts.contains(&Part::Length { counts: LengthCounts::All }) => 3,
        [Part::Length { counts: LengthCounts::Itself }, Part::Payload] => 1,
        [Part::Length { .. }, Part::Payload] => 0,
        _ => 2,
    }
}

/// Returns the README's table: the names, by what precedes a message.
fn short_table() -> String {
    let mut table = String::from("| before each message | `--layout` |\n|---|---|\n");
    for (index, what) in KINDS.iter().enumerate() {
        let names = PRESETS.iter().filter(|preset| kind(preset) == index);
        let names: Vec<_> = names.map(|preset| format!("`{}`", preset.name)).collect();
        writeln!(table, "| {what} | {} |", names.join(" ")).unwrap();
    }
    table
}

/// Returns the table of `docs/protocols.md`: a line per preset.
fn long_table() -> String {
    let mut table =
        String::from("| `--layout` | stands for | | compared with |\n|---|---|---|---|\n");
    for Preset { name, notation, about, source, .. } in PRESETS {
        writeln!(table, "| `{name}` | `{notation}` | {about} | {source} |").unwrap();
    }
    table
}

/// Returns the table of the dissector: what each name stands for.
fn dissector_table() -> String {
    let rows = PRESETS.iter().map(|of| format!("  [\"{}\"] = \"{}\",\n", of.name, of.notation));
    rows.collect()
}

/// Checks the lines between two comments of a page, or writes them.
fn compare(page: &str, table: &str) {
    let (open, close) = if page.ends_with(".md") { ("<!-- ", " -->\n") } else { ("-- ", "\n") };
    let begin =
        format!("{open}presets: made from src/wire/layout/preset.rs by tests/presets.rs{close}");
    let end = format!("{open}end of presets{close}");
    let text = fs::read_to_string(page).unwrap();
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{page}: no {begin}"));
    let (shown, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{page}: no {end}"));
    if env::var_os("FRAMELET_WRITE_TABLES").is_some() {
        let space = if page.ends_with(".md") { "\n" } else { "" };
        fs::write(page, format!("{before}{begin}{space}{table}{space}{end}{after}")).unwrap();
        return;
    }
    let again = "FRAMELET_WRITE_TABLES=1 cargo test --test presets";
    assert!(shown.trim() == table.trim(), "{page} has another table: {again} writes\n{table}");
}

#[test]
fn the_readme_names_all_presets() {
    compare("README.md", &short_table());
}

#[test]
fn the_page_on_protocols_has_a_line_for_each_preset() {
    compare("docs/protocols.md", &long_table());
}

#[test]
fn the_dissector_knows_each_preset() {
    compare("deploy/framelet.lua", &dissector_table());
}
