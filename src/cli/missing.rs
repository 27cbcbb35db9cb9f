//! A command in a build that lacks it.

use std::marker::PhantomData;

use argh::{ArgsInfo, CommandInfo, CommandInfoWithArgs, EarlyExit, FromArgs, SubCommand};

use super::exit_code::Exit;
use super::failure::Failure;

/// What is missing.
pub(crate) trait Lacked {
    const NAME: &'static str;
    const DESCRIPTION: &'static str;
}

/// A command that accepts any arguments, and then says that it is missing.
pub(crate) struct Missing<L>(PhantomData<L>);

impl<L> FromArgs for Missing<L> {
    fn from_args(_: &[&str], _: &[&str]) -> Result<Self, EarlyExit> {
        Ok(Missing(PhantomData))
    }
}

impl<L: Lacked> SubCommand for Missing<L> {
    const COMMAND: &'static CommandInfo =
        &CommandInfo { name: L::NAME, short: &'\0', description: L::DESCRIPTION };
}

impl<L: Lacked> ArgsInfo for Missing<L> {
    fn get_args_info() -> CommandInfoWithArgs {
        CommandInfoWithArgs { name: L::NAME, description: L::DESCRIPTION, ..Default::default() }
    }
}

impl<L: Lacked> Missing<L> {
    pub(crate) fn fail(self) -> Result<(), Failure> {
        let name = L::NAME;
        Err(Failure::new(
            Exit::Usage,
            format!(
                "this build has no {name}; build framelet with its default features to get it, as in \
                 cargo install --locked --path ."
            ),
        ))
    }
}
