//! Names for the layouts of known protocols.

/// A protocol's layout by name.
///
/// # Examples
///
/// ```
/// use framelet::Layout;
/// use framelet::wire::PRESETS;
///
/// let postgres = PRESETS.iter().find(|preset| preset.name == "postgres").unwrap();
/// assert_eq!(postgres.notation, "h1:u32be+self");
/// assert_eq!("postgres".parse::<Layout>()?.to_string(), postgres.notation);
/// # Ok::<(), framelet::wire::ParseLayoutError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Preset {
    /// The name, usable wherever a layout is.
    pub name: &'static str,
    /// The layout it stands for.
    pub notation: &'static str,
    /// What it is, what its header holds, and where the layout ends to apply, in a few words.
    pub about: &'static str,
    /// What the layout was compared with: the specification, or, where that is not public or leaves the framing
    /// open, an implementation, with the standard that it follows.
    pub source: &'static str,
}

const fn preset(
    name: &'static str,
    notation: &'static str,
    about: &'static str,
    source: &'static str,
) -> Preset {
    Preset { name, notation, about, source }
}

/// All presets, in the order of their names.
#[rustfmt::skip] // A table is easier to check with a row to each line.
pub const PRESETS: &[Preset] = &[
    preset("9p", "u32le+self", "9P file systems", "Plan 9 manual, intro(5)"),
    preset("adb", "hex4", "requests to the ADB server; replies begin with OKAY or FAIL", "ADB, OVERVIEW.TXT"),
    preset("ads", "x0000:u32le", "Beckhoff ADS (AMS/TCP)", "Beckhoff ADS library, AmsHeader.h"),
    preset("amqp", "h3:u32be:data:xce", "AMQP 0-9-1, after its first 8 bytes; header: type, channel", "AMQP 0-9-1, 4.2.3"),
    preset("amqp1", "u32be+self", "AMQP 1.0, after each 8 bytes that begin with AMQP", "AMQP 1.0, part 2, 2.3.1"),
    preset("asterix", "h1:u16be+all", "ASTERIX radar data; header: category", "EUROCONTROL-SPEC-0149, data blocks"),
    preset("bgp", "xffffffffffffffffffffffffffffffff:u16be+all", "BGP-4; the payload begins with the type", "RFC 4271, 4.1"),
    preset("bitcoin", "h16:u32le:h4", "Bitcoin peers; header: magic, command, checksum", "Bitcoin Core, protocol.h; Bitcoin developer reference, P2P network"),
    preset("bittorrent", "u32be", "BitTorrent peers, after the handshake of 68 bytes; empty is a keep-alive", "BEP 3, peer protocol"),
    preset("bmp", "x03:u32be+all", "BGP Monitoring Protocol, version 3", "RFC 7854, 4.1"),
    preset("bsp", "lsp", "Build Server Protocol", "Build Server Protocol, base protocol, which is that of LSP"),
    preset("cassandra", "h5:u32be", "Cassandra CQL 3 and 4; header: version, flags, stream, opcode", "CQL native protocol v4, 2"),
    preset("dap", "lsp", "Debug Adapter Protocol", "Debug Adapter Protocol, base protocol"),
    preset("diameter", "x01:u24be+all", "Diameter; the payload begins with the flags", "RFC 6733, 3"),
    preset("dicom", "h2:u32be", "DICOM; header: PDU type, 00", "DICOM PS3.8, 9.3"),
    preset("dlt", "h2:u16be+all", "AUTOSAR DLT version 1 without storage headers; header: type, counter", "COVESA dlt-daemon, dlt_common.c (AUTOSAR Log and Trace)"),
    preset("dns", "u16be", "DNS over TCP", "RFC 1035, 4.2.2"),
    preset("docker", "h4:u32be", "docker logs and attach; header: 1 (stdout) or 2 (stderr), 000000", "Docker Engine API, ContainerAttach"),
    preset("doip", "h4:u32be", "diagnostics of vehicles; header: version, its inverse, payload type", "python-doipclient, client.py (ISO 13400-2)"),
    preset("dotnet", "u32le", ".NET: BinaryWriter.Write(int); BitConverter on little-endian machines", ".NET, BinaryWriter.Write(Int32)"),
    preset("drda", "u16be+all:xd0", "DRDA (Db2, Derby); not continued segments, whose top bit is set", "Apache Derby, DDMReader.java (DRDA, volume 3)"),
    preset("enip", "h2:u16le:h20", "EtherNet/IP; header: command, session, status, context, options", "OpENer, encap.c (CIP, volume 2, 2-3.1)"),
    preset("erlang1", "u8", "Erlang {packet, 1}", "Erlang, inet:setopts/2"),
    preset("erlang2", "u16be", "Erlang {packet, 2}", "Erlang, inet:setopts/2"),
    preset("erlang4", "u32be", "Erlang {packet, 4}", "Erlang, inet:setopts/2"),
    preset("gearman", "h8:u32be", "Gearman, not its text commands; header: 00 REQ or 00 RES, type", "Gearman, PROTOCOL"),
    preset("git", "hex4+self", "git pkt-line; the markers 0000, 0001 and 0002 are headers", "gitprotocol-common, pkt-line format"),
    preset("grpc", "h1:u32be", "gRPC messages in a body; header: compressed or not", "gRPC over HTTP/2, requests"),
    preset("http2", "u24be:h6", "HTTP/2, after the client's 24 bytes; header: type, flags, stream", "RFC 9113, 4.1"),
    preset("iec104", "x68:u8", "IEC 60870-5-104 (power grids)", "lib60870, cs104_connection.c (IEC 60870-5-104)"),
    preset("ike", "u16be+self", "IKE and ESP over TCP, after the client's IKETCP", "RFC 8229, 3"),
    preset("ipfix", "x000a:u16be+all", "IPFIX flow export", "RFC 7011, 3.1"),
    preset("iso8583", "u16be", "ISO 8583 (payments), binary length: the usual one", "jPOS, NACChannel (ISO 8583 leaves it open)"),
    preset("iso8583-ascii", "dec4", "ISO 8583 (payments), length in digits", "jPOS, ASCIIChannel"),
    preset("iso8583-bcd", "bcd4", "ISO 8583 (payments), length in BCD", "jPOS, BCDChannel"),
    preset("java", "u32be", "Java: DataOutputStream.writeInt", "Java, DataOutput.writeInt"),
    preset("kafka", "u32be", "Apache Kafka", "Kafka protocol guide, common structure"),
    preset("kerberos", "u32be", "Kerberos over TCP", "RFC 4120, 7.2.2"),
    preset("ldap", "x30:ber", "LDAP, until StartTLS", "RFC 4511, 5.1"),
    preset("libp2p", "varint", "libp2p multistream-select, until the connection is secured", "multistream-select, protocol"),
    preset("lsp", "lsp", "Language Server Protocol; header: lines but Content-Length", "LSP 3.17, base protocol"),
    preset("memcached", "h8:u32be:h12", "memcached's binary protocol; header: magic to status, opaque, CAS", "memcached, protocol-binary"),
    preset("minecraft", "varint", "Minecraft (Java), until compression or encryption", "Minecraft protocol, packet format"),
    preset("modbus", "h2:x0000:u16be", "Modbus TCP; header: transaction", "MODBUS Messaging on TCP/IP, 3.1.3"),
    preset("mongodb", "u32le+self", "MongoDB", "MongoDB wire protocol, message header"),
    preset("mqtt", "h1:varint", "MQTT; header: packet type and flags", "MQTT 3.1.1, 2.2.3"),
    preset("mysql", "u24le:h1", "MySQL; header: sequence; 16777215 bytes go on in the next", "MySQL client/server protocol, packets"),
    preset("nanomsg", "u64be", "nanomsg and NNG, after the peer's 8 bytes", "sp-tcp-mapping-01, 3"),
    preset("native-messaging", "u32le", "native messaging of browsers, on little-endian machines", "Chrome, native messaging protocol"),
    preset("netstring", "dec/3a:data:x2c", "netstrings (SCGI headers, QMTP)", "draft-bernstein-netstrings-02"),
    preset("noise", "u16be", "Noise messages, if the application uses the recommended length", "Noise Protocol Framework, 13"),
    preset("opcua", "h4:u32le+all", "OPC UA; header: type, then F, or C if more chunks follow", "OPC 10000-6, 7.1.2.2"),
    preset("openflow", "h2:u16be+all", "OpenFlow; header: version, type", "OpenFlow, ofp_header"),
    preset("openvpn", "u16be", "OpenVPN over TCP", "OpenVPN, protocol overview"),
    preset("osc", "u32be", "Open Sound Control 1.0 over TCP", "OSC 1.0, packets"),
    preset("pcep", "h2:u16be+all", "PCEP (path computation); header: version and flags, type", "RFC 5440, 6.1"),
    preset("postgres", "h1:u32be+self", "PostgreSQL; header: type, which the client's first message lacks", "PostgreSQL, message formats"),
    preset("protobuf", "varint", "Protocol Buffers, delimited", "Protocol Buffers, writeDelimitedTo"),
    preset("radius", "h2:u16be+all", "RADIUS over TCP; header: code, identifier", "RFC 2865, 3; RFC 6613"),
    preset("rcon", "u32le", "Source RCON (game servers)", "Source RCON protocol, packet size"),
    preset("rdp", "x0300:u16be+all", "RDP, until fast-path updates, which do not begin with 03", "RFC 1006, 6"),
    preset("resp", "x24:dec/0d0a:data:x0d0a", "Redis bulk strings; not arrays, $-1 and other types", "RESP, bulk strings"),
    preset("rpki", "h4:u32be+all", "RPKI to router; header: version, type, session", "RFC 8210, 5.1"),
    preset("rsocket", "u24be", "RSocket over TCP", "RSocket protocol, framing format"),
    preset("rtp", "u16be", "RTP and RTCP over TCP", "RFC 4571, 2"),
    preset("s7", "x0300:u16be+all", "Siemens S7", "RFC 1006, 6"),
    preset("smb", "x00:u24be", "SMB over TCP (port 445)", "MS-SMB2, 2.1"),
    preset("smpp", "u32be+self", "SMPP (text messages)", "SMPP 3.4, 3.2"),
    preset("someip", "h4:u32be", "SOME/IP; header: service, method", "AUTOSAR SOME/IP Protocol, length; vsomeip"),
    preset("soup", "u16be", "SoupBinTCP (stock exchanges); the payload begins with the type", "Nassau, SoupBinTCPSession.java (SoupBinTCP 3.00)"),
    preset("ssh-agent", "u32be", "SSH agents; the payload begins with the type", "RFC 9987, 3"),
    preset("syslog", "dec/20", "syslog with octet counting, not a line per message", "RFC 6587, 3.4.1"),
    preset("tds", "h2:u16be+all", "SQL Server; header: type, status, whose bit 01 ends a message", "MS-TDS, 2.2.3.1"),
    preset("thrift", "u32be", "Thrift, framed transport", "Thrift RPC, framed transport"),
    preset("tls", "h3:u16be", "TLS records; header: type, version", "RFC 8446, 5.1"),
    preset("tns", "u16be+self", "Oracle Net; since version 315 u32be+self after the handshake", "python-oracledb, packet.pyx"),
    preset("tpkt", "x0300:u16be+all", "ISO transport over TCP (H.323, MMS)", "RFC 1006, 6"),
    preset("uwsgi", "h1:u16le:h1", "uwsgi, not the body of a request; header: both modifiers", "uwsgi protocol, packet header"),
    preset("zabbix", "x5a425844:h1:u32le:h4", "Zabbix, not large packets; header: 01, reserved", "Zabbix protocol, header"),
];

/// Returns the preset of this name.
pub(super) fn find(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}
