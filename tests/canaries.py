"""Secrets looked for in whatever was written, as they are and in every spelling that hides them from a plain search."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote_from_bytes

from tests.postgres import database

_SHORTEST = 12  # anything shorter is found by chance
_PAGE = bytes(8192)


def spellings(secret: bytes) -> set[bytes]:
    """Raw, in hex, in base64 of both alphabets wherever the secret stands in what was encoded, and as in a URL."""
    found = {
        secret,
        secret.hex().encode(),
        secret.hex().upper().encode(),
        quote_from_bytes(secret, safe="").encode(),
    }
    for before in range(3):
        padded = bytes(before) + secret
        # The characters to which nothing but the secret contributes: each is 6 bits.
        whole = slice(-(-before * 8 // 6), len(padded) * 8 // 6)
        found |= {base64.b64encode(padded)[whole], base64.urlsafe_b64encode(padded)[whole]}
    return found


class Search:
    """Looks for all of the secrets, and counts in what: `searched` is bytes by the kind of place."""

    def __init__(self, secrets: Mapping[bytes, str]) -> None:
        """`secrets` maps each to what it is, which is all that is told of one that was found."""
        assert all(len(secret) >= _SHORTEST for secret in secrets), sorted(secrets.values())
        self._patterns = [
            (pattern, what) for secret, what in secrets.items() for pattern in spellings(secret)
        ]
        self.kinds = Counter(secrets.values())
        self.searched: Counter[str] = Counter()

    def hits(self, where: str, data: bytes) -> list[str]:
        """What was found there. The kind of place is the first word of `where`."""
        self.searched[where.partition(" ")[0]] += len(data)
        filled = data.replace(_PAGE, b"")
        return [
            f"{what} in {where}: {filled[max(0, at - 60) : at].decode(errors='replace')}"
            for pattern, what in self._patterns
            if (at := filled.find(pattern)) >= 0
        ]

    def __str__(self) -> str:
        return (
            f"{self.kinds.total()} secrets of {len(self.kinds)} kinds in {len(self._patterns)} spellings, searched in "
            + ", ".join(f"{where} {size:,} bytes" for where, size in sorted(self.searched.items()))
        )


def files_below(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file, links followed, with what is in it."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from files_below(path.resolve())
        elif path.is_file():
            yield path, path.read_bytes()


async def dump(url: str) -> list[tuple[str, bytes]]:
    """Every column of every table as text, and the bytes of those that have any; with what statistics keep of them."""
    found = []
    async with database(url) as connection:
        await connection.execute("ANALYZE")
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for name in (row[0] for row in tables):
            for row in await connection.fetch(f'SELECT t::text AS whole, t.* FROM "{name}" t'):
                cells = [cell for cell in row.values() if isinstance(cell, bytes)]
                found.append((f"dump of {name}", b"\n".join([str(row["whole"]).encode(), *cells])))
        for name in ("pg_stats", "pg_stat_activity"):
            rows = await connection.fetch(f"SELECT t::text FROM {name} t")
            found += [(f"dump of {name}", str(row[0]).encode()) for row in rows]
    return found


def told_of_processes(parent: int) -> Iterator[tuple[str, bytes]]:
    """The command line and the environment of each process below `parent`, and its own command line."""
    yield f"processes {parent} cmdline", Path(f"/proc/{parent}/cmdline").read_bytes()
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        yield f"processes {child} environ", Path(f"/proc/{child}/environ").read_bytes()
        yield from told_of_processes(int(child))
