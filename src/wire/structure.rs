//! What shows other protocols that have no fixed first bytes, but a structure.

use crate::wire::text::is_plain_text;

/// The magic number of pcapng is the same in both byte orders, and stands before a length.
pub(super) fn is_pcapng(start: &[u8]) -> bool {
    matches!(
        start,
        [0x0a, 0x0d, 0x0d, 0x0a, _, _, _, _, 0x1a, 0x2b, 0x3c, 0x4d, ..]
            | [0x0a, 0x0d, 0x0d, 0x0a, _, _, _, _, 0x4d, 0x3c, 0x2b, 0x1a, ..]
    )
}

/// A record of TLS: its type, which is returned, the version 3.0 to 3.4, and a length that a record can have.
pub(super) fn tls_record(start: &[u8]) -> Option<u8> {
    let &[kind @ 0x14..=0x17, 3, version @ 0..=4, high, ref rest @ ..] = start else { return None };
    let length = rest.first().map(|&low| usize::from(high) << 8 | usize::from(low));
    let possible = match (length, kind) {
        // The first four bytes could be a length in themselves.
        (None, 0x16) => version > 0 && high <= 0x48,
        (None, _) => version > 0 && high == 0,
        (Some(length), 0x14) => length == 1,
        (Some(length), 0x15) => length == 2 || (16..=64).contains(&length),
        // A handshake that is not encrypted is a hello at first.
        (Some(length), 0x16) => {
            (4..=18432).contains(&length) && rest.get(1).is_none_or(|kind| matches!(kind, 0..=24))
        }
        (Some(length), _) => (1..=18432).contains(&length),
    };
    possible.then_some(kind)
}

/// The hello of SSL 2, with which old clients offer newer versions, too.
pub(super) fn is_ssl2(start: &[u8]) -> bool {
    let [0x80..=0xff, _, kind, rest @ ..] = start else { return false };
    *kind == 1
        && matches!(rest, [3, 0..=3, 0, ciphers, ..] | [0, 2, 0, ciphers, ..] if ciphers % 3 == 0)
}

/// An array of bulk strings, as clients send commands.
pub(super) fn is_redis(start: &[u8]) -> bool {
    let Some(rest) = start.strip_prefix(b"*") else { return false };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (1..=6).contains(&digits) && rest[digits..].starts_with(b"\r\n$")
}

/// A priority in angle brackets, and then the time or the version.
pub(super) fn is_syslog(start: &[u8]) -> bool {
    let Some(rest) = start.strip_prefix(b"<") else { return false };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (1..=3).contains(&digits)
        && matches!(rest[digits..], [b'>', next, ..] if next.is_ascii_alphanumeric())
}

/// An object or a list, and then what can be in it.
pub(super) fn is_json(start: &[u8]) -> bool {
    let trimmed = start.trim_ascii_start();
    let inside = |bytes: &[u8]| bytes.trim_ascii_start().first().copied();
    match trimmed.split_first() {
        Some((b'{', rest)) => matches!(inside(rest), Some(b'"' | b'}')),
        Some((b'[', rest)) => {
            let list = rest.trim_ascii_start().strip_prefix(b"[").unwrap_or(b"0");
            let is_item = matches!(
                inside(list),
                Some(b'{' | b'"' | b'[' | b']' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n')
            );
            matches!(inside(rest), Some(b'{' | b'"' | b'[')) && is_item && rest.len() >= 3
        }
        _ => false,
    }
}

/// Two options are negotiated, or the user has interrupted.
pub(super) fn is_telnet(start: &[u8]) -> bool {
    matches!(
        start,
        [0xff, 0xfb..=0xfe, 0..=0x31, 0xff, 0xfa..=0xfe, ..] | [0xff, 0xf4, 0xff, 0xfd, 6, ..] // The marks of UTF-16 are a refusal, with which nobody begins.
    ) || matches!(start, [0xff, 0xfb..=0xfd, 0..=0x31])
}

/// The methods of authentication, and no more: the client waits for the choice.
pub(super) fn is_socks5(start: &[u8]) -> bool {
    let [5, count @ 1..=8, methods @ ..] = start else { return false };
    methods.len() == usize::from(*count) && methods.iter().all(|method| matches!(method, 0..=2))
}

/// A request to connect, with the user's name up to a zero, and the server's if its address is 0.0.0.x.
pub(super) fn is_socks4(start: &[u8]) -> bool {
    let [4, 1 | 2, _, _, address @ .., 0] = start else { return false };
    let Some((address, names)) = address.split_at_checked(4) else { return false };
    let has_name = matches!(address, [0, 0, 0, 1..=0xff]);
    let mut names = names.split(|&byte| byte == 0);
    names.clone().count() == 1 + usize::from(has_name)
        && names.all(|name| name.iter().all(u8::is_ascii_graphic))
}

/// The version of the protocol and the user, or a request for encryption.
pub(super) fn is_postgres(start: &[u8]) -> bool {
    matches!(start, [0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f | 0x30])
        || matches!(start, [0, 0, _, _, 0, 3, 0 | 2, 0, b'u', b's', b'e', b'r', 0, ..])
}

/// One fragment, with a number: a call, whose version of the protocol is 2, or a reply, which is accepted or denied.
pub(super) fn is_onc_rpc(start: &[u8]) -> bool {
    matches!(
        start,
        [0x80, 0, _, _, _, _, _, _, 0, 0, 0, 0, 0, 0, 0, 2, ..]
            | [0x80, 0, _, _, _, _, _, _, 0, 0, 0, 1, 0, 0, 0, 0 | 1, 0, 0, 0, _, ..]
    )
}

/// The version, the type, the representation of data, and the length of all.
pub(super) fn is_dce_rpc(start: &[u8]) -> bool {
    let [5, 0 | 1, 0..=19, _, 0x10, 0, 0, 0, low, high, ..] = start else { return false };
    start.len() >= usize::from(*high) << 8 | usize::from(*low)
}

/// A header with its checksum.
pub(super) fn is_dnp3(start: &[u8]) -> bool {
    let [5, 0x64, 5..=255, _, _, _, _, _, low, high, ..] = start else { return false };
    (!crc16(0, 0xa6bc, &start[..8])).to_le_bytes() == [*low, *high]
}

/// MODBUS over Serial Line, 2.5.1: the longest frame, in bytes.
const LONGEST_MODBUS: usize = 256;

/// A device, a function, and at the end the checksum. Requests have eight bytes, of which there may be several.
pub(super) fn is_modbus_rtu(start: &[u8]) -> bool {
    let is_frame = |frame: &[u8]| {
        let Some((content, crc)) = frame.split_last_chunk::<2>() else { return false };
        content.len() < LONGEST_MODBUS
            && matches!(content, [0..=247, 1..=6 | 15 | 16 | 0x81..=0x90, _, ..])
            && crc16(0xffff, 0xa001, content).to_le_bytes() == *crc
    };
    is_frame(start) || start.split_at_checked(8).is_some_and(|(first, _)| is_frame(first))
}

/// A checksum of 16 bits whose polynomial is reflected.
fn crc16(start: u16, polynomial: u16, bytes: &[u8]) -> u16 {
    let mut crc = start;
    for &byte in bytes {
        crc ^= u16::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ polynomial } else { crc >> 1 };
        }
    }
    crc
}

/// A type, a length that is a multiple of four, and the magic number.
pub(super) fn is_stun(start: &[u8]) -> bool {
    matches!(start, [0 | 1, _, _, low, 0x21, 0x12, 0xa4, 0x42, ..] if low % 4 == 0)
}

/// The byte order, the version of the protocol, and the lengths of what proves who it is.
pub(super) fn is_x11(start: &[u8]) -> bool {
    let (name, data) = match start {
        [b'l', 0, 11, 0, 0, 0, name, 0, data, 0, 0, 0, ..] => (name, data),
        [b'B', 0, 0, 11, 0, 0, 0, name, 0, data, 0, 0, ..] => (name, data),
        _ => return false,
    };
    let padded = |length: &u8| usize::from(*length).next_multiple_of(4);
    start.len() == 12 + padded(name) + padded(data)
}

/// The signature of version 3, from which on both sides can be told.
pub(super) fn is_zeromq(start: &[u8]) -> bool {
    matches!(start, [0xff, _, _, _, _, _, _, _, 0 | 1, 0x7f, ..])
}

/// The version, and as many bytes as the handshake has: a time, four zeros (or the version of a Flash player, then
/// there is nothing more), and random bytes; a server sends those of the client with its own.
pub(super) fn is_rtmp(start: &[u8]) -> bool {
    matches!(start, [3, _, _, _, _, 0, 0, 0, 0, ..] if start.len() >= 1537)
        || matches!(start, [3, ..] if matches!(start.len(), 1537 | 3073))
}

/// A kind of data in words, after its length.
pub(super) fn is_riff(start: &[u8]) -> bool {
    matches!(start, [b'R', b'I', b'F', b'F', _, _, _, _, b'A'..=b'W', _, _, _, ..])
}

/// The name of the format is in the header of the first file.
pub(super) fn is_tar(start: &[u8]) -> bool {
    start.get(257..262) == Some(b"ustar")
}

/// The size of a window, and then the first frame of it.
pub(super) fn is_lumberjack(start: &[u8]) -> bool {
    matches!(start, [b'1' | b'2', b'W', 0, 0, _, _, b'1' | b'2', b'C' | b'D' | b'J', ..])
}

/// One whole frame of a client, which masks it: text, data, the end, or a ping. The end has a code, if anything.
pub(super) fn is_web_socket(start: &[u8]) -> bool {
    let &[kind @ (0x81 | 0x82 | 0x88..=0x8a), length @ 0x80..=0xff, ref rest @ ..] = start else {
        return false;
    };
    let (length, rest) = match (length & 0x7f, rest) {
        (126, [high, low, rest @ ..]) => (usize::from(*high) << 8 | usize::from(*low), rest),
        (length @ 0..126, rest) => (usize::from(length), rest),
        _ => return false,
    };
    let Some((mask, masked)) = rest.split_first_chunk::<4>() else { return false };
    let clear: Vec<u8> = masked.iter().zip(mask.iter().cycle()).map(|(x, y)| x ^ y).collect();
    let fits = match kind {
        0x81 => is_plain_text(&clear),
        // The codes are from 1000 to 4999.
        0x88 => matches!(clear[..], [] | [3..=0x13, _, ..]),
        _ => true,
    };
    masked.len() == length && fits
}

/// The version and the type of a call, and its name.
pub(super) fn is_thrift(start: &[u8]) -> bool {
    let [0x80, 1, 0, 1..=4, 0, 0, 0, length @ 1..=100, rest @ ..] = start else { return false };
    rest.get(..usize::from(*length)).is_some_and(|name| name.iter().all(u8::is_ascii_graphic))
}

/// The version, and for newer ones a frame; it ends with a full stop.
pub(super) fn is_pickle(start: &[u8]) -> bool {
    matches!(start, [0x80, 4 | 5, 0x95, _, _, _, _, _, 0, 0, 0, .., b'.'])
        || matches!(start, [0x80, 2 | 3, b']' | b'}' | b'(' | b'X' | b'c', b'q', 0, .., b'.'])
}

/// The length of a line, and a service of git.
pub(super) fn is_git(start: &[u8]) -> bool {
    let Some((length, line)) = start.split_at_checked(4) else { return false };
    let services: [&[u8]; 3] = [b"git-upload-pack ", b"git-receive-pack ", b"# service=git-"];
    length.iter().all(u8::is_ascii_hexdigit)
        && services.iter().any(|service| line.starts_with(service))
}

/// A client's first packet: it names the protocol.
pub(super) fn is_mqtt(start: &[u8]) -> bool {
    let [0x10, length, rest @ ..] = start else { return false };
    let rest = if *length < 0x80 { rest } else { rest.get(1..).unwrap_or_default() };
    rest.starts_with(b"\0\x04MQTT") || rest.starts_with(b"\0\x06MQIsdp")
}

/// The version of the protocol, and that of the server in digits.
pub(super) fn is_mysql(start: &[u8]) -> bool {
    matches!(start, [_, 0, 0, 0, 10, b'3'..=b'9', b'.', b'0'..=b'9', ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_of_rtmp_has_its_length() {
        let handshake = |len: usize| {
            [&[3, 0, 0xbc, 0x61, 0x4e, 0x80, 0, 7, 2][..], &vec![0xa7; len - 9]].concat()
        };
        assert!(is_rtmp(&handshake(1537)) && is_rtmp(&handshake(3073)));
        assert!(!is_rtmp(&handshake(1536)) && !is_rtmp(&handshake(1538)));
    }

    #[test]
    fn frames_of_web_socket_are_whole_and_masked() {
        let data = [&[0x82, 0xfe, 0, 200, 1, 2, 3, 4][..], &[0x5a; 200]].concat();
        assert!(is_web_socket(&data));
        assert!(!is_web_socket(&data[..207]));
        assert!(!is_web_socket(b"\x82\x05hello"));
        assert!(is_web_socket(b"\x89\x80\x12\x34\x56\x78"));
        // The end with a code that does not exist.
        assert!(!is_web_socket(b"\x88\x82\0\0\0\0\0\x01"));
    }

    #[test]
    fn a_tar_archive_names_its_format() {
        let mut archive = vec![0; 512];
        archive[257..262].copy_from_slice(b"ustar");
        assert!(is_tar(&archive) && !is_tar(&archive[..260]));
    }

    #[test]
    fn a_wrong_checksum_shows_no_protocol() {
        assert!(is_modbus_rtu(b"\x01\x03\0\0\0\x0a\xc5\xcd"));
        assert!(!is_modbus_rtu(b"\x01\x03\0\0\0\x0a\xc5\xcc"));
        assert!(is_dnp3(b"\x05\x64\x05\xc0\x01\0\0\x04\xe9\x21"));
        assert!(!is_dnp3(b"\x05\x64\x05\xc0\x01\0\0\x04\xe9\x22"));
    }
}
