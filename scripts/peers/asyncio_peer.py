"""A peer as most asyncio programs are: `readexactly` of the prefix, then of the
payload. Called as contents.arguments says."""

import asyncio
import struct
import sys

from contents import LIMIT, PAUSE, Cutter, arguments, messages, write_frames


async def send(writer, data, cutter):
    if cutter is None:
        writer.write(data)
    else:
        for piece, single in cutter(data):
            writer.write(piece)
            await asyncio.sleep(PAUSE if single else 0)
    await writer.drain()


async def receive(reader):
    """The next payload; None at the end of the stream between two frames."""
    try:
        prefix = await reader.readexactly(4)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    (length,) = struct.unpack(">I", prefix)
    if length > LIMIT:
        raise ValueError(f"a frame of {length} bytes")
    return await reader.readexactly(length)


async def client(address, manner):
    reader, writer = await asyncio.open_connection(*address)
    frames = [struct.pack(">I", len(m)) + m for m in messages()]
    if manner == "pieces":
        await send(writer, b"".join(frames), Cutter())
    else:
        for frame in frames:
            await send(writer, frame, None)
    if manner != "close":
        writer.write_eof()
        rest = await reader.read(1000)
        if rest:
            raise ValueError(f"the server wrote to a peer that asked nothing: {rest!r}")
    writer.close()
    await writer.wait_closed()


async def server(path, manner):
    done = asyncio.get_running_loop().create_future()

    async def connection(reader, writer):
        try:
            cutter = Cutter() if manner == "pieces" else None
            with open(path, "wb") as file:
                while (payload := await receive(reader)) is not None:
                    write_frames(file, [payload])
                    prefix = struct.pack(">I", len(payload))
                    await send(writer, prefix + payload, cutter)
            writer.close()
            await writer.wait_closed()
            done.set_result(None)
        except Exception as error:
            done.set_exception(error)

    listener = await asyncio.start_server(connection, "127.0.0.1", 0)
    host, port = listener.sockets[0].getsockname()
    print(f"listening on {host}:{port}", file=sys.stderr, flush=True)
    await done
    listener.close()


if __name__ == "__main__":
    role, where, manner = arguments()
    try:
        asyncio.run({"client": client, "server": server}[role](where, manner))
    except Exception as error:
        sys.exit(f"asyncio_peer.py: {type(error).__name__}: {error}")
