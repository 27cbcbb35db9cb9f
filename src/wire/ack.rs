//! The hello, and what it asks for: its answers are in [`answer`](super::answer).
//!
//! A client that wants acknowledgements asks for them in its very first bytes. A server never answers
//! unasked: a plain client does not read, and closing a connection while received data is unread resets it,
//! which destroys data still in flight.
//!
//! ```text
//!   hello, in a layout whose field has 4 or 8 bytes (here u32be):
//!
//!  ┌─────────────┬─────────────┬─────────┬────────────┬─────────────────────┐
//!  │ ff ff ff ff │ 00 00 00 19 │ 01      │ 16 bytes   │ 8 bytes, big-endian │
//!  └─────────────┴─────────────┴─────────┴────────────┴─────────────────────┘
//!   all ones: not the layout's  version   sender's id  number of the oldest
//!   a length      prefix of 25                         message it still has
//!
//!   acknowledgement, the payload of an ordinary frame:
//!
//!  ┌─────────────────────┐
//!  │ 8 bytes, big-endian │   how many messages of this sender are committed, in total
//!  └─────────────────────┘
//!
//!   refusal, the payload of an ordinary frame; the server closes after it:
//!
//!  ┌─────────────────────┬──────┬───────────┐
//!  │ 8 bytes, big-endian │ code │ text      │
//!  └─────────────────────┴──────┴───────────┘
//!   as above              1 byte  UTF-8
//!
//!   heartbeat: an empty frame, sent while a commit takes long
//!
//!   welcome, the answer to a hello of version 2, if the server knows the checksum:
//!
//!  ┌─────────────────────┬──────┬─────────────────────┐
//!  │ 8 bytes, big-endian │ 00   │ 8 bytes, big-endian │
//!  └─────────────────────┴──────┴─────────────────────┘
//!   as above              1 byte  checksum of the last committed message
//! ```
//!
//! A waiting client hears something every few seconds: a heartbeat before the welcome, later a heartbeat or
//! the last acknowledgement again.
//!
//! The first acknowledgement is the *welcome*. A client sends nothing between the hello and the welcome;
//! the welcome is the number n of committed messages, and the next frame is message n + 1. The number in
//! the hello is a check: if it is more than one above the server's count, the server has lost, or never
//! had, messages that the client cannot send again, and refuses with [`RefusalCode::Gap`](super::answer::RefusalCode::Gap). For an unknown
//! sender (a restarted server, and a sink that keeps no counts) the server trusts the number in the hello:
//! it counts all earlier messages as committed.
//!
//! A client that resumes the input of an earlier one can check that it is the same input. Its hello has
//! version 2 and otherwise the same bytes. The welcome then carries the checksum of the last committed
//! message's payload, unless there is no such message or the server does not know its checksum. The
//! checksum is 64-bit FNV-1a over the payload's length (8 bytes, little-endian) and its last 1,024 bytes,
//! or the whole payload if it is shorter.
//!
//! This module is pure: no I/O.

use std::fmt;

use crate::wire::layout::{Decoded, Layout};
use crate::wire::sender_id::SenderId;

/// The version of a hello without and with the request for the checksum of the last committed message.
const VERSION: u8 = 1;
const RESUMING: u8 = 2;

/// The most messages that one sender can have sent: one per nanosecond for 146 years. Larger numbers are
/// invalid; with this bound, sums of numbers and counts cannot overflow.
pub(crate) const MOST_MESSAGES: u64 = u64::MAX / 4;

/// The length of a hello's body, in bytes: version, sender, number.
const BODY: usize = 1 + 16 + 8;

/// How many bytes of a payload its checksum covers. Chosen by judgement: each large message is a batch of
/// its own and so has a checksum, and hashing 1 MiB would cost as much as receiving it.
const CHECKED: usize = 1024;

/// The first bytes of a client that wants acknowledgements.
///
/// # Examples
///
/// ```
/// use framelet::wire::{Hello, SenderId};
/// use framelet::Layout;
///
/// let hello = Hello { sender: SenderId::random()?, first: 1 };
/// assert!(Hello::fits(Layout::U32BE));
/// assert_eq!(hello.encode(Layout::U32BE)?.len(), 33);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The sender's id.
    pub sender: SenderId,
    /// The number of the oldest message that the client still has; a sender's very first message is 1. A
    /// server refuses numbers over 2⁶² − 1, which no sender can reach.
    pub first: u64,
}

/// What the first bytes of a connection mean.
///
/// # Examples
///
/// ```
/// use framelet::wire::{FirstBytes, Hello};
/// use framelet::Layout;
///
/// let decode = |bytes| Hello::decode(Layout::U32BE, bytes);
/// assert_eq!(decode(b"\0\0\0\x02hi"), FirstBytes::Plain);
/// assert_eq!(decode(b"\xff\xff"), FirstBytes::Incomplete { need: 8 });
/// assert_eq!(decode(b"\xff\xff\xff\xff\0\0\0\x01\x09"), FirstBytes::Unsupported { version: 9 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FirstBytes {
    /// Plain frames, or anything else that is not a hello; the layout decides whether they are valid.
    Plain,
    /// More bytes are needed.
    Incomplete {
        /// How many bytes are needed, counted from the start of the connection.
        need: usize,
    },
    /// A hello.
    Hello {
        /// Its contents.
        hello: Hello,
        /// Whether it asks for the checksum of the last committed message.
        resuming: bool,
        /// The length of the hello in bytes; frames follow it.
        len: usize,
    },
    /// A hello of an unknown version.
    Unsupported {
        /// The version it names.
        version: u8,
    },
    /// It begins like a hello, but its length is wrong.
    Malformed,
}

/// A layout in which a hello cannot be told from a frame.
///
/// # Examples
///
/// ```
/// use framelet::wire::{Hello, SenderId, UnsupportedLayout};
/// use framelet::Layout;
///
/// let layout: Layout = "u16be".parse()?;
/// let hello = Hello { sender: SenderId::from_bytes([7; 16]), first: 1 };
/// assert_eq!(hello.encode(layout), Err(UnsupportedLayout { layout }));
/// # Ok::<(), framelet::wire::ParseLayoutError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsupportedLayout {
    /// The layout.
    pub layout: Layout,
}

/// Returns the checksum of a payload. It detects mix-ups, not attacks.
pub(crate) fn checksum(payload: &[u8]) -> u64 {
    let end = &payload[payload.len().saturating_sub(CHECKED)..];
    let length = (payload.len() as u64).to_le_bytes();
    let add = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    length.iter().chain(end).fold(0xcbf2_9ce4_8422_2325, add)
}

/// Returns the width of the layout's field if a hello can be encoded in it: the field must be so wide that
/// all ones cannot be the length of a message.
fn hello_width(layout: Layout) -> Option<usize> {
    layout.width().filter(|width| matches!(width, 4 | 8))
}

impl Hello {
    /// Returns whether a hello can be encoded in this layout: it is a length of 4 or 8 bytes and the payload.
    pub fn fits(layout: Layout) -> bool {
        hello_width(layout).is_some()
    }

    /// Encodes it as the first bytes of a connection.
    ///
    /// # Errors
    ///
    /// [`UnsupportedLayout`] if the layout has no room for a hello.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::wire::{FirstBytes, Hello, SenderId};
    /// use framelet::Layout;
    ///
    /// let hello = Hello { sender: SenderId::from_bytes([7; 16]), first: 1 };
    /// let bytes = hello.encode(Layout::U32BE)?;
    /// assert_eq!(bytes[..9], [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 25, 1]);
    /// let opening = FirstBytes::Hello { hello, resuming: false, len: 33 };
    /// assert_eq!(Hello::decode(Layout::U32BE, &bytes), opening);
    /// # Ok::<(), framelet::wire::UnsupportedLayout>(())
    /// ```
    pub fn encode(&self, layout: Layout) -> Result<Vec<u8>, UnsupportedLayout> {
        self.encode_version(layout, VERSION)
    }

    /// Does the same, and asks for the checksum of the last committed message
    /// ([`Answer::Welcome`](super::answer::Answer::Welcome)).
    ///
    /// # Errors
    ///
    /// [`UnsupportedLayout`] if the layout has no room for a hello.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::wire::{FirstBytes, Hello, SenderId};
    /// use framelet::Layout;
    ///
    /// let hello = Hello { sender: SenderId::from_bytes([7; 16]), first: 1 };
    /// let bytes = hello.encode_resuming(Layout::U32BE)?;
    /// let opening = FirstBytes::Hello { hello, resuming: true, len: 33 };
    /// assert_eq!(Hello::decode(Layout::U32BE, &bytes), opening);
    /// # Ok::<(), framelet::wire::UnsupportedLayout>(())
    /// ```
    pub fn encode_resuming(&self, layout: Layout) -> Result<Vec<u8>, UnsupportedLayout> {
        self.encode_version(layout, RESUMING)
    }

    fn encode_version(&self, layout: Layout, version: u8) -> Result<Vec<u8>, UnsupportedLayout> {
        let unfit = UnsupportedLayout { layout };
        let width = hello_width(layout).ok_or(unfit)?;
        let length = layout.encode(BODY).map_err(|_| unfit)?;
        let mut bytes = vec![0xff; width];
        bytes.extend_from_slice(&length);
        bytes.push(version);
        bytes.extend_from_slice(self.sender.as_bytes());
        bytes.extend_from_slice(&self.first.to_be_bytes());
        Ok(bytes)
    }

    /// Classifies the first bytes of a connection. `bytes` may contain more than a hello, or too little to
    /// tell.
    pub fn decode(layout: Layout, bytes: &[u8]) -> FirstBytes {
        let Some(width) = hello_width(layout) else { return FirstBytes::Plain };
        if bytes.iter().take(width).any(|&byte| byte != 0xff) {
            return FirstBytes::Plain;
        }
        let Some(length) = bytes.get(width..2 * width) else {
            return FirstBytes::Incomplete { need: 2 * width };
        };
        let Ok(Decoded::Prefix { payload: length, .. }) = layout.decode(length) else {
            return FirstBytes::Malformed;
        };
        if length == 0 {
            return FirstBytes::Malformed;
        }
        // Read before the length is checked: other versions may have other lengths.
        let Some(&version) = bytes.get(2 * width) else {
            return FirstBytes::Incomplete { need: 2 * width + 1 };
        };
        if !matches!(version, VERSION | RESUMING) {
            return FirstBytes::Unsupported { version };
        }
        if length != BODY as u64 {
            return FirstBytes::Malformed;
        }
        let len = 2 * width + BODY;
        let body = bytes.get(2 * width + 1..len);
        let Some((&sender, first)) = body.and_then(|body| body.split_first_chunk()) else {
            return FirstBytes::Incomplete { need: len };
        };
        let Some((&first, _)) = first.split_first_chunk() else {
            return FirstBytes::Incomplete { need: len };
        };
        let sender = SenderId::from_bytes(sender);
        let hello = Hello { sender, first: u64::from_be_bytes(first) };
        FirstBytes::Hello { hello, resuming: version == RESUMING, len }
    }
}

impl fmt::Display for UnsupportedLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "acknowledgements need a layout without headers and with a length of 4 or 8 bytes: \
             use {} instead of {}",
            self.layout.nearest_wide(),
            self.layout
        )
    }
}

impl std::error::Error for UnsupportedLayout {}

#[cfg(test)]
mod tests {
    use super::*;

    fn random_hello(random: &mut fastrand::Rng) -> Hello {
        let sender = SenderId::from_bytes(std::array::from_fn(|_| random.u8(..)));
        Hello { sender, first: random.u64(..) }
    }

    #[test]
    fn a_hello_survives_the_wire_and_every_truncation_of_it_is_incomplete() {
        let mut random = fastrand::Rng::with_seed(1);
        let fit: Vec<Layout> = Layout::binary().filter(|layout| Hello::fits(*layout)).collect();
        let names: Vec<String> = fit.iter().map(Layout::to_string).collect();
        assert_eq!(
            names.join(" "),
            "u32be u32le u64be u64le u32be+self u32le+self u64be+self u64le+self"
        );
        for (layout, _) in fit.into_iter().flat_map(|layout| (0..200).map(move |n| (layout, n))) {
            let hello = random_hello(&mut random);
            let mut bytes = hello.encode(layout).unwrap();
            let len = bytes.len();
            for end in 0..len {
                match Hello::decode(layout, &bytes[..end]) {
                    FirstBytes::Incomplete { need } => assert!(need > end && need <= len),
                    other => panic!("{layout}, {end} of {len} bytes: {other:?}"),
                }
            }
            bytes.extend_from_slice(b"and what follows");
            assert_eq!(
                Hello::decode(layout, &bytes),
                FirstBytes::Hello { hello, resuming: false, len }
            );
            // With the question for a checksum, nothing but the version is another one.
            let resuming = hello.encode_resuming(layout).unwrap();
            let version = 2 * layout.width().unwrap();
            assert_eq!((bytes[version], resuming[version]), (1, 2));
            bytes[version] = 2;
            assert_eq!(resuming, bytes[..len]);
            assert_eq!(
                Hello::decode(layout, &bytes),
                FirstBytes::Hello { hello, resuming: true, len }
            );
        }
    }

    #[test]
    fn no_frame_is_taken_for_a_hello() {
        for layout in Layout::binary() {
            for payload in [0, 1, 255, 65_535, layout.max_payload()] {
                let Ok(prefix) = layout.encode(payload) else { continue };
                for end in layout.width().unwrap_or(1)..=prefix.len() {
                    assert_eq!(
                        Hello::decode(layout, &prefix[..end]),
                        FirstBytes::Plain,
                        "{layout}"
                    );
                }
            }
            if !Hello::fits(layout) {
                let hello = Hello { sender: SenderId::from_bytes([0; 16]), first: 1 };
                let error = hello.encode(layout).unwrap_err().to_string();
                assert!(error.contains("4 or 8 bytes"), "{error}");
                assert_eq!(Hello::decode(layout, &[0xff; 64]), FirstBytes::Plain);
            }
        }
    }

    #[test]
    fn a_layout_without_acknowledgements_is_compared_with_the_nearest_that_has_them() {
        for (layout, nearest) in [
            ("h1:u32be", "u32be"),
            ("h1:u32le:h2", "u32le"),
            ("h1:u32be+self", "u32be+self"),
            ("h4:u32le+all", "u32le+self"),
            ("x0000:u64le", "u64le"),
            ("u16be", "u32be"),
            ("u24le+self", "u32le+self"),
            ("u32le+7", "u32le"),
            ("varint", "u32be"),
            ("lsp", "u32be"),
            ("dec4", "u32be"),
        ] {
            let layout = layout.parse().unwrap();
            assert!(!Hello::fits(layout) && Hello::fits(nearest.parse().unwrap()), "{layout}");
            let error = UnsupportedLayout { layout }.to_string();
            assert!(error.ends_with(&format!(": use {nearest} instead of {layout}")), "{error}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic_or_ask_for_ever() {
        let mut random = fastrand::Rng::with_seed(2);
        for layout in Layout::binary() {
            for _ in 0..2000 {
                let mut bytes = vec![0xff; layout.width().unwrap_or(0)];
                bytes.extend((0..64).map(|_| random.u8(..)));
                if random.bool() {
                    // A length that could be one, and any version.
                    let body = random.usize(0..40).min(layout.max_payload());
                    let width = layout.width().unwrap_or(0);
                    let prefix = layout.encode(body).unwrap();
                    bytes[width..width + prefix.len()].copy_from_slice(&prefix);
                }
                let opening = Hello::decode(layout, &bytes);
                assert!(
                    !matches!(opening, FirstBytes::Incomplete { .. }),
                    "{layout}: {bytes:02x?}"
                );
            }
        }
    }

    #[test]
    fn another_version_is_told_from_a_malformed_hello() {
        let hello = Hello { sender: SenderId::from_bytes([0; 16]), first: 1 };
        let mut bytes = hello.encode(Layout::U32BE).unwrap();
        bytes[8] = 3;
        bytes[7] = 90;
        assert_eq!(Hello::decode(Layout::U32BE, &bytes), FirstBytes::Unsupported { version: 3 });
        for version in [1, 2] {
            bytes[8] = version;
            assert_eq!(Hello::decode(Layout::U32BE, &bytes), FirstBytes::Malformed);
        }
        bytes[7] = 0;
        assert_eq!(Hello::decode(Layout::U32BE, &bytes), FirstBytes::Malformed);
    }

    #[test]
    fn a_checksum_tells_payloads_apart_and_does_not_change_between_versions() {
        for (payload, expected) in [
            (&b""[..], 0xa8c7_f832_281a_39c5),
            (b"21.5", 0x2b74_19f9_3545_2f45),
            (b"message 1", 0xbfa0_7b77_0655_2bc0),
        ] {
            assert_eq!(checksum(payload), expected, "{payload:?}");
        }
        // Only the end of a long one costs time.
        let long = vec![b'x'; 5000];
        for (index, is_other) in [(0, false), (3975, false), (3976, true), (4999, true)] {
            let mut other = long.clone();
            other[index] = b'y';
            assert_eq!(checksum(&other) != checksum(&long), is_other, "byte {index}");
        }
        assert_ne!(checksum(&long[1..]), checksum(&long));
        let mut random = fastrand::Rng::with_seed(3);
        for len in 0..40 {
            let payload: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
            let sum = checksum(&payload);
            assert_ne!(checksum(&[&payload[..], &[0]].concat()), sum, "{len} and a zero");
            for bit in 0..8 * len {
                let mut other = payload.clone();
                other[bit / 8] ^= 1 << (bit % 8);
                assert_ne!(checksum(&other), sum, "bit {bit} of {len} bytes");
            }
        }
    }
}
