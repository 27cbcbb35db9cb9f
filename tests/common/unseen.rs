//! Streams that the diagnosis had never seen when they were written, after it named everything in
//! [`openings`](super::openings): 2020 of them, of which these are the most telling. At first, 50 of them got a false
//! name in some layout, 76 were not named, and 38 of those below were among these, or got a layout that reads them by
//! chance. Half of the 2020 were written after the diagnosis had been mended with the other half.

/// What it is, its bytes, and what may be said of it: layouts that are right, or words of which one has to be in a
/// name. If there are none, nothing may be said.
pub(crate) type Row = (&'static str, &'static [u8], &'static [&'static str]);

/// Returns all of them.
pub(crate) fn unseen() -> impl Iterator<Item = Row> {
    TEXT.iter().chain(BINARY).chain(FRAMED).copied()
}

/// Text and lines.
#[rustfmt::skip] // A table is easier to check with a row to each line.
const TEXT: &[Row] = &[
    ("SIP client, after a keep-alive", b"\r\n\r\nOPTIONS sip:a@example.org SIP/2.0\r\nVia: SIP/2.0/TCP a\r\n\r\n", &["SIP", "text"]),
    ("IMAP server that needs no login", b"* PREAUTH [CAPABILITY IMAP4rev1] Logged in as bob\r\n", &["text"]),
    ("SMTP server, a reply of several lines", b"250-mx.example.org\r\n250-PIPELINING\r\n250-SIZE 10240000\r\n250 8BITMIME\r\n", &["text", "SMTP"]),
    ("MSRP client", b"MSRP a786hjs2 SEND\r\nTo-Path: msrp://bob.example.com:8888/9di4ea;tcp\r\n-------a786hjs2$\r\n", &["text"]),
    ("Redis server, a map", b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n", &["text", "Redis"]),
    ("an XML envelope", b"<soap:Envelope xmlns:soap=\"http://www.w3.org/2003/05/soap-envelope\"><soap:Body/></soap:Envelope>", &["text", "XML"]),
    ("chunks of an HTTP body", b"1a\r\nabcdefghijklmnopqrstuvwxyz\r\n5\r\nhello\r\n0\r\n\r\n", &["text"]),
    ("digits without a separator", b"20261129100000002150006500101325", &["text"]),
    ("Cyrillic in UTF-16 with a mark", b"\xff\xfe\x1f\x04@\x048\x042\x045\x04B\x04 \0<\x048\x04@\x04", &["UTF-16"]),
    ("Cyrillic in UTF-16", b"\x1f\x04@\x048\x042\x045\x04B\x04,\0 \0<\x048\x04@\x04", &["UTF-16"]),
    ("UTF-16, big-endian, without a mark", b"\0t\0e\0m\0p\0e\0r\0a\0t\0u\0r\0e\0=\x002\x001\0.\x005\0;", &["UTF-16"]),
    ("UTF-32", b"\xff\xfe\0\0h\0\0\0e\0\0\0l\0\0\0l\0\0\0o\0\0\0 \0\0\0t\0\0\0h\0\0\0e\0\0\0r\0\0\0e\0\0\0", &[]),
    ("Cyrillic in KOI8-R", b"\xf0\xd2\xc9\xd7\xc5\xd4, \xcd\xc9\xd2. \xf4\xc5\xcd\xd0\xc5\xd2\xc1\xd4\xd5\xd2\xc1 21\n", &["text"]),
    ("EBCDIC", b"\xc8\xc5\xd3\xd3\xd6@\xe6\xd6\xd9\xd3\xc4@\xf1\xf2\xf3\xf4\xf5", &[]),
];

/// Protocols and data without a layout, or with one that only they have.
#[rustfmt::skip] // A table is easier to check with a row to each line.
const BINARY: &[Row] = &[
    ("MySQL server that refuses a host", b"A\0\0\0\xffj\x04Host '10.0.0.1' is not allowed to connect to this MySQL server", &["u24le:h1"]),
    ("Cassandra server, an empty message first", b"\x84\0\0\x01\x02\0\0\0\0\x84\0\0\x02\x08\0\0\0\x0c\0\0\0\x03\0\x06system", &["h5:u32be"]),
    ("NFS server", b"\x80\0\0\x1c\0\0\x124\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x08\x01", &["RPC"]),
    ("Modbus for serial lines", b"\x01\x03\0\0\0\n\xc5\xcd", &["Modbus RTU"]),
    ("Modbus client that asks for a name", b"\0\x07\0\0\0\x05\x01+\x0e\x01\0", &["h2:x0000:u16be"]),
    ("WebSocket client that ends", b"\x88\x827\xfa!=4\x12", &["WebSocket"]),
    ("STUN client", b"\0\x01\0\x08!\x12\xa4B:\xa1WK\xfb\xb7)\xc9\xbd~\xf6\xa6\x80\"\0\x04test", &["STUN"]),
    ("Omron FINS client", b"FINS\0\0\0\x0c\0\0\0\0\0\0\0\0\0\0\0\0", &["FINS"]),
    ("FLAC audio", b"fLaC\0\0\0\"\x10\0\x10\0Cs\xb4h<\xe3l\xcf4\x02(\x1b\x18\xb2k\x8f\xcbMhc\x08\xf6G\"\x12\x0c\xc8\x9c\x8f#", &["FLAC"]),
    ("a 7z archive", b"7z\xbc\xaf'\x1c\0\x04\xcbH]pF,\xcf50{#\xa2\xf9\xa2Jd\xb2x\xcf[D\0OY", &["7z"]),
    ("Snappy data", b"\xff\x06\0\0sNaPpY\x01\t\0\0\xd4\x1c\xc4\x1bhello", &["Snappy"]),
    ("MessagePack, a list of maps", b"\x92\x82\xa1a\x01\xa1b\x02\x82\xa1a\x03\xa1b\x04", &["MessagePack"]),
    ("CBOR, numbers as keys", b"\x81\xa3\0dtemp\x02\xfb@5\x80\0\0\0\0\0\x01cCel", &["CBOR"]),
    ("CBOR, a list with keys of one letter", b"\x82\xa2aa\x01ab\x02\xa2aa\x03ab\x04", &[]),
    ("sFlow", b"\0\0\0\x05\0\0\0\x01\n\0\0\x01\0\0\0\0\0\0\0\x01\0\0\x03\xe8\0\0\0\0", &[]),
    ("Wayland client", b"\x01\0\0\0\x01\0\x0c\0\x02\0\0\0\x01\0\0\0\0\0\x0c\0\x03\0\0\0", &[]),
    ("a Java string, and then numbers", b"\0\x05hello\0\0\0\x01\0\0\0\x02", &[]),
    ("AMF", b"\x02\0\x07connect\0?\xf0\0\0\0\0\0\0\x03\0\x03app\x02\0\x04live\0\0\t", &[]),
    ("16-bit samples, big-endian", b"\x01,\x016\x01\"\x011\x01+\x01-\x018\x01'\x01 \x01,\x016\x012\x01.\x01-\x01,\x01+", &[]),
    ("16-bit samples that begin like UTF-16", b"\xff\xfe/\xff\x1f\xff\xf1\xfe\x05\xff\x13\xffA\xffO\xffW\xffE\xff)\xff0\xff\x16\xff5\xff\xfe\xfe\xf2\xfe\t\xff\xe0\xfe\r\xff\xde\xfe\xc3\xfe\x8e\xfe\x9e\xfe\xaa\xfe\xc4\xfe\xab\xfe\xb5\xfe\x8a\xfeo\xfe9\xfeE\xfex\xfej\xfe7\xfeH\xfeY\xfe&\xfeP\xfeV\xfe,\xfe", &[]),
    ("a counter of Java", b"\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05\0\0\0\x06\0\0\0\x07\0\0\0\x08", &[]),
    ("OPC UA client that opens a channel", b"OPNFS\0\0\0\0\0\0\0/\0\0\0http://opcfoundation.org/UA/SecurityPolicy#None\xff\xff\xff\xff\xff\xff\xff\xff\x01\0\0\0\x01\0\0\0\x01\0\xbe\x01", &["h4:u32le+all"]),
    ("PostgreSQL client that copies", b"d\0\0\0\n1\tfoo\nd\0\0\0\x0e2\tbar baz\nc\0\0\0\x04", &["h1:u32be+self"]),
    ("RPKI router", b"\x01\x01\x124\0\0\0\x0c\0\0\0\x07", &["h4:u32be+all"]),
    ("Chromecast sender", b"\0\0\0X\x08\0\x12\x08sender-0\x1a\nreceiver-0\"(urn:x-cast:com.google.cast.tp.connection(\x002\x12{\"type\":\"CONNECT\"}", &["u32be"]),
];

/// Lengths of other kinds, and mistakes in them.
#[rustfmt::skip] // A table is easier to check with a row to each line.
const FRAMED: &[Row] = &[
    ("an empty message first, in a length that counts itself", b"\0\0\0\x04\0\0\0\x0fhello there", &["u32be+self", "after message"]),
    ("an empty message last", b"\0\0\0\x0bhello there\0\0\0\0", &["u32be"]),
    ("an empty message last, in eight bytes", b"\0\0\0\0\0\0\0\x0bhello there\0\0\0\0\0\0\0\0", &["u64be"]),
    ("an empty message last, in a length that counts itself", b"\0\0\0\x0fhello there\0\0\0\x04", &["u32be+self"]),
    ("digits and a colon", b"17:{\"id\":1,\"t\":21.5}26:{\"id\":2,\"t\":21.75,\"u\":\"C\"}8:{\"id\":3}", &["dec/3a"]),
    ("ten digits", b"0000000017{\"id\":1,\"t\":21.5}0000000026{\"id\":2,\"t\":21.75,\"u\":\"C\"}0000000008{\"id\":3}", &["dec10"]),
    ("eight digits that count themselves", b"00000025{\"id\":1,\"t\":21.5}00000034{\"id\":2,\"t\":21.75,\"u\":\"C\"}00000016{\"id\":3}", &["dec8+self"]),
    ("four digits that could be hexadecimal", b"0001a0001a", &["dec4"]),
    ("syslog with octet counting and line feeds", b"40 <13>1 2026-11-29T10:00:00Z h a - - - one\n44 <13>1 2026-11-29T10:00:01Z h a - - - two two\n", &["dec/20:data:x0a"]),
    ("a NUL after each, little-endian", b"\x11\0\0\0{\"id\":1,\"t\":21.5}\0\x1a\0\0\0{\"id\":2,\"t\":21.75,\"u\":\"C\"}\0\x08\0\0\0{\"id\":3}\0", &["u32le:data:x00", "NUL"]),
    ("a line feed after each, in two bytes", b"\0\x11{\"id\":1,\"t\":21.5}\n\0\x1a{\"id\":2,\"t\":21.75,\"u\":\"C\"}\n\0\x08{\"id\":3}\n", &["u16be:data:x0a", "line feed"]),
    ("a number that is not counted, once", b"\0\0\0\x11\0\0\0\t{\"id\":1,\"t\":21.5}", &["u32be:h4", "after message", "longer"]),
    ("half a message", b"\0\0\0d{\"a\":[1,2,3,4,5,6,7,8", &[]),
];

/// Mistakes that show in the layout that was meant, or in one like it: what it is, that layout, the bytes, and what has
/// to be said, if anything.
#[rustfmt::skip] // A table is easier to check with a row to each line.
pub(crate) const MISTAKES: &[(&str, &str, &[u8], &str)] = &[
    ("a length that is one too small", "u32be", b"\0\0\0\x06{\"a\":1}\0\0\0\x07{\"b\":22}\0\0\0\x08{\"c\":333}", "message 1 seems to be 1 byte longer than its length says"),
    ("a length that counts itself, and one that does not", "u32be", b"\0\0\0\x15{\"id\":1,\"t\":21.5}\0\0\0\x1a{\"id\":2,\"t\":21.75,\"u\":\"C\"}", "message 1 seems to be 4 bytes shorter than its length says"),
    ("line feeds that became CR LF, the last one in a message, too", "u32be", b"\0\0\0\na: 1\r\nb: 2\r\n\0\0\0\x06x\r\ny\r\nz\r\n\0\0\0\x05k: v\r\n", "did line feeds become CR LF"),
    ("a line feed after each of two", "u16be", b"\0\x11{\"id\":1,\"t\":21.5}\n\0\x1a{\"id\":2,\"t\":21.75,\"u\":\"C\"}\n", "a line feed follows it"),
    ("a type, then 32 bits", "u32le", b"\x07\0\0\0\x11{\"id\":1,\"t\":21.5}", "after message 1: that message may be longer than its length says"),
    ("UTF-8 that was counted, and Latin-1 that was sent", "u32be", b"\0\0\0#{\"stadt\":\"K\xf6ln\",\"ma\xdf\":\"gr\xf6\xdfer\"}\0\0\0\x0f{\"city\":\"Rome\"}\0\0\0\x13{\"citt\xe0\":\"Forl\xec\"}", ""),
    ("a length of one byte that is a printable letter", "u32be", b"&{\"id\": 2742, \"v\": 43.75, \"tag\": \"x y\"}", ""),
    ("half of a message", "u24be", b"\0\0\0d{\"a\":[1,2,3,4,5,6,7,8", ""),
];
