"""The refresh protocol under all that may happen to it, in any order. `tests.faults.protocol` says how."""

from __future__ import annotations

from pathlib import Path

from tests.faults.protocol import long

SEED = 1
EXAMPLES = 15


def test_whatever_happens_in_whatever_order_the_protocol_holds(database_url: str, tmp_path: Path) -> None:
    figures = long.check(database_url, tmp_path, number=SEED, examples=EXAMPLES)
    assert figures["examples"] >= EXAMPLES
    assert figures["rotations"] > EXAMPLES
    assert figures["crashes"] > 0
