//! `framelet generate` in a build without it.

use argh::CommandInfoWithArgs;

use super::failure::Failure;
use super::missing::{Lacked, Missing};

pub(crate) struct NoGenerate;

impl Lacked for NoGenerate {
    const NAME: &'static str = "generate";
    const DESCRIPTION: &'static str =
        "Prints completions for a shell, or a manual page; not in this build.";
}

pub(crate) type Generate = Missing<NoGenerate>;

impl Generate {
    pub(crate) fn run(self, _: &CommandInfoWithArgs) -> Result<(), Failure> {
        self.fail()
    }
}
