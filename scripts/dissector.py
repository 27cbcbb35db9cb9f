#!/usr/bin/env python3
"""Makes captures for scripts/dissector.sh: of a file, or of a connection that it relays.

    dissector.py file FRAMES PCAP CUT      the bytes of FRAMES, in segments of CUT bytes
    dissector.py relay HOST:PORT PCAP      prints the address at which it listens, relays one connection,
                                           and writes what both sides sent, each read cut in two
"""

import selectors
import socket
import struct
import sys

CLIENT, SERVER = 40000, 4747


class Capture:
    """A pcap file with the segments of one TCP connection."""

    def __init__(self, path):
        self.file = open(path, "wb")
        # Version 2.4, whole packets, and nothing before the IP header (101).
        self.file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101))
        self.next = {CLIENT: 1, SERVER: 1}
        self.packets = 0

    def segment(self, source, data):
        target = SERVER if source == CLIENT else CLIENT
        tcp = struct.pack(
            ">HHIIBBHHH", source, target, self.next[source], self.next[target], 0x50, 0x18, 65535, 0, 0)
        total = 20 + len(tcp) + len(data)
        loopback = bytes([127, 0, 0, 1])
        ip = struct.pack(">BBHHHBBH", 0x45, 0, total, 0, 0, 64, 6, 0) + loopback + loopback
        self.file.write(struct.pack("<IIII", self.packets, 0, total, total) + ip + tcp + data)
        self.next[source] += len(data)
        self.packets += 1


def of_file(frames, pcap, cut):
    capture = Capture(pcap)
    data = open(frames, "rb").read()
    for start in range(0, len(data), cut):
        capture.segment(CLIENT, data[start : start + cut])


def relay(address, pcap):
    capture = Capture(pcap)
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
    client, _ = listener.accept()
    host, port = address.rsplit(":", 1)
    server = socket.create_connection((host, int(port)))
    selector = selectors.DefaultSelector()
    selector.register(client, selectors.EVENT_READ, (CLIENT, server))
    selector.register(server, selectors.EVENT_READ, (SERVER, client))
    while selector.get_map():
        for key, _ in selector.select():
            source, other = key.data
            try:
                data = key.fileobj.recv(65536)
                other.sendall(data) if data else other.shutdown(socket.SHUT_WR)
            except OSError:
                data = b""
            if not data:
                selector.unregister(key.fileobj)
            # Cut in two, so that there is something to put together.
            for part in (data[: len(data) // 2], data[len(data) // 2 :]):
                if part:
                    capture.segment(source, part)


if sys.argv[1] == "file":
    of_file(sys.argv[2], sys.argv[3], int(sys.argv[4]))
else:
    relay(sys.argv[2], sys.argv[3])
