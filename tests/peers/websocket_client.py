"""Talks to the echo behind the address in the first argument, and fails where something is not as it was sent."""

import asyncio
import os
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError


async def talk(number):
    uri = f"ws://{sys.argv[1]}/chat/{number}"
    # The pings of the library itself would end a connection on a machine that is slow for 20 seconds.
    options = {"subprotocols": ["echo"], "max_size": 2**24, "ping_interval": None, "open_timeout": 60}
    async with connect(uri, proxy=None, **options) as connection:
        assert connection.subprotocol == "echo", connection.subprotocol
        for message in ["hello", "", "snowman \u2603", b"", b"\x00\xff" * 10, os.urandom(3_000_000)]:
            await connection.send(message)
            assert await connection.recv() == message
        # A message in pieces, and a ping that the other end answers by itself.
        await connection.send(["one ", "message ", "in pieces"])
        assert await connection.recv() == "one message in pieces"
        await asyncio.wait_for(await connection.ping(), 30)
        if number % 2:
            await connection.send("goodbye")
            try:
                await connection.recv()
                raise AssertionError("it did not say goodbye")
            except ConnectionClosedError as closed:
                assert (closed.rcvd.code, closed.rcvd.reason) == (4001, "as you wish"), closed
    return number


async def main():
    done = await asyncio.gather(*(talk(number) for number in range(20)))
    print(len(done), "talked")


asyncio.run(main())
