"""`python -m bench.plots NAME`: the picture of a run that was kept, results/NAME.png. Wants matplotlib (`make bench`)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.results import FOLDER, read

_GOOD, _BAD, _LIMIT = "#2a6f97", "#c1121f", "#333333"


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Ratios beside their limits; the costs of a request; latency after an overload; memory under load."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, ((ratios, costs), (overload, memory)) = pyplot.subplots(2, 2, figsize=(13, 8))
    _ratios(ratios, results)
    _costs(costs, results)
    _overload(overload, results["overload"])
    _memory(memory, results["memory"])
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _ratios(axes: Any, results: Mapping[str, Any]) -> None:
    """Each in parts of its limit, so that one line is all of theirs."""
    limits = results["limits"]
    names = list(results["ratios"])
    for row, name in enumerate(names):
        ratio, limit = results["ratios"][name], limits[name]
        color = _GOOD if ratio["median"] <= limit else _BAD
        axes.barh(row, ratio["median"] / limit, color=color)
        axes.plot([ratio["least"] / limit, ratio["most"] / limit], [row, row], color=_LIMIT)
        axes.annotate(
            f" {ratio['median']:.2f} (≤ {limit:g})", (ratio["most"] / limit, row), va="center", fontsize=8
        )
    axes.axvline(1, color=_LIMIT, linestyle="--")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(left=0.1)
    axes.tick_params(axis="x", which="minor", labelbottom=False)
    axes.set_title("CPU ratios, as parts of their limits (median, least to most)")
    axes.invert_yaxis()
    axes.margins(x=0.3)


def _costs(axes: Any, results: Mapping[str, Any]) -> None:
    rounds = {name: each for compared in results["fetches"] for name, each in compared["rounds"].items()}
    names = list(rounds)
    cpu = [rounds[name]["cpu"] for name in names]
    axes.barh(names, cpu, color=_GOOD, label="server")
    axes.barh(
        names, [rounds[name]["postgres"] for name in names], left=cpu, color="#a9d6e5", label="PostgreSQL"
    )
    axes.set_xscale("log")
    axes.set_xlim(left=min(cpu) / 5)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_title("CPU of a request, microseconds")
    axes.legend(fontsize=8)
    axes.invert_yaxis()


def _overload(axes: Any, overload: Mapping[str, Any] | None) -> None:
    axes.set_title("Overload: requests a second")
    if overload is None:
        return _absent(axes)
    kinds = {"peak": "peak", "offered": "offered", "goodput": "answered well", "in_time": "within 1 s"}
    axes.bar(list(kinds.values()), [overload[kind] for kind in kinds], color=_GOOD)
    axes.axhline(0.8 * overload["peak"], color=_LIMIT, linestyle="--", label="80 % of the peak")
    axes.set_yscale("log")
    axes.set_ylim(bottom=overload["peak"] / 100)
    axes.legend(fontsize=8)
    return None


def _memory(axes: Any, memory: Mapping[str, Any] | None) -> None:
    axes.set_title("Resident megabytes, every ten seconds of load")
    if memory is None or not memory["under_load"]:
        return _absent(axes)
    seconds = [10 * (number + 1) for number in range(len(memory["under_load"]))]
    axes.plot(seconds, memory["under_load"], color=_GOOD)
    axes.axhline(memory["after_start"], color=_LIMIT, linestyle="--", label="after the start")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    return None


def _absent(axes: Any) -> None:
    axes.text(0.5, 0.5, "left out", ha="center", va="center", transform=axes.transAxes)
    axes.set_axis_off()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.plots", description="Draws results that were kept."
    )
    parser.add_argument("name", nargs="?", default="latest")
    name = parser.parse_args().name
    draw(read(FOLDER / f"{name}.json"), FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
