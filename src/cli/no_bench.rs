//! `framelet bench` in a build without it.

use argh::{ArgsInfo, CommandInfo, CommandInfoWithArgs, EarlyExit, FromArgs, SubCommand};

use super::exit_code::Exit;
use super::failure::Failure;

/// Accepts any arguments.
pub(crate) struct Bench;

impl FromArgs for Bench {
    fn from_args(_: &[&str], _: &[&str]) -> Result<Bench, EarlyExit> {
        Ok(Bench)
    }
}

const NAME: &str = "bench";
const DESCRIPTION: &str = "Loads a server with messages; not in this build.";

impl SubCommand for Bench {
    const COMMAND: &'static CommandInfo =
        &CommandInfo { name: NAME, short: &'\0', description: DESCRIPTION };
}

impl ArgsInfo for Bench {
    fn get_args_info() -> CommandInfoWithArgs {
        CommandInfoWithArgs { name: NAME, description: DESCRIPTION, ..Default::default() }
    }
}

impl Bench {
    pub(crate) fn run(self) -> Result<(), Failure> {
        Err(Failure::new(
            Exit::Usage,
            "this build has no bench; build framelet with its default features to get it, as in \
             cargo install --locked --path .",
        ))
    }
}
