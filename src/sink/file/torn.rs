//! Finds where the whole records of a file end, and moves the rest away.
//!
//! A crash can leave part of a record at the end of a file, and a crash of the machine can leave zero bytes
//! instead of data that was not synced. Both are moved aside. Anything else was written by another program:
//! then the file is refused and left unchanged.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, HEXLOWER};

use super::note::{MAGIC, beside};
use super::sync::Syncs;
use crate::format::json::message_of_json;
use crate::format::names::OutputFormat;
use crate::wire::escape::Escaped;
use crate::wire::io_error::Plain;
use crate::wire::layout::{Decoded, Layout, MAX_PAYLOAD};

/// How much is read at once.
pub(super) const CHUNK: usize = 64 * 1024;

/// The first bytes of a SQLite database.
const SQLITE: &[u8] = b"SQLite format 3\0";

/// How much of the moved bytes is shown.
const SHOWN: usize = 60;

/// Without a note, at least this many zero bytes count as the result of a power failure: fewer may be empty
/// messages at the end of a file of frames.
const ZEROS: u64 = 64;

/// Where the whole records of a file end, and the partial record after them. After that there are only zero
/// bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    whole: u64,
    torn: u64,
}

/// Returns where the whole records of a file of `len` bytes end. The `floor` comes from a note: nothing
/// before it can be torn. Without a note, the bytes themselves must show that the file is in the format.
///
/// # Errors
///
/// It is not a file of the format, or what follows its last record is not part of one.
pub(super) fn end_of_whole(
    file: &File,
    format: OutputFormat,
    floor: Option<u64>,
    len: u64,
    path: &Path,
) -> io::Result<u64> {
    let head = read(file, 0, len.min(CHUNK as u64))?;
    if head.starts_with(SQLITE) {
        return Err(io::Error::other(
            "it is a SQLite database; write sqlite: before the path, or use another file",
        ));
    }
    if head.starts_with(MAGIC.as_bytes()) {
        return Err(io::Error::other("it is framelet's note on another file; give that one"));
    }
    match floor {
        Some(floor) if is_boundary(file, format, floor)? => {
            check_end(file, format, find_ends(file, format, floor, len, 1)?, len)
        }
        _ => end_of_unnoted(file, format, &head, len, path),
    }
}

/// Returns whether a record can end there.
fn is_boundary(file: &File, format: OutputFormat, at: u64) -> io::Result<bool> {
    let last = match format {
        OutputFormat::Frames(_) | OutputFormat::Raw | OutputFormat::None => return Ok(true),
        OutputFormat::Nul => 0,
        _ => b'\n',
    };
    Ok(at == 0 || read(file, at - 1, at)? == [last])
}

fn end_of_unnoted(
    file: &File,
    format: OutputFormat,
    head: &[u8],
    len: u64,
    path: &Path,
) -> io::Result<u64> {
    let tail_from = len.saturating_sub(CHUNK as u64);
    let tail = read(file, tail_from, len)?;
    let note = beside(path, ".framelet").display().to_string();
    match format {
        OutputFormat::Nul | OutputFormat::Raw | OutputFormat::Hexdump | OutputFormat::None => {
            return Err(io::Error::other(format!(
                "it is not empty, and no {note} says that framelet wrote it as {format}; give another \
                 file"
            )));
        }
        OutputFormat::Lines | OutputFormat::Text => {
            let nul = memchr::memchr(0, head)
                .map(|at| at as u64)
                .or_else(|| Some(tail_from + memchr::memchr(0, &tail)? as u64));
            if let Some(at) = nul {
                return Err(not_in(format, format_args!("byte {at} is zero")));
            }
            let (end, what) = match format {
                OutputFormat::Lines => (&b"\n"[..], "a line feed"),
                _ => (&b"\n\n"[..], "an empty line"),
            };
            if !tail.ends_with(end) && tail != b"\n" {
                return Err(not_ended(what, &note));
            }
            return Ok(len);
        }
        OutputFormat::Json | OutputFormat::Hex | OutputFormat::Base64 | OutputFormat::Frames(_) => {
        }
    }
    let ends = find_ends(file, format, 0, len, ZEROS)?;
    if !matches!(format, OutputFormat::Frames(_)) {
        check_lines(format, head, (&tail, tail_from), ends.whole)?;
    }
    let end = check_end(file, format, ends, len)?;
    if end < ends.torn && matches!(format, OutputFormat::Hex | OutputFormat::Base64) {
        // A list of words or numbers can look like this, too.
        return Err(not_ended("a line feed", &note));
    }
    // A torn record is only plausible if at least as many bytes before it are whole and not empty.
    let whole = &head[..up_to(end, 0, head)];
    if end < len && (end < ends.torn - end || whole.iter().all(|&byte| byte == 0)) {
        let what = format!("only {end} of its {len} bytes could be whole messages");
        return Err(not_in(format, format_args!("{what}")));
    }
    if end < len && matches!(format, OutputFormat::Frames(layout) if layout != Layout::U32BE) {
        // Short lengths are found in anything.
        return Err(not_ended("a whole frame", &note));
    }
    Ok(end)
}

/// Returns how many of the `bytes`, which start at an offset of the file, lie before `end`.
fn up_to(end: u64, from: u64, bytes: &[u8]) -> usize {
    let before = usize::try_from(end.saturating_sub(from)).unwrap_or(usize::MAX);
    bytes.len().min(before)
}

/// Checks the whole lines, as far as they are in the `head` and the `tail` of the file.
fn check_lines(
    format: OutputFormat,
    head: &[u8],
    (tail, tail_from): (&[u8], u64),
    whole: u64,
) -> io::Result<()> {
    let check = |line: &[u8]| {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let decoded = match format {
            OutputFormat::Hex => HEXLOWER.decode(line).map_err(|error| error.to_string()),
            OutputFormat::Base64 => BASE64.decode(line).map_err(|error| error.to_string()),
            _ => message_of_json(line).map(|(_, payload)| payload.into_owned()),
        };
        decoded.map(drop).map_err(|what| {
            let line = Escaped(&line[..line.len().min(SHOWN)]);
            not_in(format, format_args!("a line begins with \"{line}\": {what}"))
        })
    };
    let lines = head[..up_to(whole, 0, head)].split_inclusive(|&byte| byte == b'\n');
    // The last line may continue after the head, and the first one may have begun before the tail.
    lines.filter(|line| line.ends_with(b"\n")).try_for_each(check)?;
    if tail_from > 0 {
        let lines = tail[..up_to(whole, tail_from, tail)].split_inclusive(|&byte| byte == b'\n');
        lines.skip(1).try_for_each(check)?;
    }
    let first = &head[..head.len().min(SHOWN)];
    let first = first.split(|&byte| byte == b'\n').next().unwrap_or_default();
    if !could_be(format, first) {
        return Err(not_in(format, format_args!("it begins with \"{}\"", Escaped(first))));
    }
    Ok(())
}

/// Checks that the bytes after the whole records are part of one.
fn check_end(file: &File, format: OutputFormat, ends: Ends, len: u64) -> io::Result<u64> {
    let Ends { whole, torn } = ends;
    let torn = read(file, whole, torn.min(whole + SHOWN as u64))?;
    let rest = len - whole;
    if !torn.is_empty() && !could_be(format, &torn) {
        let what = format!("its last {rest} bytes begin with \"{}\"", Escaped(&torn));
        return Err(not_in(format, format_args!("{what}")));
    }
    if rest > longest_record(format) {
        return Err(not_in(
            format,
            format_args!("no message can be as long as its last {rest} bytes"),
        ));
    }
    Ok(whole)
}

fn not_ended(what: &str, note: &str) -> io::Error {
    io::Error::other(format!(
        "it does not end with {what}, and no {note} says that framelet wrote it; end it with {what}, or \
         give another file"
    ))
}

fn not_in(format: OutputFormat, why: fmt::Arguments<'_>) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "it is not a file of {format}: {why}; give another file, or the format that it has"
        ),
    )
}

/// Returns whether a record in the format can begin with these bytes.
fn could_be(format: OutputFormat, torn: &[u8]) -> bool {
    match format {
        OutputFormat::Hex => torn.iter().all(u8::is_ascii_hexdigit),
        OutputFormat::Base64 => {
            torn.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte))
        }
        OutputFormat::Json => b"{\"".starts_with(torn) || torn.starts_with(b"{\""),
        // Four letters would be the length of a message of half a gigabyte or more.
        OutputFormat::Frames(Layout::U32BE) => !torn.first_chunk::<4>().is_some_and(|prefix| {
            prefix.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
        }),
        _ => true,
    }
}

/// Returns the length of the longest record, in bytes.
fn longest_record(format: OutputFormat) -> u64 {
    let payload = MAX_PAYLOAD as u64;
    match format {
        OutputFormat::Hex => 2 * payload + 1,
        // A control character takes six, and the object has other fields.
        OutputFormat::Json => 6 * payload + 1024,
        OutputFormat::Base64 => 4 * payload.div_ceil(3) + 1,
        // The longest prefix is that of header lines.
        OutputFormat::Frames(_) => payload + 4096,
        _ => payload + 4,
    }
}

/// Finds the end of the last whole record, searching down to `floor`. The last `zeros` bytes are no
/// records.
fn find_ends(
    file: &File,
    format: OutputFormat,
    floor: u64,
    len: u64,
    zeros: u64,
) -> io::Result<Ends> {
    let filled = search_back(file, floor, len, |part| part.iter().rposition(|&byte| byte != 0))?;
    let filled = filled.map_or(floor, |last| last + 1);
    let torn = if len - filled < zeros { len } else { filled };
    let behind_last = |terminator| {
        let last = search_back(file, floor, torn, |part| memchr::memrchr(terminator, part))?;
        io::Result::Ok(last.map_or(floor, |last| last + 1))
    };
    let whole = match format {
        OutputFormat::Lines | OutputFormat::Hex | OutputFormat::Base64 | OutputFormat::Json => {
            behind_last(b'\n')?
        }
        OutputFormat::Text => end_of_text(file, floor, torn)?,
        // The first of the zeros ends a message.
        OutputFormat::Nul if torn < len && torn > floor => torn + 1,
        OutputFormat::Nul => behind_last(0)?,
        OutputFormat::Frames(layout) => end_of_frames(file, layout, floor, torn, len)?,
        OutputFormat::Raw | OutputFormat::Hexdump | OutputFormat::None => torn,
    };
    Ok(Ends { whole, torn: torn.max(whole) })
}

/// Returns the offset of the last byte that `find` finds between `floor` and `end`.
fn search_back(
    file: &File,
    floor: u64,
    end: u64,
    find: impl Fn(&[u8]) -> Option<usize>,
) -> io::Result<Option<u64>> {
    let mut to = end;
    while to > floor {
        let from = floor.max(to.saturating_sub(CHUNK as u64));
        if let Some(found) = find(&read(file, from, to)?) {
            return Ok(Some(from + found as u64));
        }
        to = from;
    }
    Ok(None)
}

/// Returns the offset after the last empty line.
fn end_of_text(file: &File, floor: u64, end: u64) -> io::Result<u64> {
    let mut to = end;
    while to > floor {
        // Includes one byte of the previous part, which may be the end of a line.
        let from = floor.max(to.saturating_sub(CHUNK as u64));
        let part = read(file, from, to)?;
        if let Some(last) = memchr::memmem::rfind(&part, b"\n\n") {
            return Ok(from + last as u64 + 2);
        }
        if from == floor {
            // An empty message is an empty line alone.
            return Ok(floor + u64::from(part.first() == Some(&b'\n')));
        }
        to = from + 1;
    }
    Ok(floor)
}

/// Returns the offset after the last whole frame. Frames that begin after `filled` consist of zeros and do
/// not count.
fn end_of_frames(
    file: &File,
    layout: Layout,
    floor: u64,
    filled: u64,
    len: u64,
) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(CHUNK, file);
    reader.seek(SeekFrom::Start(floor))?;
    let (mut end, mut bytes) = (floor, Vec::new());
    while end < filled {
        bytes.clear();
        match skip_frame(&mut reader, layout, len - end, &mut bytes)? {
            Frame::Whole(frame) => end += frame,
            Frame::Torn => break,
            // Zeros can have taken the place of its bytes.
            Frame::Invalid { read, .. } if end + read > filled => break,
            Frame::Invalid { what, .. } => {
                let what = format_args!("at byte {end}{what}");
                return Err(not_in(OutputFormat::Frames(layout), what));
            }
        }
    }
    Ok(end)
}

/// What stands at an offset of a file of frames.
enum Frame {
    /// A frame of this many bytes.
    Whole(u64),
    /// The file ends inside the frame.
    Torn,
    /// No frame begins with these bytes.
    Invalid {
        /// How many bytes show that.
        read: u64,
        what: String,
    },
}

/// Moves past the frame at the reader's position, unless it has more than the `room` bytes that follow. Uses
/// `bytes`, which is empty, for its prefix and trailer.
fn skip_frame(
    reader: &mut BufReader<&File>,
    layout: Layout,
    room: u64,
    bytes: &mut Vec<u8>,
) -> io::Result<Frame> {
    let payload = loop {
        match layout.decode(bytes) {
            Ok(Decoded::Incomplete { need }) if need as u64 > room => return Ok(Frame::Torn),
            Ok(Decoded::Incomplete { need }) => {
                let from = bytes.len();
                let more = from + layout.rest_of_prefix(bytes, reader.fill_buf()?);
                let need = usize::try_from(room).map_or(more, |room| more.min(room)).max(need);
                bytes.resize(need, 0);
                reader.read_exact(&mut bytes[from..])?;
            }
            Ok(Decoded::Prefix { payload, .. }) => break payload,
            Err(malformed) => {
                let (read, what) = (bytes.len() as u64, format!(": {malformed}"));
                return Ok(Frame::Invalid { read, what });
            }
        }
    };
    let (prefix, trailer) = (bytes.len(), layout.trailer_len());
    if payload > MAX_PAYLOAD as u64 {
        let what = format!(" there would be one of {payload} bytes");
        return Ok(Frame::Invalid { read: prefix as u64, what });
    }
    let frame = (prefix + trailer) as u64 + payload;
    if frame > room {
        return Ok(Frame::Torn);
    }
    // Cannot fail: the payload is at most MAX_PAYLOAD.
    reader.seek_relative(i64::try_from(payload).unwrap_or(i64::MAX))?;
    bytes.resize(trailer, 0);
    reader.read_exact(bytes)?;
    let at = prefix + usize::try_from(payload).unwrap_or(MAX_PAYLOAD);
    Ok(match layout.check_trailer(bytes, at) {
        Ok(()) => Frame::Whole(frame),
        Err(malformed) => Frame::Invalid { read: frame, what: format!(": {malformed}") },
    })
}

fn read(file: &File, from: u64, to: u64) -> io::Result<Vec<u8>> {
    // Cannot fail: no caller asks for more than a chunk.
    let mut bytes = vec![0; usize::try_from(to - from).unwrap_or(CHUNK)];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

/// Moves the bytes from `end` to `len` into a file of its own beside `path`, and syncs that before cutting
/// them off here. Returns a description.
pub(super) fn move_aside(
    file: &File,
    path: &Path,
    (end, len): (u64, u64),
    mode: u32,
    syncs: Syncs,
) -> io::Result<String> {
    let (aside, mut torn) = create_aside(path, mode)?;
    let mut moved = || {
        let mut from = end;
        while from < len {
            let part = read(file, from, len.min(from + CHUNK as u64))?;
            io::Write::write_all(&mut torn, &part)?;
            from += part.len() as u64;
        }
        (syncs.data)(&torn)?;
        syncs.name_of(path)?;
        let beginning = read(file, end, len.min(end + SHOWN as u64))?;
        file.set_len(end).map(|()| beginning)
    };
    let beginning = moved().map_err(|error| {
        let _ = fs::remove_file(&aside);
        cannot_move(&aside, &error)
    })?;
    let what = match beginning.iter().all(|&byte| byte == 0) {
        true => "zeros, as left by a power failure".to_owned(),
        false => format!(
            "part of a message that was not committed, beginning with \"{}\"",
            Escaped(&beginning)
        ),
    };
    let (bytes, path, aside) = (len - end, path.display(), aside.display());
    Ok(format!("moved the last {bytes} bytes of {path} to {aside}: {what}"))
}

/// Creates the first `PATH.torn-N` that does not exist.
fn create_aside(path: &Path, mode: u32) -> io::Result<(PathBuf, File)> {
    let mut number = 1_u32;
    loop {
        let aside = beside(path, &format!(".torn-{number}"));
        let mut options = OpenOptions::new();
        match options.write(true).create_new(true).mode(mode & 0o666).open(&aside) {
            Ok(file) => return Ok((aside, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(cannot_move(&aside, &error)),
        }
    }
}

fn cannot_move(aside: &Path, error: &io::Error) -> io::Error {
    io::Error::other(format!(
        "part of a message at its end cannot be moved to {}: {}",
        aside.display(),
        Plain(error)
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_moved_aside_is_said_and_is_no_more_public_than_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("messages");
        let name = path.display();
        let shown = "x".repeat(SHOWN);
        for (number, torn, what) in [
            (1, &b"tw"[..], "beginning with \"tw\"".to_owned()),
            (2, &[b'x'; 100], format!("beginning with \"{shown}\"")),
            (3, &[0; 100], "zeros, as left by a power failure".to_owned()),
        ] {
            fs::write(&path, [b"one\n", torn].concat()).unwrap();
            let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
            let ends = (4, 4 + torn.len() as u64);
            let said = move_aside(&file, &path, ends, 0o100_700, Syncs::SYSTEM).unwrap();
            let aside = beside(&path, &format!(".torn-{number}"));
            let moved =
                format!("moved the last {} bytes of {name} to {}: ", torn.len(), aside.display());
            assert!(said.starts_with(&moved) && said.ends_with(&what), "{said}");
            assert_eq!(
                (fs::read(&path).unwrap(), fs::read(&aside).unwrap()),
                (b"one\n".into(), torn.into())
            );
            assert_eq!(fs::metadata(&aside).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let error = create_aside(&directory.path().join("nowhere/messages"), 0o600).unwrap_err();
        assert!(error.to_string().contains("cannot be moved to"), "{error}");
    }

    #[test]
    fn the_longest_message_is_still_one_that_a_crash_can_leave() {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, &[b'a'; SHOWN]).unwrap();
        let longest = MAX_PAYLOAD as u64;
        for (format, record) in [
            (OutputFormat::Lines, longest + 4),
            (OutputFormat::Hex, longest + longest + 1),
            (OutputFormat::Base64, longest.div_ceil(3) * 4 + 1),
        ] {
            // Nothing is written there, so it takes no room.
            for (rest, is_one) in [(record, true), (record + 1, false)] {
                file.set_len(rest).unwrap();
                let ends = Ends { whole: 0, torn: rest };
                assert_eq!(check_end(&file, format, ends, rest).is_ok(), is_one, "{format}");
            }
        }
        assert_eq!(longest_record(OutputFormat::Json), 6 * longest + 1024);
    }
}
