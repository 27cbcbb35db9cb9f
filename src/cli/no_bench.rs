//! `framelet bench` in a build without it.

use super::failure::Failure;
use super::missing::{Lacked, Missing};

pub(crate) struct NoBench;

impl Lacked for NoBench {
    const NAME: &'static str = "bench";
    const DESCRIPTION: &'static str = "Loads a server with messages; not in this build.";
}

pub(crate) type Bench = Missing<NoBench>;

impl Bench {
    pub(crate) fn run(self) -> Result<(), Failure> {
        self.fail()
    }
}
