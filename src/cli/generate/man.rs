//! Manual pages.

use argh::CommandInfoWithArgs;

use super::super::help::Page;

/// Returns the page of a command, or of the program itself.
pub(super) fn page(command: &CommandInfoWithArgs, program: &CommandInfoWithArgs) -> String {
    let page = Page::of(command);
    let name = name(page.name);
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!(
        ".TH {} 1 \"\" \"framelet {version}\" \"framelet manual\"\n",
        escaped(&name.to_uppercase())
    );
    text += &format!(".SH NAME\n{} \\- {}\n", escaped(&name), escaped(&summary(page.description)));
    text +=
        &format!(".SH SYNOPSIS\n\\fB{}\\fR {}\n", name.replacen('-', " ", 1), styled(&page.usage));
    text += &format!(".SH DESCRIPTION\n{}\n", escaped(page.description));
    for (title, rows) in &page.lists {
        text += &list(title, rows);
    }
    text += &list("Exit status", &page.exit_codes);
    if !page.notes.is_empty() {
        text += ".SH NOTES\n";
        let notes: Vec<String> = page.notes.iter().map(|note| escaped(note) + "\n").collect();
        text += &notes.join(".PP\n");
    }
    text += &format!(".SH EXAMPLE\n.EX\n{}\n.EE\n", escaped(page.example));
    let pages = program.commands.iter().map(|sub| sub.name).chain([""]);
    let others = pages.filter(|other| *other != page.name);
    let others: Vec<String> =
        others.map(|other| format!("\\fB{}\\fR(1)", escaped(&self::name(other)))).collect();
    text + &format!(".SH SEE ALSO\n{}\n", others.join(", "))
}

/// Returns the name of a command's page.
fn name(command: &str) -> String {
    if command.is_empty() { "framelet".into() } else { format!("framelet-{command}") }
}

/// Returns a description as the line of a name has it.
fn summary(description: &str) -> String {
    let first = description.chars().next().map_or(0, char::len_utf8);
    description[..first].to_lowercase() + description[first..].trim_end_matches('.')
}

/// Returns a section with a list of names and what they mean.
fn list(title: &str, rows: &[(String, &str)]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut text = format!(".SH {}\n", title.to_uppercase());
    for (name, what) in rows {
        text += &format!(".TP\n{}\n{}\n", styled(name), escaped(what));
    }
    text
}

/// Sets what is typed as it stands in bold, and what stands for something else in italics.
fn styled(words: &str) -> String {
    let style = |word: &str| {
        let name = word.trim_matches(['[', ']', ',']);
        let is_literal = name.chars().all(is_lower);
        let name_styled = format!("\\f{}{}\\fR", if is_literal { 'B' } else { 'I' }, escaped(name));
        word.replacen(name, &name_styled, 1)
    };
    words.split(' ').map(style).collect::<Vec<_>>().join(" ")
}

fn is_lower(character: char) -> bool {
    !character.is_ascii_uppercase()
}

/// Escapes what roff would take for something else.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    if text.starts_with(['.', '\'']) {
        escaped += "\\&";
    }
    for character in text.chars() {
        match character {
            '\\' => escaped += "\\e",
            '-' => escaped += "\\-",
            '~' => escaped += "\\(ti",
            '^' => escaped += "\\(ha",
            '`' => escaped += "\\(ga",
            '\'' => escaped += "\\(aq",
            '"' => escaped += "\\(dq",
            _ => escaped.push(character),
        }
    }
    escaped
}
