//! The figures of a server in words, for people.

use std::time::Duration;

use framelet::server::Figures;
use framelet::wire::Count;

use super::super::grouped::grouped;

/// Returns what the server has done and does now, in one line.
pub(super) fn words(figures: &Figures) -> String {
    let connections = Count(figures.connections, "connection");
    let mut line = format!("{} of {connections} open, ", grouped(figures.open_connections));
    let plural = if figures.messages == 1 { "" } else { "s" };
    line += &format!(
        "{} message{plural} of {}, ",
        grouped(figures.messages),
        size(figures.payload_bytes)
    );
    line += &format!("memory {} of {}", size(figures.memory), size(figures.memory_limit));
    if let Some(sink) = &figures.sink {
        let (waiting, committed) = (grouped(sink.uncommitted), grouped(sink.committed));
        line += &format!(", {committed} committed, {waiting} waiting");
        if let Some(ago) = sink.last_commit {
            line += &format!(", last commit {} ago", time(ago));
        }
        if let Some(trouble) = &sink.trouble {
            line += &format!("; in trouble for {}: {}", time(trouble.lasted), trouble.reason);
        }
    }
    line
}

/// Shows a time with a precision that suits it.
fn time(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        seconds => humantime::format_duration(Duration::from_secs(seconds)).to_string(),
    }
}

/// Shows a number of bytes in a unit that suits it.
fn size(bytes: impl TryInto<u64>) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let bytes: u64 = bytes.try_into().unwrap_or(u64::MAX);
    if bytes < 1024 {
        return Count(bytes, "byte").to_string();
    }
    let power = (bytes.ilog2() / 10).min(5);
    let tenths = (u128::from(bytes) * 10) >> (10 * power);
    let (whole, tenth) = (tenths / 10, tenths % 10);
    format!("{whole}.{tenth} {}", UNITS[power as usize - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_a_unit_that_suits_them() {
        for (bytes, shown) in [
            (0_u64, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (1_048_575, "1023.9 KiB"),
            (64 << 20, "64.0 MiB"),
            (u64::MAX, "16383.9 PiB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
        for (millis, shown) in [(0, "0.0 s"), (9_940, "9.9 s"), (75_000, "1m 15s")] {
            assert_eq!(time(Duration::from_millis(millis)), shown);
        }
    }

    #[test]
    fn a_server_without_a_sink_has_no_commits() {
        let mut figures = Figures::default();
        (figures.open_connections, figures.connections) = (3, 1);
        (figures.messages, figures.payload_bytes) = (1_234, 2048);
        (figures.memory, figures.memory_limit) = (0, 64 << 20);
        let shown = "3 of 1 connection open, 1,234 messages of 2.0 KiB, memory 0 bytes of 64.0 MiB";
        assert_eq!(words(&figures), shown);
    }

    #[test]
    fn a_sink_is_shown_with_its_trouble() {
        use framelet::server::SinkFigures;

        let mut sink = SinkFigures::default();
        (sink.committed, sink.uncommitted) = (5_000, 12);
        sink.last_commit = Some(Duration::from_millis(1_500));
        let mut figures = Figures::default();
        figures.sink = Some(sink);
        let shown = words(&figures);
        assert!(shown.ends_with("5,000 committed, 12 waiting, last commit 1.5 s ago"), "{shown}");
    }
}
