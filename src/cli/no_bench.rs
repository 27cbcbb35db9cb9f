//! `framelet bench` in a build without it.

use argh::{CommandInfo, EarlyExit, FromArgs, SubCommand};

use super::{Exit, Failure};

/// Whatever it was meant to do.
pub(crate) struct Bench;

impl FromArgs for Bench {
    fn from_args(_: &[&str], _: &[&str]) -> Result<Bench, EarlyExit> {
        Ok(Bench)
    }
}

impl SubCommand for Bench {
    const COMMAND: &'static CommandInfo = &CommandInfo {
        name: "bench",
        short: &'\0',
        description: "Loads a server with messages; not in this build.",
    };
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
