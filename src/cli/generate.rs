//! `framelet generate`: completions for shells and manual pages, made from the same options and texts as the
//! help.

use std::io::{self, Write};

use argh::{ArgsInfo, CommandInfoWithArgs, FromArgs};

use super::exit_code::Exit;
use super::failure::Failure;

mod bash;
mod fish;
mod man;
mod values; // what may follow an option
mod zsh;

/// Prints completions for a shell, or a manual page.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "generate",
    help_triggers("-h", "--help", "help"),
    note = "Where the shells look: bash in ~/.local/share/bash-completion/completions/framelet, fish in ~/.config/fish/completions/framelet.fish, zsh in a file _framelet in a directory of $fpath."
)]
pub(crate) struct Generate {
    /// bash, zsh or fish; man for the page framelet(1), or man-COMMAND for that of a command
    #[argh(positional, arg_name = "WHAT")]
    what: String,
}

/// Generates what has this name.
fn generate(what: &str, program: &CommandInfoWithArgs) -> Option<String> {
    Some(match what {
        "bash" => bash::script(program),
        "zsh" => zsh::script(program),
        "fish" => fish::script(program),
        "man" => man::page(program, program),
        _ => {
            let name = what.strip_prefix("man-")?;
            let sub = program.commands.iter().find(|sub| sub.name == name)?;
            man::page(&sub.command, program)
        }
    })
}

impl Generate {
    pub(crate) fn run(self, program: &CommandInfoWithArgs) -> Result<(), Failure> {
        let Some(text) = generate(&self.what, program) else {
            let known = values::generated(program).collect::<Vec<_>>().join(" ");
            let message = format!("cannot generate {:?}; write one of {known}", self.what);
            return Err(Failure::new(Exit::Usage, message));
        };
        io::stdout().write_all(text.as_bytes()).map_err(|error| Failure::output(&error))
    }
}
