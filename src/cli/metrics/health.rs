//! Whether a server is healthy.

use std::time::Duration;

use framelet::server::{Figures, Stage};

/// How long a call of the sink may take before the sink counts as stuck.
const STUCK: Duration = Duration::from_secs(10);

/// Returns what is wrong, in words; `None` if the server accepts messages and commits them.
pub(super) fn trouble(figures: &Figures) -> Option<String> {
    match figures.stage {
        Stage::Serving => {}
        Stage::Starting => return Some("the server is starting".into()),
        _ => return Some("the server is shutting down".into()),
    }
    let sink = figures.sink.as_ref()?;
    if let Some(trouble) = &sink.trouble {
        let seconds = trouble.lasted.as_secs_f64();
        return Some(format!("nothing is committed for {seconds:.1} s: {}", trouble.reason));
    }
    let working_for = sink.working_for.filter(|time| *time >= STUCK)?;
    Some(format!("the sink has not answered for {:.1} s", working_for.as_secs_f64()))
}
