"""A peer that puts on the wire what a .NET program does with
`BitConverter.GetBytes(int)` on a little-endian machine: a signed 32-bit length,
low byte first, in one blocking write, and the payload in the next. It is Python,
not .NET. Called as contents.arguments says."""

import socket
import struct
import sys
import time

from contents import LIMIT, PAUSE, Cutter, arguments, messages, write_frames

INT = struct.Struct("<i")


def send(connection, payload, cutter):
    if cutter is None:
        connection.sendall(INT.pack(len(payload)))
        connection.sendall(payload)
        return
    for piece, single in cutter(INT.pack(len(payload)) + payload):
        connection.sendall(piece)
        if single:
            time.sleep(PAUSE)


def receive(connection):
    """The next payload; None at the end of the stream between two frames."""
    prefix = read(connection, INT.size)
    if not prefix:
        return None
    if len(prefix) < INT.size:
        raise EOFError(f"the stream ends after {len(prefix)} bytes of a prefix")
    (length,) = INT.unpack(prefix)
    if not 0 <= length <= LIMIT:
        raise ValueError(f"a frame of {length} bytes")
    payload = read(connection, length)
    if len(payload) < length:
        raise EOFError(f"the stream ends after {len(payload)} of {length} bytes")
    return payload


def read(connection, size):
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(min(size - len(data), 65_536))
        if not piece:
            break
        data += piece
    return bytes(data)


def client(address, manner):
    with socket.create_connection(address) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        cutter = Cutter() if manner == "pieces" else None
        for message in messages():
            send(connection, message, cutter)
        if manner == "close":
            return
        connection.shutdown(socket.SHUT_WR)
        rest = connection.recv(1000)
        if rest:
            raise ValueError(f"the server wrote to a peer that asked nothing: {rest!r}")


def server(path, manner):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        print(f"listening on {host}:{port}", file=sys.stderr, flush=True)
        connection, _ = listener.accept()
    with connection, open(path, "wb") as file:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        cutter = Cutter() if manner == "pieces" else None
        while (payload := receive(connection)) is not None:
            write_frames(file, [payload])
            send(connection, payload, cutter)


if __name__ == "__main__":
    role, where, manner = arguments()
    try:
        {"client": client, "server": server}[role](where, manner)
    except Exception as error:
        sys.exit(f"bitconverter_peer.py: {type(error).__name__}: {error}")
