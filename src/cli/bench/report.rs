//! The final report, as text and as JSON.

use std::fmt::Write;
use std::time::Duration;

use framelet::wire::Count;
use hdrhistogram::Histogram;

use super::super::grouped::grouped;
use super::plan::{Mode, Plan};
use super::tally::Tally;

/// If a thread is busy for at least this share of the time, the generator may be the limit.
const BUSY: f64 = 0.95;

/// If sends are at least this late, or less than this share of the rate is reached, the generator fell
/// behind.
const LATE: Duration = Duration::from_millis(1);
const SHARE: f64 = 0.99;

/// How many kinds of errors are listed.
const FAULTS: usize = 4;

/// The quantiles of latency that are shown; the last one is the maximum.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

pub(super) struct Report<'a> {
    pub(super) plan: &'a Plan,
    pub(super) tally: &'a Tally,
}

impl Report<'_> {
    pub(super) fn text(&self) -> String {
        let Report { plan, tally } = self;
        let mut lines = Lines(String::new());
        let what = match plan.mode {
            Mode::Flood => "flood",
            Mode::Echo => "round trips",
            Mode::Rate(_) => "round trips at a rate",
        };
        lines.add(
            what,
            format!(
                "{}, {}, {}, messages of {} as {}",
                plan.address,
                Count(plan.connections as u64, "connection"),
                Count(plan.threads as u64, "thread"),
                size(plan),
                plan.layout
            ),
        );
        let messages = grouped(tally.messages);
        lines.add("messages", format!("{messages} in {:.3} s", self.seconds()));
        let bytes = whole(self.per_second(tally.bytes));
        let rate = whole(self.messages_per_second());
        lines.add("throughput", format!("{rate} messages/s, {bytes} bytes/s of payload"));
        if let Mode::Rate(target) = plan.mode {
            let share = 100.0 * self.messages_per_second() / target as f64;
            let target = grouped(target);
            lines.add("rate", format!("{share:.1} % of the {target} messages/s asked for"));
            lines.add("latency", format!("{} from when due", times(&tally.latency)));
            lines.add("", format!("{} from when sent", times(&tally.from_send)));
        } else if let Mode::Echo = plan.mode {
            lines.add("latency", times(&tally.latency));
        }
        let (busy, spins) = (100.0 * self.busy(), matches!(plan.mode, Mode::Rate(_)));
        let why = if spins { ", waiting for the next message included" } else { "" };
        let cpu = self.cpu_per_message();
        lines.add("generator", format!("busy {busy:.0} % of the time, {cpu:.1} ns a message{why}"));
        lines.add("errors", grouped(tally.errors));
        for fault in tally.faults.iter().take(FAULTS) {
            lines.add("", fault.text.clone());
        }
        self.remarks().iter().for_each(|remark| lines.say(remark));
        lines.0
    }

    /// Returns remarks needed to interpret the results.
    fn remarks(&self) -> Vec<String> {
        let tally = self.tally;
        let mut remarks = Vec::new();
        if tally.messages == 0 && tally.errors == 0 {
            remarks.push("it ended before anything was measured".into());
        }
        if self.fell_behind() {
            remarks.push(match self.plan.mode {
                Mode::Rate(_) => format!(
                    "the generator fell behind: one send in a hundred was {} late or more; lower \
                     --rate, or try --threads",
                    time(tally.lateness.value_at_quantile(0.99))
                ),
                _ => "the generator may be the limit; try --threads".into(),
            });
        }
        if let Mode::Flood = self.plan.mode
            && tally.messages > 0
        {
            remarks.push(
                "these messages were written, and the server then closed the connections cleanly; \
                 that is no promise that they are committed"
                    .into(),
            );
        }
        if tally.unasked > 0 {
            remarks.push(format!(
                "the server sent {} bytes, which were dropped; if it echoes, measure it with --echo",
                grouped(tally.unasked)
            ));
        }
        remarks
    }

    pub(super) fn json(&self) -> String {
        let Report { plan, tally } = self;
        let (mode, target) = match plan.mode {
            Mode::Flood => ("flood", None),
            Mode::Echo => ("echo", None),
            Mode::Rate(rate) => ("rate", Some(rate)),
        };
        let latency = |times: &Histogram<u64>, shown| match shown {
            true => json_times(times),
            false => "null".into(),
        };
        format!(
            concat!(
                r#"{{"mode":"{mode}","address":{address},"layout":"{layout}","#,
                r#""connections":{connections},"threads":{threads},"#,
                r#""size":{{"min":{min},"max":{max}}},"warm_up_s":{warm_up:?},"#,
                r#""seconds":{seconds:?},"messages":{messages},"bytes":{bytes},"#,
                r#""messages_per_s":{rate:?},"bytes_per_s":{bytes_per_s:?},"errors":{errors},"#,
                r#""target_rate":{target},"achieved_rate":{rate:?},"#,
                r#""latency_us":{latency},"latency_from_send_us":{from_send},"#,
                r#""generator":{{"busy":{busy:?},"cpu_ns_per_message":{cpu:?},"#,
                r#""fell_behind":{fell_behind}}}}}"#,
                "\n"
            ),
            mode = mode,
            // Quotes a path, whatever it contains.
            address = serde_json::Value::from(plan.address.to_string()),
            layout = plan.layout,
            connections = plan.connections,
            threads = plan.threads,
            min = plan.sizes.start(),
            max = plan.sizes.end(),
            warm_up = plan.warm_up.as_secs_f64(),
            seconds = self.seconds(),
            messages = tally.messages,
            bytes = tally.bytes,
            rate = self.messages_per_second(),
            bytes_per_s = self.per_second(tally.bytes),
            errors = tally.errors,
            target = target.map_or("null".into(), |target| target.to_string()),
            latency = latency(&tally.latency, mode != "flood"),
            from_send = latency(&tally.from_send, mode == "rate"),
            busy = self.busy(),
            cpu = self.cpu_per_message(),
            fell_behind = self.fell_behind(),
        )
    }

    fn seconds(&self) -> f64 {
        self.tally.time().as_secs_f64()
    }

    fn messages_per_second(&self) -> f64 {
        self.per_second(self.tally.messages)
    }

    fn per_second(&self, number: u64) -> f64 {
        ratio(number as f64, self.seconds())
    }

    fn busy(&self) -> f64 {
        ratio(self.tally.cpu.as_secs_f64(), self.tally.wall.as_secs_f64())
    }

    fn cpu_per_message(&self) -> f64 {
        ratio(1e9 * self.tally.cpu.as_secs_f64(), self.tally.messages as f64)
    }

    /// Returns whether the results may describe the generator rather than the server.
    fn fell_behind(&self) -> bool {
        let tally = self.tally;
        match self.plan.mode {
            Mode::Flood | Mode::Echo => tally.busiest > BUSY,
            // Only lateness caused by the generator: slow replies are the server's.
            Mode::Rate(target) => {
                let late = Duration::from_nanos(tally.lateness.value_at_quantile(0.99)) > LATE;
                let sending = tally.last_send.saturating_duration_since(tally.began);
                let sent = tally.lateness.len() as f64;
                // The first message is sent at the start, hence one less.
                late || (sent - 1.0) < SHARE * target as f64 * sending.as_secs_f64()
            }
        }
    }
}

/// Lines with a column of names.
struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, value: String) {
        // Cannot fail: a String takes everything.
        let _ = match name.len() < 12 {
            true => writeln!(self.0, "{name:<12}{value}"),
            false => writeln!(self.0, "{name}: {value}"),
        };
    }

    fn say(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }
}

fn size(plan: &Plan) -> String {
    match plan.sizes.start() == plan.sizes.end() {
        true => Count(*plan.sizes.end() as u64, "byte").to_string(),
        false => format!("{} to {} bytes", plan.sizes.start(), plan.sizes.end()),
    }
}

/// Divides; the result is 0 if the divisor is.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// Shows a number without decimals.
pub(super) fn whole(number: f64) -> String {
    grouped(format!("{number:.0}"))
}

fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

/// Shows a time with at least three digits, in a suitable unit.
fn time(nanos: u64) -> String {
    match micros(nanos) {
        micros if micros < 1000.0 => format!("{micros:.1} µs"),
        micros if micros < 1e6 => format!("{:.2} ms", micros / 1e3),
        micros => format!("{:.2} s", micros / 1e6),
    }
}

fn times(times: &Histogram<u64>) -> String {
    if times.is_empty() {
        return "none measured".into();
    }
    let shown = |(name, part)| format!("{name} {}", time(times.value_at_quantile(part)));
    QUANTILES.map(shown).join("  ")
}

fn json_times(times: &Histogram<u64>) -> String {
    if times.is_empty() {
        return "null".into();
    }
    let shown = |(name, part)| format!(r#""{name}":{:?}"#, micros(times.value_at_quantile(part)));
    format!("{{{}}}", QUANTILES.map(shown).join(","))
}
