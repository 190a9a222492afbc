"""What growth costs: kept as JSON, and shown as tables beside it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "results"
_LIMITS = {"cold fetch": "1.10", "census of all grants": "none"}
_LIMIT_OF_SEARCHES = "1.20"

Summary = dict[
    str, dict[str, float]
]  # by size: the median and the 95th percentile, milliseconds, and the ratio


def summed_up(by_size: Mapping[int, list[float]]) -> Summary:
    """`ratio`: of the median to that of the smallest size."""
    least = statistics.median(by_size[min(by_size)])
    return {
        str(size): {
            "p50": round(statistics.median(times), 3),
            "p95": round(statistics.quantiles(times, n=20)[-1], 3),
            "ratio": round(statistics.median(times) / least, 3),
            "samples": len(times),
        }
        for size, times in sorted(by_size.items())
    }


def keep(section: str, found: Mapping[str, Any]) -> str:
    """Keeps what was found in place of what the section had; the page of all sections."""
    _FOLDER.mkdir(exist_ok=True)
    file = _FOLDER / "growth.json"
    sections = json.loads(file.read_text()) if file.exists() else {}
    sections[section] = found
    file.write_text(json.dumps(sections, indent=1) + "\n")
    page = "\n".join(_page(sections)) + "\n"
    (_FOLDER / "growth.md").write_text(page)
    return page


def _page(sections: Mapping[str, Any]) -> Iterator[str]:
    yield "# Growth"
    if "sizes" in sections:
        yield from _sizes(sections["sizes"])
    if "migrations" in sections:
        yield from _migrations(sections["migrations"], sections.get("migrations_of_another_release"))


def _sizes(found: Mapping[str, Summary]) -> Iterator[str]:
    yield from (
        "",
        "`make bench-growth`. All sizes side by side in one PostgreSQL 18, asked in turn in random order. A twentieth of the",
        "grants is due; what is taken is put back. Ratios are of medians, to the smallest size. The census, behind `/health-check` and",
        "`/metrics`, reads all grants; it is repeated no sooner than after twenty times its own time, a minute at most.",
        "",
        "| | grants | p50, ms | p95, ms | ratio | limit |",
        "|---|---|---|---|---|---|",
    )
    for name, sizes in found.items():
        limit = _LIMITS.get(name, _LIMIT_OF_SEARCHES)
        for size, each in sizes.items():
            yield (
                f"| {name} | {int(size):,} | {each['p50']:.3f} | {each['p95']:.3f} | {each['ratio']:.3f} | {limit} |"
            )


def _migrations(found: Mapping[str, Any], of_another: Mapping[str, Any] | None) -> Iterator[str]:
    yield from (
        "",
        "## Migrations",
        "",
        f"`python -m bench.migrating`: {found['grants']:,} grants, as many refresh attempts and audit events, while two readers fetch",
        "by key and two writers write as a refresh does, each with a pause of 5 ms. The longest that one of them had to wait for its",
        "answer; `none` is a time without a migration.",
        "",
        "| revision | takes, s | longest read, ms | longest write, ms |",
        "|---|---|---|---|",
    )
    yield from _steps(found["steps"])
    if of_another is not None:
        yield from ("", "All in one transaction, as they were at first (`--checkout`):", "")
        yield from ("| revision | takes, s | longest read, ms | longest write, ms |", "|---|---|---|---|")
        yield from _steps(of_another["steps"])


def _steps(steps: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    for name, each in steps.items():
        yield f"| {name} | {each['seconds']:.1f} | {each['longest_read']:,.0f} | {each['longest_write']:,.0f} |"
