"""The messages that the peers exchange, and the comparison of what arrived.

contents.py write FILE        writes them all, as u32be frames
contents.py compare FILE      says in one line what differs, if anything does

They are the same on every run, so nobody has to hand them over for comparison.
"""

import hashlib
import random
import struct
import sys

LIMIT = 8 * 1024 * 1024

TEXT = (
    "first line\r\n"
    "zweite Zeile: Größe, naïve, Ελληνικά, 日本語, 🚚\n"
    "\n"
    "a NUL: \0, a tab: \t, and no line feed at the end"
).encode()


def contents():
    """Pairs of a name and its messages, small ones first, in order of sending."""

    def noise(size):
        return random.Random(size).randbytes(size)

    return [
        ("empty", [b""]),
        ("one byte", [b"x"]),
        ("text with CR LF and NUL", [TEXT]),
        ("all 256 byte values", [bytes(range(256))]),
        ("65,535 bytes", [noise(65_535)]),
        ("65,536 bytes", [noise(65_536)]),
        ("65,537 bytes", [noise(65_537)]),
        ("3 MiB", [noise(3 * 1024 * 1024)]),
        ("burst of 2,000", [b"%d:" % i + noise(i % 41) for i in range(2_000)]),
    ]


def messages():
    return [message for _, group in contents() for message in group]


def write_frames(file, payloads):
    for payload in payloads:
        file.write(struct.pack(">I", len(payload)) + payload)


def read_frames(file):
    """The payloads of a file of u32be frames, and what is wrong with its end."""
    data = file.read()
    payloads, at = [], 0
    while at < len(data):
        if len(data) - at < 4:
            return payloads, f"{len(data) - at} stray bytes after the last frame"
        (length,) = struct.unpack_from(">I", data, at)
        if len(data) - at - 4 < length:
            here = len(data) - at - 4
            return payloads, f"the last frame has {here} of {length} bytes"
        payloads.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return payloads, None


def described(payload):
    return f"{len(payload)} bytes, sha256 {hashlib.sha256(payload).hexdigest()[:16]}"


def differences(received, end):
    at = 0
    for name, group in contents():
        for number, expected in enumerate(group, at + 1):
            if number > len(received):
                yield f"{name}: message {number} is missing"
                break
            got = received[number - 1]
            if got != expected:
                yield (
                    f"{name}: message {number} is {described(got)}"
                    f" instead of {described(expected)}"
                )
                break
        at += len(group)
    if len(received) > at:
        yield f"{len(received)} messages instead of {at}"
    if end:
        yield end


def main():
    command, path = sys.argv[1:]
    if command == "write":
        with open(path, "wb") as file:
            write_frames(file, messages())
    elif command == "compare":
        with open(path, "rb") as file:
            wrong = list(differences(*read_frames(file)))
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            sys.exit(wrong[0] + more)
    else:
        sys.exit(f"contents.py: no such command: {command}")


class Cutter:
    """Cuts a stream where TCP may: byte by byte at first, then at odd sizes."""

    SINGLE = 600
    SIZES = (1, 3, 7, 61, 509, 4_093, 65_521)

    def __init__(self):
        self.cut = 0
        self.pieces = 0

    def __call__(self, data):
        """Pairs of a piece and whether it is one of the single bytes."""
        at = 0
        while at < len(data):
            single = self.cut < self.SINGLE
            size = 1 if single else self.SIZES[self.pieces % len(self.SIZES)]
            piece = data[at : at + size]
            at += len(piece)
            self.cut += len(piece)
            self.pieces += 1
            yield piece, single


# The pause after a single byte, so that it travels alone and is read alone.
PAUSE = 0.0005


def arguments():
    """What every peer is called with.

    client ADDR MANNER        sends all messages; MANNER is `whole`, `pieces`, or
                              `close` (whole, and closes without waiting)
    server RECEIVED MANNER    serves one connection: sends each message back
                              (`whole` or `pieces`) and keeps them in RECEIVED
    """
    role, where, manner = sys.argv[1:]
    if role == "client":
        host, port = where.rsplit(":", 1)
        return role, (host, int(port)), manner
    return role, where, manner


if __name__ == "__main__":
    main()
