"""A bad line: a proxy that passes bytes on in pieces of random length, and resets connections.

    proxy.py HOST:PORT AROUND SEED          each connection is reset after about AROUND bytes from its client
    proxy.py HOST:PORT points FIRST LAST STEP DIRECTION
                                            one connection is reset after FIRST bytes, and the next is left
                                            alone; the one after it is reset after FIRST + STEP bytes, and so on
                                            up to LAST. DIRECTION: `client` or `server`, whose bytes are counted

Prints the address it listens on, and `done` once the last point has been passed.
"""

import asyncio
import random
import socket
import struct
import sys

FOREVER = sys.maxsize


def reset(writer):
    """Closes the connection so that its other end sees a reset."""
    connection = writer.get_extra_info("socket")
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass  # it is gone already
    writer.transport.abort()


async def pass_on(reader, writer, budget, choose):
    """Returns whether the budget was spent; otherwise the stream has ended, and so has the copy."""
    while budget > 0:
        piece = await reader.read(min(choose.randint(1, 20_000), budget))
        if not piece:
            if writer.can_write_eof():
                writer.write_eof()
            return False
        budget -= len(piece)
        writer.write(piece)
        await writer.drain()
    return True


async def serve(server, budgets, choose):
    """Serves for ever. `budgets()` returns how many bytes of the client and of the server are passed on."""

    running = set()  # the loop itself does not keep tasks alive

    async def connection(from_client, to_client):
        running.add(asyncio.current_task())
        asyncio.current_task().add_done_callback(running.discard)
        try:
            from_server, to_server = await asyncio.open_connection(*server)
        except OSError:
            reset(to_client)
            return
        of_client, of_server = budgets()
        pumps = [
            asyncio.ensure_future(pass_on(from_client, to_server, of_client, choose)),
            asyncio.ensure_future(pass_on(from_server, to_client, of_server, choose)),
        ]
        try:
            # It is over once both have ended, one has spent its budget, or one has failed.
            waiting = set(pumps)
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if any(pump.result() for pump in done):
                    break
            else:
                to_client.close()
                to_server.close()
                return
        except OSError:
            pass
        for pump in pumps:
            pump.cancel()
        # What was passed on is to arrive before the reset, if it can.
        await asyncio.sleep(0.002)
        reset(to_client)
        reset(to_server)

    listening = await asyncio.start_server(connection, "127.0.0.1", 0)
    print("%s:%d" % listening.sockets[0].getsockname(), flush=True)
    await listening.serve_forever()


def points(first, last, step, direction):
    """Returns a function that gives the budgets of each connection."""
    state = {"at": first, "harmless": False}

    def budgets():
        harmless, state["harmless"] = state["harmless"], not state["harmless"]
        at = state["at"]
        if harmless or at > last:
            return FOREVER, FOREVER
        state["at"] += step
        if state["at"] > last:
            print("done", flush=True)
        return (at, FOREVER) if direction == "client" else (FOREVER, at)

    return budgets


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    if sys.argv[2] == "points":
        first, last, step = map(int, sys.argv[3:6])
        choose, budgets = random.Random(first), points(first, last, step, sys.argv[6])
    else:
        around, choose = int(sys.argv[2]), random.Random(int(sys.argv[3]))

        def budgets():
            return choose.randint(around // 2, around * 3 // 2), FOREVER

    asyncio.run(serve((host, int(port)), budgets, choose))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
