//! `framelet detect` in a build without it.

use super::failure::Failure;
use super::missing::{Lacked, Missing};

pub(crate) struct NoDetect;

impl Lacked for NoDetect {
    const NAME: &'static str = "detect";
    const DESCRIPTION: &'static str = "Finds out which layout a capture is in; not in this build.";
}

pub(crate) type Detect = Missing<NoDetect>;

impl Detect {
    pub(crate) fn run(self) -> Result<(), Failure> {
        self.fail()
    }
}
