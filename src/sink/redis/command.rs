//! The command that commits messages, encoded.
//!
//! Encoded here because the client library would copy each payload twice.

use std::time::SystemTime;

use humantime::format_rfc3339_millis;

use super::portions::{Group, Part, Portion};
use crate::message::Message;
use crate::wire::sender_id::SenderId;

/// The parts that all commands have in common.
pub(super) struct Fixed {
    pub(super) keys: [String; 4],
    pub(super) maxlen: String,
    pub(super) own: SenderId,
}

/// Encodes commands, one after the other in the same buffer.
#[derive(Default)]
pub(super) struct Command {
    /// Space of [`HEAD`] bytes, then the arguments.
    encoded: Vec<u8>,
    arguments: usize,
}

/// The longest line with the number of arguments.
const HEAD: usize = 24;

impl Command {
    /// Returns the command that makes `script` commit a portion of `group`.
    pub(super) fn commit(
        &mut self,
        script: &str,
        fixed: &Fixed,
        group: &Group,
        portion: &Portion,
    ) -> &[u8] {
        self.encoded.resize(HEAD, 0);
        self.arguments = 0;
        let own = fixed.own.to_string();
        let sender = group.sender.map(|sender| sender.to_string());
        self.push("EVALSHA");
        self.push(script);
        self.push(&fixed.keys.len().to_string());
        fixed.keys.iter().for_each(|key| self.push(key));
        self.push(sender.as_deref().unwrap_or(&own));
        self.push(&group.epoch.to_string());
        self.push(&own);
        self.push(&fixed.maxlen);
        self.push(&group.first_of(portion).to_string());
        let checksum = group.sender.and_then(|_| group.last_checksum_of(portion));
        self.push(&checksum.map(|checksum| format!(" {checksum:016x}")).unwrap_or_default());
        for part in &portion.parts {
            self.push_part(group, part, sender.as_deref());
        }
        let head = format!("*{}\r\n", self.arguments);
        let start = HEAD - head.len();
        self.encoded[start..HEAD].copy_from_slice(head.as_bytes());
        &self.encoded[start..]
    }

    fn push_part(&mut self, group: &Group, part: &Part, sender: Option<&str>) {
        let messages = group.batches[part.batch].messages();
        let mut messages = messages.skip(part.messages.start).take(part.messages.len()).peekable();
        // The same for all messages of a batch.
        let Some(first) = messages.peek() else { return };
        let received = first.received.unwrap_or_else(SystemTime::now);
        let fields = [
            Some(("time", format_rfc3339_millis(received).to_string())),
            first.peer.map(|peer| ("peer", peer.to_string())),
            first.connection.map(|connection| ("connection", connection.to_string())),
            sender.map(|sender| ("sender", sender.to_owned())),
        ];
        let numbers = packed_numbers(first.number, part.messages.len());
        self.push(&part.messages.len().to_string());
        self.push(&(2 * fields.iter().flatten().count()).to_string());
        for (field, value) in fields.iter().flatten() {
            self.push(field);
            self.push(value);
        }
        self.push(&numbers);
        self.push(&packed_headers(messages.clone()));
        messages.for_each(|message| self.push(message.payload));
    }

    fn push(&mut self, argument: &(impl AsRef<[u8]> + ?Sized)) {
        let argument = argument.as_ref();
        self.arguments += 1;
        self.encoded.push(b'$');
        self.encoded.extend_from_slice(itoa::Buffer::new().format(argument.len()).as_bytes());
        self.encoded.extend_from_slice(b"\r\n");
        self.encoded.extend_from_slice(argument);
        self.encoded.extend_from_slice(b"\r\n");
    }
}

/// A MessagePack array of strings.
struct Packed(Vec<u8>);

impl Packed {
    /// Returns the start of an array of this many strings.
    fn new(strings: usize) -> Packed {
        let mut packed = Packed(vec![0xdd]);
        packed.push_length(strings);
        packed
    }

    fn push(&mut self, string: &[u8]) {
        self.0.push(0xdb);
        self.push_length(string.len());
        self.0.extend_from_slice(string);
    }

    fn push_length(&mut self, length: usize) {
        // Lengths here always fit.
        self.0.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }
}

/// Returns `count` consecutive numbers from `first`, as a MessagePack array of decimal strings.
fn packed_numbers(first: u64, count: usize) -> Vec<u8> {
    let (mut packed, mut digits) = (Packed::new(count), itoa::Buffer::new());
    for index in 0..count as u64 {
        packed.push(digits.format(first.saturating_add(index)).as_bytes());
    }
    packed.0
}

/// Returns the headers of messages as a MessagePack array, or nothing if none of them has one.
fn packed_headers<'a>(messages: impl Iterator<Item = Message<'a>> + Clone) -> Vec<u8> {
    if messages.clone().all(|message| message.header.is_empty()) {
        return Vec::new();
    }
    let mut packed = Packed::new(messages.clone().count());
    messages.for_each(|message| packed.push(&message.header.to_bytes()));
    packed.0
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use redis::{from_redis_value, parse_redis_value};

    use super::*;
    use crate::message::Batch;
    use crate::message::tests::{batch, origin};
    use crate::wire::ack::checksum;

    /// Returns the arguments of a command that commits a part of `batch`.
    fn arguments(command: &mut Command, batch: &Batch, messages: Range<usize>) -> Vec<Vec<u8>> {
        let fixed = Fixed {
            keys: ["s", "{s}:senders", "{s}:claims", "{s}:seen"].map(ToOwned::to_owned),
            maxlen: "1000".into(),
            own: SenderId::from_bytes([0xee; 16]),
        };
        let (sender, batches, first) = (batch.sender(), vec![batch], vec![21]);
        let group = Group { sender, epoch: 3, batches, first, refused: false };
        let count = messages.len();
        let parts = vec![Part { batch: 0, messages }];
        let portion = Portion { group: 0, parts, messages: count, done: false };
        let encoded = command.commit("5c12", &fixed, &group, &portion);
        from_redis_value(parse_redis_value(encoded).unwrap()).unwrap()
    }

    #[test]
    fn a_command_has_its_messages_and_what_is_known_of_them() {
        let sender = SenderId::from_bytes([0xaa; 16]);
        let (a, e) = ("a".repeat(32), "e".repeat(32));
        let long = vec![0xff; 300];
        let mut command = Command::default();
        let expected = |of_whom: &[&str], fields: &[&str], payloads: &[&[u8]]| {
            let fixed = ["EVALSHA", "5c12", "4", "s", "{s}:senders", "{s}:claims", "{s}:seen"];
            let texts = [&fixed[..], of_whom, fields].concat();
            let texts = texts.iter().map(|text| text.as_bytes());
            texts.chain(payloads.iter().copied()).map(<[u8]>::to_vec).collect::<Vec<_>>()
        };

        let acked = batch(&origin(Some((sender, 7))), &[b"not this", b"", &long]);
        let mut found = arguments(&mut command, &acked, 1..3);
        let time = String::from_utf8(found.remove(16)).unwrap();
        assert!(humantime::parse_rfc3339(&time).is_ok(), "{time}");
        let sum = format!(" {:016x}", checksum(&long));
        let of_sender = [&a, "3", &e, "1000", "22", &sum];
        let fields = ["2", "8", "time", "peer", "unix", "connection", "7", "sender", &a];
        let numbers = b"\xdd\0\0\0\x02\xdb\0\0\0\x019\xdb\0\0\0\x0210";
        assert!(found == expected(&of_sender, &fields, &[numbers, b"", b"", &long]));

        // Into the same room, and shorter.
        let plain = batch(&origin(None), &[b"b\r\n", b"c"]);
        let mut found = arguments(&mut command, &plain, 0..2);
        found.remove(16);
        let of_server = [&e, "3", &e, "1000", "21", ""];
        let fields = ["2", "6", "time", "peer", "unix", "connection", "7"];
        let numbers = b"\xdd\0\0\0\x02\xdb\0\0\0\x011\xdb\0\0\0\x012";
        assert!(found == expected(&of_server, &fields, &[numbers, b"", b"b\r\n", b"c"]));

        // With headers, of which one is empty.
        let git = "hex4+self".parse().unwrap();
        let messages = [(&b"0001"[..], &b""[..]), (b"", b"d")];
        let with_headers = Batch::with_headers(origin(None), git, messages).unwrap();
        let mut found = arguments(&mut command, &with_headers, 0..2);
        found.remove(16);
        let headers = b"\xdd\0\0\0\x02\xdb\0\0\0\x040001\xdb\0\0\0\0";
        assert!(found == expected(&of_server, &fields, &[numbers, headers, b"", b"d"]));

        // The last message of a part.
        let found = arguments(&mut command, &acked, 0..2);
        assert_eq!(found[12], format!(" {:016x}", checksum(b"")).as_bytes());
    }

    #[test]
    fn the_largest_numbers_are_packed_as_they_are() {
        let packed = packed_numbers(u64::MAX, 1);
        assert_eq!(packed, b"\xdd\0\0\0\x01\xdb\0\0\0\x1418446744073709551615");
    }
}
