//! When the writer thread looks for its next command for a while, instead of sleeping until it comes.

use std::thread;
use std::time::{Duration, Instant};

/// How long it looks. A client that waits for an acknowledgement has to be woken by it, and the task that
/// receives its next message by that; each takes up to 50 µs where cores are virtual and idle.
const LONGEST: Duration = Duration::from_micros(200);

/// How often it sleeps at once, at most, before it tries again whether looking pays.
const MOST_PASSED: u32 = 63;

/// The same after something had to wait for it: that can have been milliseconds.
const PASSED_IF_LATE: u32 = 1023;

/// Decides when to look, by what came of it before.
///
/// What is found need not wait until a thread is woken for it. Where nothing comes, looking is given up
/// at once and tried again ever less often: it then costs 3 µs of CPU time a commit.
#[derive(Debug)]
pub(super) struct Linger {
    /// Whether there is a core to look with, beside the one that does what is looked for.
    spare_core: bool,
    /// How often to sleep at once before looking again.
    passing: u32,
    /// What that will be the next time that looking is in vain.
    penalty: u32,
}

/// What came of looking.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outcome {
    Found,
    InVain,
    /// Others had the core when it came. Who sleeps gets a core sooner than who has stood back.
    Late,
}

impl Linger {
    pub(super) fn new() -> Linger {
        Linger::on(thread::available_parallelism().map_or(1, usize::from))
    }

    fn on(cores: usize) -> Linger {
        Linger { spare_core: cores > 1, passing: 0, penalty: 1 }
    }

    /// Looks for a while whether something `has_come`, if that is likely to pay.
    pub(super) fn until(&mut self, has_come: impl Fn() -> bool) {
        if self.is_due() {
            self.note(look(has_come));
        }
    }

    fn is_due(&mut self) -> bool {
        if self.passing > 0 {
            self.passing -= 1;
            return false;
        }
        self.spare_core
    }

    fn note(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Found => self.penalty = 1,
            Outcome::InVain => {
                self.passing = self.penalty;
                self.penalty = (2 * self.penalty + 1).min(MOST_PASSED);
            }
            Outcome::Late => self.passing = PASSED_IF_LATE,
        }
    }
}

/// Looks whether something `has_come`, and lets everything else that wants to run go first.
fn look(has_come: impl Fn() -> bool) -> Outcome {
    let started = Instant::now();
    loop {
        match (has_come(), started.elapsed() < LONGEST) {
            (true, true) => return Outcome::Found,
            (true, false) => return Outcome::Late,
            (false, true) => thread::yield_now(),
            (false, false) => return Outcome::InVain,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Returns how often it sleeps at once before it looks.
    fn passed(linger: &mut Linger) -> Option<u32> {
        (0..10_000).find(|_| linger.is_due())
    }

    /// Returns how often it sleeps at once between such outcomes.
    fn passed_between<const N: usize>(linger: &mut Linger, outcomes: [Outcome; N]) -> [u32; N] {
        outcomes.map(|outcome| {
            linger.note(outcome);
            passed(linger).unwrap()
        })
    }

    #[test]
    fn the_more_often_looking_is_in_vain_the_more_seldom_it_is() {
        let mut linger = Linger::on(2);
        assert_eq!(passed(&mut linger), Some(0));
        let passed = passed_between(&mut linger, [Outcome::InVain; 8]);
        assert_eq!(passed, [1, 3, 7, 15, 31, 63, 63, 63]);
    }

    #[test]
    fn once_it_finds_something_again_it_goes_on() {
        let mut linger = Linger::on(2);
        passed_between(&mut linger, [Outcome::InVain; 8]);
        assert_eq!(passed_between(&mut linger, [Outcome::Found; 8]), [0; 8]);
        assert_eq!(passed_between(&mut linger, [Outcome::InVain; 2]), [1, 3]);
    }

    #[test]
    fn where_others_need_the_core_it_sleeps() {
        let mut linger = Linger::on(2);
        let passed = passed_between(&mut linger, [Outcome::Late, Outcome::Found, Outcome::Late]);
        assert_eq!(passed, [1023, 0, 1023]);
        assert_eq!(self::passed(&mut Linger::on(1)), None);
    }

    #[test]
    fn it_looks_again_and_again_but_not_for_ever() {
        let looks = Cell::new(0);
        let found_at = |which| {
            looks.set(0);
            look(|| {
                looks.set(looks.get() + 1);
                looks.get() == which
            })
        };
        // Once whatever else runs leaves it the core for so long.
        assert!((0..1000).any(|_| found_at(3) == Outcome::Found));
        assert_eq!(looks.get(), 3);
        let started = Instant::now();
        assert_eq!(found_at(u32::MAX), Outcome::InVain);
        assert!(started.elapsed() >= LONGEST);
    }

    #[test]
    fn it_says_when_something_had_to_wait() {
        // As if others had the core for so long.
        let has_come = || {
            thread::sleep(LONGEST);
            true
        };
        assert_eq!(look(has_come), Outcome::Late);
    }
}
