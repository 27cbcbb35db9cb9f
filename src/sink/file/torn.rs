//! Where the whole records of a file end, and what becomes of the rest.
//!
//! A crash can leave a part of one record at the end of a file, and a failure of the machine zero bytes in
//! place of what was not synced. Both are moved aside. Whatever else is there was written by somebody else: then
//! the file is refused, and stays as it is.

use std::borrow::Cow;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, HEXLOWER};

use super::note::{MAGIC, beside};
use super::sync::Syncs;
use crate::format::json::payload_of_json;
use crate::format::names::OutputFormat;
use crate::wire::escape::Escaped;
use crate::wire::io_error::Plain;
use crate::wire::layout::MAX_PAYLOAD;

/// How much is read at once.
pub(super) const CHUNK: usize = 64 * 1024;

/// How a SQLite database begins.
const SQLITE: &[u8] = b"SQLite format 3\0";

/// How much of what is moved aside is shown.
const SHOWN: usize = 60;

/// From so many zero bytes on, they are taken for what a power failure leaves, where nothing but a note could
/// tell: fewer can be empty messages at the end of a file of frames.
const ZEROS: u64 = 64;

/// Where the whole records of a file end, and the part of a record that follows. Behind that there are
/// zero bytes only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    whole: u64,
    torn: u64,
}

/// Returns where the whole records of a file of `len` bytes end. The `floor` is what a note says about it: up
/// to there nothing can be torn. Without a note, the bytes of the file have to say that it is in the format.
///
/// # Errors
///
/// It is not a file of the format, or ends with something that is no part of a record.
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
            "it is a SQLite database; write sqlite: in front of the path, or give another file",
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
        OutputFormat::Frames | OutputFormat::Raw | OutputFormat::None => return Ok(true),
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
        OutputFormat::Nul | OutputFormat::Raw | OutputFormat::None => {
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
        OutputFormat::Json | OutputFormat::Hex | OutputFormat::Base64 | OutputFormat::Frames => {}
    }
    let ends = find_ends(file, format, 0, len, ZEROS)?;
    if format != OutputFormat::Frames {
        check_lines(format, head, (&tail, tail_from), ends.whole)?;
    }
    let end = check_end(file, format, ends, len)?;
    if end < ends.torn && matches!(format, OutputFormat::Hex | OutputFormat::Base64) {
        // A list of words or numbers can look like this, too.
        return Err(not_ended("a line feed", &note));
    }
    // Something torn is only believed in where at least as much is whole, and not empty.
    let whole = &head[..up_to(end, 0, head)];
    if end < len && (end < ends.torn - end || whole.iter().all(|&byte| byte == 0)) {
        let what = format!("only {end} of its {len} bytes could be whole messages");
        return Err(not_in(format, format_args!("{what}")));
    }
    Ok(end)
}

/// Returns how many of the `bytes`, which are those of a file from an offset on, come before the `end`.
fn up_to(end: u64, from: u64, bytes: &[u8]) -> usize {
    let before = usize::try_from(end.saturating_sub(from)).unwrap_or(usize::MAX);
    bytes.len().min(before)
}

/// Checks the lines up to the end of the `whole` ones, as far as they are in the `head` and in the `tail`
/// of the file.
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
            _ => payload_of_json(line).map(Cow::into_owned),
        };
        decoded.map(drop).map_err(|what| {
            let line = Escaped(&line[..line.len().min(SHOWN)]);
            not_in(format, format_args!("a line begins with \"{line}\": {what}"))
        })
    };
    let lines = head[..up_to(whole, 0, head)].split_inclusive(|&byte| byte == b'\n');
    // The last one may go on behind the head, and the first one may have begun in front of the tail.
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

/// Checks that what follows the whole records is a part of one.
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
        OutputFormat::Frames => !torn.first_chunk::<4>().is_some_and(|prefix| {
            prefix.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
        }),
        _ => true,
    }
}

/// Returns how many bytes the record of the longest message takes.
fn longest_record(format: OutputFormat) -> u64 {
    let payload = MAX_PAYLOAD as u64;
    match format {
        OutputFormat::Hex => 2 * payload + 1,
        // A control character takes six, and something is said about the message.
        OutputFormat::Json => 6 * payload + 1024,
        OutputFormat::Base64 => 4 * payload.div_ceil(3) + 1,
        _ => payload + 4,
    }
}

/// Finds the last whole record, from `floor` on. So many `zeros` at the end are none.
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
        OutputFormat::Frames => end_of_frames(file, floor, torn, len)?,
        OutputFormat::Raw | OutputFormat::None => torn,
    };
    Ok(Ends { whole, torn: torn.max(whole) })
}

/// Returns the offset of the last byte that `find` finds from `floor` to `end`.
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

/// Returns the offset behind the last empty line.
fn end_of_text(file: &File, floor: u64, end: u64) -> io::Result<u64> {
    let mut to = end;
    while to > floor {
        // With one byte of the part before, in which the end of a line can be.
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

/// Returns the offset behind the last whole frame; those that begin behind `filled`, and so are nothing but
/// zeros, do not count.
fn end_of_frames(file: &File, floor: u64, filled: u64, len: u64) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(CHUNK, file);
    reader.seek(SeekFrom::Start(floor))?;
    let (mut end, mut prefix) = (floor, [0; 4]);
    while end < filled && len - end >= 4 {
        reader.read_exact(&mut prefix)?;
        let payload = u32::from_be_bytes(prefix);
        if u64::from(payload) > MAX_PAYLOAD as u64 {
            let what = format!("at byte {end} there would be one of {payload} bytes");
            return Err(not_in(OutputFormat::Frames, format_args!("{what}")));
        }
        let next = end + 4 + u64::from(payload);
        if next > len {
            break;
        }
        reader.seek_relative(i64::from(payload))?;
        end = next;
    }
    Ok(end)
}

fn read(file: &File, from: u64, to: u64) -> io::Result<Vec<u8>> {
    // Cannot fail: nobody asks for more than a chunk.
    let mut bytes = vec![0; usize::try_from(to - from).unwrap_or(CHUNK)];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

/// Moves what is from `end` to `len` into a file of its own, beside the one at `path`. It is safe there before
/// it is cut off here. Returns what was done, in words.
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
        true => "zeros, as a failure of the machine leaves them".to_owned(),
        false => format!(
            "part of a message that was not committed, beginning with \"{}\"",
            Escaped(&beginning)
        ),
    };
    let (bytes, path, aside) = (len - end, path.display(), aside.display());
    Ok(format!("moved the last {bytes} bytes of {path} to {aside}: {what}"))
}

/// Creates the first `PATH.torn-N` that is not there.
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
            (3, &[0; 100], "zeros, as a failure of the machine leaves them".to_owned()),
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
