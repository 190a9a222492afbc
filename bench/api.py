"""`python -m bench.api --port N`: a provider's API that costs as little as Python can: a small answer, and a large one that streams.

GET /small      a kilobyte of JSON
GET /large      100 MiB in pieces of 64 KiB
POST            takes a chunked body, and answers as /small
"""

from __future__ import annotations

import argparse
import asyncio

import uvloop

LARGE_BYTES = 100 * 1024 * 1024
_PIECE = bytes(64 * 1024)
_BODY = b'{"items": ["' + b"x" * 1000 + b'"]}'
_SMALL = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
    len(_BODY),
    _BODY,
)
_LARGE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: %d\r\n\r\n" % LARGE_BYTES
)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"POST"):
                await _take(reader)
            if b"/large" not in head.partition(b"\r\n")[0]:
                writer.write(_SMALL)
                continue
            writer.write(_LARGE)
            for _ in range(LARGE_BYTES // len(_PIECE)):
                writer.write(_PIECE)
                await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _take(reader: asyncio.StreamReader) -> None:
    """A chunked body (RFC 9112 section 7.1)."""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        await reader.readexactly(size + 2)
    await reader.readexactly(2)


async def serve(port: int) -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.api")
    parser.add_argument("--port", type=int, required=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
