"""Sends every message back, text as text and bytes as bytes; says goodbye with a code of its own when asked to."""

import asyncio

from websockets.asyncio.server import serve


async def answer(connection):
    async for message in connection:
        if message == "goodbye":
            await connection.close(4001, "as you wish")
            return
        await connection.send(message)


async def main():
    # The pings of the library itself would end a connection on a machine that is slow for 20 seconds.
    options = {"subprotocols": ["echo"], "max_size": 2**24, "ping_interval": None, "open_timeout": 60}
    async with serve(answer, "127.0.0.1", 0, **options) as server:
        print("port", server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


asyncio.run(main())
