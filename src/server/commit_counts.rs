//! What the writer thread has done and does now, for other threads to read.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::figures::{BOUNDS, CommitTimes, SinkFigures, Trouble};

/// Counts messages on their way to the sink, and commits.
#[derive(Debug)]
pub(crate) struct CommitCounts {
    started: Instant,
    queued: AtomicU64,
    /// Includes messages that were refused: they are not this server's to commit.
    committed: AtomicU64,
    senders: AtomicUsize,
    pruned: AtomicU64,
    pruned_bytes: AtomicU64,
    /// The number of commits for each of the [`BOUNDS`], and of those that took longer.
    commits: [AtomicU64; BOUNDS.len() + 1],
    /// How long all commits took together, in nanoseconds.
    commit_time: AtomicU64,
    /// When the last commit ended.
    last_commit: Moment,
    /// When the sink's current call began.
    call: Moment,
    trouble: Mutex<Option<(String, Instant)>>,
}

/// A time that may not be known: nanoseconds since the start, or 0.
#[derive(Debug, Default)]
struct Moment(AtomicU64);

impl Default for CommitCounts {
    fn default() -> Self {
        CommitCounts {
            started: Instant::now(),
            queued: AtomicU64::default(),
            committed: AtomicU64::default(),
            senders: AtomicUsize::default(),
            pruned: AtomicU64::default(),
            pruned_bytes: AtomicU64::default(),
            commits: Default::default(),
            commit_time: AtomicU64::default(),
            last_commit: Moment::default(),
            call: Moment::default(),
            trouble: Mutex::default(),
        }
    }
}

impl CommitCounts {
    pub(super) fn queue(&self, messages: u64) {
        self.queued.fetch_add(messages, Ordering::SeqCst);
    }

    /// Undoes counting messages as queued, which another connection will queue again.
    pub(super) fn unqueue(&self, messages: u64) {
        self.queued.fetch_sub(messages, Ordering::SeqCst);
    }

    pub(super) fn commit(&self, messages: usize) {
        self.committed.fetch_add(messages as u64, Ordering::SeqCst);
    }

    /// Returns how many queued messages are not known to be committed.
    pub(super) fn uncommitted(&self) -> u64 {
        let committed = self.committed.load(Ordering::SeqCst);
        self.queued.load(Ordering::SeqCst).saturating_sub(committed)
    }

    /// Records a commit that began at `since`, and how many senders are known after it.
    pub(super) fn record_commit(&self, since: Instant, senders: usize) {
        let now = Instant::now();
        let took = now - since;
        let bucket = BOUNDS.partition_point(|&bound| Duration::from_micros(bound) < took);
        self.commits[bucket].fetch_add(1, Ordering::Relaxed);
        self.commit_time.fetch_add(nanos(took), Ordering::Relaxed);
        self.last_commit.set(now - self.started);
        self.senders.store(senders, Ordering::Relaxed);
    }

    /// Counts messages that the sink has removed, and the bytes of their payloads.
    pub(super) fn record_pruned(&self, messages: u64, bytes: u64) {
        self.pruned.fetch_add(messages, Ordering::Relaxed);
        self.pruned_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Records that a call of the sink begins.
    pub(super) fn call_begins(&self) {
        self.call.set(self.started.elapsed());
    }

    /// Records that it has ended.
    pub(super) fn call_ends(&self) {
        self.call.forget();
    }

    /// Returns why the sink cannot work now; `None` while it works.
    pub(super) fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.as_ref().map(|(why, _)| why.clone())
    }

    pub(super) fn set_trouble(&self, trouble: Option<(String, Instant)>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    pub(super) fn figures(&self) -> SinkFigures {
        let now = self.started.elapsed();
        let bounds = BOUNDS.map(Duration::from_micros).into_iter().chain([Duration::MAX]);
        let counts = self.commits.iter().map(|count| count.load(Ordering::Relaxed));
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let trouble = trouble
            .as_ref()
            .map(|(reason, since)| Trouble { reason: reason.clone(), lasted: since.elapsed() });
        SinkFigures {
            committed: self.committed.load(Ordering::SeqCst),
            uncommitted: self.uncommitted(),
            pruned: self.pruned.load(Ordering::Relaxed),
            pruned_bytes: self.pruned_bytes.load(Ordering::Relaxed),
            commit_times: CommitTimes {
                buckets: bounds.zip(counts).collect(),
                total: Duration::from_nanos(self.commit_time.load(Ordering::Relaxed)),
            },
            last_commit: self.last_commit.before(now),
            working_for: self.call.before(now),
            trouble,
            senders: self.senders.load(Ordering::Relaxed),
        }
    }
}

impl Moment {
    fn set(&self, moment: Duration) {
        self.0.store(nanos(moment).max(1), Ordering::Relaxed);
    }

    fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Returns for how long it has been, if it is known.
    fn before(&self, now: Duration) -> Option<Duration> {
        let moment = self.0.load(Ordering::Relaxed);
        (moment > 0).then(|| now.saturating_sub(Duration::from_nanos(moment)))
    }
}

/// Returns a duration in nanoseconds, which is enough for 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_commit_is_in_the_bucket_of_its_time() {
        let counts = CommitCounts::default();
        let ago = |time| Instant::now().checked_sub(time).unwrap();
        counts.record_commit(ago(Duration::from_millis(500)), 3);
        counts.record_commit(ago(Duration::from_secs(20)), 2);
        let figures = counts.figures();
        let of = |bound| {
            let buckets = &figures.commit_times.buckets;
            buckets.iter().find(|(at, _)| *at == bound).unwrap().1
        };
        assert_eq!(of(Duration::from_millis(300)), 0);
        assert_eq!((of(Duration::from_secs(1)), of(Duration::MAX)), (1, 1));
        assert_eq!((figures.commit_times.count(), figures.senders), (2, 2));
        assert_eq!(figures.commit_times.total.as_secs(), 20);
        assert!(figures.last_commit.unwrap() < Duration::from_secs(10));
    }

    #[test]
    fn what_the_sink_does_now_is_told_with_its_time() {
        let counts = CommitCounts::default();
        assert_eq!(counts.figures().working_for, None);
        counts.call_begins();
        assert!(counts.figures().working_for.is_some());
        counts.call_ends();
        assert_eq!(counts.figures().working_for, None);
        counts.queue(5);
        counts.commit(2);
        let figures = counts.figures();
        assert_eq!((figures.committed, figures.uncommitted), (2, 3));
    }
}
