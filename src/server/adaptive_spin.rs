//! When the writer thread busy-waits for its next command instead of sleeping.

use std::thread;
use std::time::{Duration, Instant};

/// How long to busy-wait. A client that waits for an acknowledgement has to be woken by it, and then the
/// task that receives its next message; each takes up to 50 µs on idle virtual cores.
const LONGEST: Duration = Duration::from_micros(200);

/// How much time per commit may be wasted by busy-waiting in vain, on average.
const PRICE: Duration = Duration::from_micros(3);

/// Decides when to busy-wait, from the results so far.
///
/// A command that arrives during a busy-wait need not wait until the thread is woken. If none arrives, the
/// next busy-waits are skipped, more of them after each failure.
#[derive(Debug)]
pub(super) struct AdaptiveSpin {
    /// Whether there is a spare core: on the only one, spinning would delay the task that is waited for.
    spare_core: bool,
    /// How many busy-waits to skip now.
    skip: u32,
    /// How many to skip after the next failure.
    penalty: u32,
}

/// The result of a busy-wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Spun {
    Found,
    InVain,
    /// A command arrived while this thread was preempted, for this long in total. A sleeping thread would
    /// have been given the core at once.
    Late(Duration),
}

impl AdaptiveSpin {
    pub(super) fn new() -> AdaptiveSpin {
        AdaptiveSpin::on(thread::available_parallelism().map_or(1, usize::from))
    }

    fn on(cores: usize) -> AdaptiveSpin {
        AdaptiveSpin { spare_core: cores > 1, skip: 0, penalty: 1 }
    }

    /// Busy-waits until `has_come` returns true, but at most 200 µs, and only if that is likely to pay.
    pub(super) fn until(&mut self, has_come: impl Fn() -> bool) {
        if self.is_due() {
            self.note(look(has_come));
        }
    }

    fn is_due(&mut self) -> bool {
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.spare_core
    }

    fn note(&mut self, outcome: Spun) {
        match outcome {
            Spun::Found => self.penalty = 1,
            Spun::InVain => {
                self.skip = self.penalty;
                self.penalty = (2 * self.penalty + 1).min(commits_to_pay_for(LONGEST));
            }
            Spun::Late(lost) => self.skip = commits_to_pay_for(lost),
        }
    }
}

fn commits_to_pay_for(lost: Duration) -> u32 {
    u32::try_from(lost.as_nanos() / PRICE.as_nanos()).unwrap_or(u32::MAX)
}

/// Busy-waits until `has_come` returns true, at low priority: any other thread that wants this core goes first.
fn look(has_come: impl Fn() -> bool) -> Spun {
    let started = Instant::now();
    loop {
        let (come, taken) = (has_come(), started.elapsed());
        match (come, taken < LONGEST) {
            (true, true) => return Spun::Found,
            (true, false) => return Spun::Late(taken),
            (false, true) => thread::yield_now(),
            (false, false) => return Spun::InVain,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Returns how often it sleeps at once before it looks.
    fn passed(spin: &mut AdaptiveSpin) -> Option<u32> {
        (0..10_000).find(|_| spin.is_due())
    }

    /// Returns how often it sleeps at once between such outcomes.
    fn passed_between<const N: usize>(spin: &mut AdaptiveSpin, outcomes: [Spun; N]) -> [u32; N] {
        outcomes.map(|outcome| {
            spin.note(outcome);
            passed(spin).unwrap()
        })
    }

    #[test]
    fn the_more_often_looking_is_in_vain_the_more_seldom_it_is() {
        let mut spin = AdaptiveSpin::on(2);
        assert_eq!(passed(&mut spin), Some(0));
        let passed = passed_between(&mut spin, [Spun::InVain; 8]);
        assert_eq!(passed, [1, 3, 7, 15, 31, 63, 66, 66]);
    }

    #[test]
    fn once_it_finds_something_again_it_goes_on() {
        let mut spin = AdaptiveSpin::on(2);
        passed_between(&mut spin, [Spun::InVain; 8]);
        assert_eq!(passed_between(&mut spin, [Spun::Found; 8]), [0; 8]);
        assert_eq!(passed_between(&mut spin, [Spun::InVain; 2]), [1, 3]);
    }

    #[test]
    fn where_others_need_the_core_it_sleeps_the_longer_the_more_that_has_cost() {
        let mut spin = AdaptiveSpin::on(2);
        let late = |millis| Spun::Late(Duration::from_millis(millis));
        let passed = passed_between(&mut spin, [late(3), Spun::Found, late(6)]);
        assert_eq!(passed, [1000, 0, 2000]);
        assert_eq!(self::passed(&mut AdaptiveSpin::on(1)), None);
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
        assert!((0..1000).any(|_| found_at(3) == Spun::Found));
        assert_eq!(looks.get(), 3);
        let started = Instant::now();
        assert_eq!(found_at(u32::MAX), Spun::InVain);
        assert!(started.elapsed() >= LONGEST);
    }

    #[test]
    fn it_says_when_something_had_to_wait() {
        // As if others had the core for so long.
        let has_come = || {
            thread::sleep(LONGEST);
            true
        };
        let outcome = look(has_come);
        assert!(matches!(outcome, Spun::Late(lost) if lost >= LONGEST), "{outcome:?}");
    }
}
