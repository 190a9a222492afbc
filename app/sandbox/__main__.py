"""`python -m app.sandbox`: the sandbox as a process. Says where it listens, in one line, and ends on SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from app.sandbox.server import DEFAULT_CLIENTS, start


def client(text: str) -> tuple[str, str]:
    """`ID:SECRET`; the secret may hold further colons."""
    client_id, _, secret = text.partition(":")
    if not client_id or not secret:
        raise argparse.ArgumentTypeError("a client is ID:SECRET")
    return client_id, secret


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m app.sandbox", description="A hostile authorization server."
    )
    parser.add_argument("--host", default="127.0.0.1", help="its control endpoints ask for no credentials")
    parser.add_argument("--port", type=int, default=8090, help="0 picks a free one")
    parser.add_argument("--issuer", metavar="URL", help="where clients reach it, unless at host and port")
    parser.add_argument("--state", type=Path, metavar="FILE", help="keep grants and tokens across restarts")
    parser.add_argument("--client", type=client, action="append", default=[], metavar="ID:SECRET")
    parser.add_argument(
        "--redirect-uri", action="append", default=[], metavar="URI", help="default: any on loopback"
    )
    return parser.parse_args()


async def serve(args: argparse.Namespace) -> None:
    """Serves until SIGTERM or SIGINT."""
    ended = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, ended.set)
    sandbox = await start(
        host=args.host,
        port=args.port,
        issuer=args.issuer,
        clients={**DEFAULT_CLIENTS, **dict(args.client)},
        redirect_uris=args.redirect_uri,
        state_path=args.state,
    )
    sys.stdout.write(f"sandbox listening on {sandbox.url}\n")
    sys.stdout.flush()
    await ended.wait()
    await sandbox.stop()


def main() -> None:
    try:
        asyncio.run(serve(arguments()))
    except (OSError, ValueError) as error:
        sys.exit(f"sandbox: {error}")


if __name__ == "__main__":
    main()
