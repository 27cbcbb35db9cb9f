//! Figures in the text format of Prometheus.

use std::fmt::{Display, Write};
use std::time::Duration;

use framelet::server::{Figures, SinkFigures};

/// The content type of the format.
pub(super) const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes metrics, each with its help and its type.
struct Exposition(String);

impl Exposition {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: impl Display) {
        // Cannot fail: it is a string.
        let _ = writeln!(self.0, "{line}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.line(format_args!("{name} {value}"));
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "counter", help);
        self.line(format_args!("{name} {value}"));
    }
}

/// Returns the figures as text.
pub(super) fn text(figures: &Figures) -> String {
    let mut out = Exposition(String::new());
    let version = env!("CARGO_PKG_VERSION");
    let info = "framelet_build_info";
    out.head(info, "gauge", "The version of framelet.");
    out.line(format_args!("{info}{{version=\"{version}\"}} 1"));
    out.gauge(
        "framelet_uptime_seconds",
        "For how long the server has run.",
        seconds(figures.uptime),
    );
    out.counter(
        "framelet_connections_total",
        "Connections served, the open ones included.",
        figures.connections,
    );
    out.gauge("framelet_connections_open", "Connections open now.", figures.open_connections);
    out.gauge("framelet_connections_limit", "The most that may be open.", figures.max_connections);
    let incidents = "framelet_incidents_total";
    out.head(incidents, "counter", "What went wrong with connections, by reason.");
    for incident in &figures.incidents {
        out.line(format_args!("{incidents}{{reason=\"{}\"}} {}", incident.reason, incident.count));
    }
    out.counter("framelet_messages_received_total", "Messages received.", figures.messages);
    out.counter(
        "framelet_payload_received_bytes_total",
        "Bytes of the payloads of messages received.",
        figures.payload_bytes,
    );
    out.gauge(
        "framelet_memory_bytes",
        "Memory of messages not yet committed and of replies not yet sent.",
        figures.memory,
    );
    out.gauge("framelet_memory_limit_bytes", "The most that they may take.", figures.memory_limit);
    if let Some(sink) = &figures.sink {
        of_sink(&mut out, sink);
    }
    out.0
}

fn of_sink(out: &mut Exposition, sink: &SinkFigures) {
    out.counter(
        "framelet_messages_committed_total",
        "Messages committed, those that were there already included.",
        sink.committed,
    );
    out.gauge(
        "framelet_messages_uncommitted",
        "Messages received and not yet committed.",
        sink.uncommitted,
    );
    let name = "framelet_commit_duration_seconds";
    out.head(name, "histogram", "How long commits took, waiting for the sink included.");
    let mut commits = 0;
    for (bound, count) in &sink.commit_times.buckets {
        commits += count;
        match *bound {
            Duration::MAX => out.line(format_args!("{name}_bucket{{le=\"+Inf\"}} {commits}")),
            bound => out.line(format_args!("{name}_bucket{{le=\"{}\"}} {commits}", seconds(bound))),
        }
    }
    out.line(format_args!("{name}_sum {}", seconds(sink.commit_times.total)));
    out.line(format_args!("{name}_count {commits}"));
    if let Some(age) = sink.last_commit {
        out.gauge(
            "framelet_last_commit_age_seconds",
            "How long ago the last commit was.",
            seconds(age),
        );
    }
    let trouble = sink.trouble.as_ref().map_or(Duration::ZERO, |trouble| trouble.lasted);
    out.gauge(
        "framelet_sink_trouble_seconds",
        "For how long the sink has taken nothing because of trouble that may pass; 0 if there is none.",
        seconds(trouble),
    );
    out.gauge(
        "framelet_sink_call_seconds",
        "For how long the sink has been at work on its current call; 0 if it has nothing to do.",
        seconds(sink.working_for.unwrap_or_default()),
    );
    out.gauge("framelet_senders", "Senders that the server remembers.", sink.senders);
    out.counter(
        "framelet_messages_pruned_total",
        "Messages removed because the sink keeps only so much.",
        sink.pruned,
    );
    out.counter(
        "framelet_payload_pruned_bytes_total",
        "Bytes of the payloads of messages removed.",
        sink.pruned_bytes,
    );
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each name once, with its help and type before its samples, as Prometheus asks for.
    #[test]
    fn each_metric_has_its_help_and_type_once_before_its_samples() {
        let mut figures = Figures::default();
        figures.sink = Some(SinkFigures::default());
        let text = text(&figures);
        let mut described = std::collections::BTreeSet::new();
        let mut current = "";
        for line in text.lines() {
            match line.strip_prefix("# ") {
                Some(comment) => {
                    let (kind, rest) = comment.split_once(' ').unwrap();
                    let name = rest.split(' ').next().unwrap();
                    assert!(described.insert((kind, name)), "{line}: twice");
                    current = name;
                }
                None => {
                    assert!(
                        line.starts_with(current),
                        "{line} follows the description of {current}"
                    );
                    assert!(line.rsplit_once(' ').unwrap().1.parse::<f64>().is_ok(), "{line}");
                }
            }
        }
        assert!(described.len() > 30, "{described:?}");
    }
}
