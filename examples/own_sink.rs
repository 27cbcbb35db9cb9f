//! A sink of one's own, and its unit test: `cargo test --example own_sink`.

use std::collections::BTreeMap;

use framelet::Batch;
use framelet::sink::{MessageSink, SinkError};

/// Counts how often each message came.
#[derive(Default)]
struct Tally(BTreeMap<Vec<u8>, u64>);

impl MessageSink for Tally {
    fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError> {
        for message in batches.iter().flatten() {
            *self.0.entry(message.payload.to_vec()).or_default() += 1;
        }
        Ok(())
    }
}

fn main() -> Result<(), SinkError> {
    let mut tally = Tally::default();
    tally.commit(&[Batch::from_iter(["red", "blue", "red"])])?;
    for (message, count) in tally.0 {
        println!("{count} {}", String::from_utf8_lossy(&message));
    }
    Ok(())
}

#[test]
fn equal_messages_are_counted_together() {
    let mut tally = Tally::default();
    let batches = [Batch::from_iter(["a", "b"]), Batch::from_iter(["a"])];
    tally.commit(&batches).unwrap();
    assert_eq!(tally.0, BTreeMap::from([(b"a".to_vec(), 2), (b"b".to_vec(), 1)]));
}
