//! Parses the values of options and arguments.

use std::time::Duration;

use data_encoding::HEXLOWER_PERMISSIVE;
use framelet::sink::Keep;
use framelet::wire::{
    EmptyFrames, EncodeError, MAX_PAYLOAD, ParseLayoutError, WithoutPassword,
    append_frame_with_header,
};
use framelet::{Address, Layout};
use parse_size::parse_size;

use super::exit_code::Exit;
use super::failure::Failure;

/// The default address of `serve` and `send`.
pub(crate) const DEFAULT_ADDRESS: &str = "127.0.0.1:4747";

/// Parses an address.
pub(crate) fn address(text: &str) -> Result<Address, Failure> {
    text.parse().map_err(|error| {
        let text = WithoutPassword(text).to_string();
        Failure::new(Exit::Usage, format!("address {text:?}: {error}"))
    })
}

/// Parses a layout.
pub(crate) fn layout(text: &str) -> Result<Layout, String> {
    text.parse().map_err(|error: ParseLayoutError| match error.is_unknown_name() {
        true if text.contains(':') => format!("{error} (framelet layouts --help explains items)"),
        true => format!("{error} (framelet layouts lists them)"),
        false => error.to_string(),
    })
}

/// Parses a size: `1000`, `64k`, `8MiB`.
pub(crate) fn size(text: &str) -> Result<usize, String> {
    parse_size(text).ok().and_then(|size| usize::try_from(size).ok()).ok_or_else(|| {
        "not a size; write bytes, or a number with k M G (thousands) or KiB MiB GiB (1024), as in 8MiB"
            .into()
    })
}

/// Parses a duration: `500ms`, `30s`, `5m`, `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "not a duration; write a number with ms, s, m or h, as in 30s".into())
}

/// The least size that a database can be kept to: it has more than messages in it.
const LEAST_KEPT: u64 = 1 << 20;

/// Parses how much a database keeps: an age, a size or a number of messages.
pub(crate) fn keep(text: &str) -> Result<Keep, String> {
    let keep = if let Ok(messages) = text.parse() {
        Keep::Messages(messages)
    } else if let Ok(age) = humantime::parse_duration(text) {
        Keep::For(age)
    } else if let Ok(size) = parse_size(text) {
        if size < LEAST_KEPT {
            return Err(format!(
                "too little; a database can be kept to 1MiB or more (for as many messages, write {size})"
            ));
        }
        Keep::Bytes(size)
    } else {
        return Err(
            "not an age, a size or a number of messages; write one as in 30d, 10GiB or 1000000"
                .into(),
        );
    };
    match keep {
        Keep::Messages(0) | Keep::For(Duration::ZERO) => Err("cannot be zero".into()),
        keep => Ok(keep),
    }
}

/// A duration, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeout(pub(crate) Option<Duration>);

/// Parses a duration, or `off`.
pub(crate) fn timeout(text: &str) -> Result<Timeout, String> {
    match text {
        "off" => Ok(Timeout(None)),
        _ => match duration(text)? {
            Duration::ZERO => Err("cannot be zero; write off to wait for ever".into()),
            duration => Ok(Timeout(Some(duration))),
        },
    }
}

/// Bytes that are written as hexadecimal digits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

/// Parses bytes: `00535000`.
pub(crate) fn bytes(text: &str) -> Result<Bytes, String> {
    match HEXLOWER_PERMISSIVE.decode(text.as_bytes()) {
        Ok(bytes) if !bytes.is_empty() => Ok(Bytes(bytes)),
        _ => Err("not bytes in hexadecimal; write two digits for each, as in 00535000".into()),
    }
}

/// Parses what an empty frame is.
pub(crate) fn empty(text: &str) -> Result<EmptyFrames, String> {
    match text {
        "message" => Ok(EmptyFrames::Message),
        "skip" => Ok(EmptyFrames::Skip),
        "echo" => Ok(EmptyFrames::Echo),
        _ => Err("write message, skip or echo".into()),
    }
}

/// Checks that there are such frames in the layout, if they are to be no messages.
pub(crate) fn check_empty(empty: EmptyFrames, layout: Layout) -> Result<(), Failure> {
    let why = match layout.header_len() {
        _ if empty == EmptyFrames::Message => return Ok(()),
        Some(1..) => "each has a header",
        _ if layout.encode(0).is_err() => "each has a payload",
        _ => return Ok(()),
    };
    let message = format!("no frame in {layout} is empty: {why} (--empty, --layout)");
    Err(Failure::new(Exit::Usage, message))
}

/// Parses a count.
pub(crate) fn count(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "not a number; write digits only".into())
}

/// The header of messages that come without one; an empty one stands for zeros.
#[derive(Clone, Debug, Default)]
pub(crate) struct DefaultHeader(pub(crate) Vec<u8>);

impl DefaultHeader {
    /// Checks that messages in `layout` can have it.
    pub(crate) fn check(&self, layout: Layout) -> Result<(), Failure> {
        let frame = &mut Vec::new();
        match append_frame_with_header(frame, layout, MAX_PAYLOAD, &self.0, b"") {
            Err(error @ EncodeError::Header { .. }) => {
                Err(Failure::new(Exit::Usage, format!("--header: {error} (--layout)")))
            }
            // Only a longer payload can be framed.
            Err(_) | Ok(()) => Ok(()),
        }
    }
}

/// Parses a header: `51`, `0102ff`.
pub(crate) fn header(text: &str) -> Result<DefaultHeader, String> {
    HEXLOWER_PERMISSIVE
        .decode(text.as_bytes())
        .map(DefaultHeader)
        .map_err(|_| "not hexadecimal; write two digits for each byte, as in 51 or 0102ff".into())
}
