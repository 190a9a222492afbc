"""What bench/ makes of what it measures, and whom it compares the service with. No time is judged here."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from app.api.tokens import TokenAnswer
from bench.accounting import cpu_seconds, family, forget_peak, peak_megabytes, resident_megabytes
from bench.calendars import FirstSyncs, Resident
from bench.fetches import Compared
from bench.flame import without_places
from bench.footprint import Memory, Starts
from bench.load import Load, Outcome, Second, Tally
from bench.measure import Candidate, Ratio, Round, alternate, as_round, median, ratio
from bench.overload import told
from bench.proxied import Proxied, Streamed
from bench.refreshes import Cost, Refreshes, Worked
from bench.results import LIMITS, Results, here
from bench.stage import Driver, Stage
from tests.broker import free_port

ROOT = Path(__file__).parents[2]


_BUSY = """
import sys, threading, time

def spin():
    while time.process_time() < 0.5:
        pass

def spin_and_stay():
    spin()
    sys.stdin.read()

other = threading.Thread(target=spin_and_stay)
print("up", flush=True)
other.start()
spin()
print("done", flush=True)
other.join()
"""


_LARGE = """
import sys
len(b"x" * int(sys.argv[1]))
print("done", flush=True)
sys.stdin.read()
"""


def test_the_account_of_a_process_is_that_of_all_its_threads_and_of_nobody_else() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        ours, theirs = cpu_seconds([os.getpid()]), cpu_seconds([process.pid])
        process.stdout.readline()
        spent = cpu_seconds([process.pid]) - theirs
        assert spent > 0.35  # of half a second, its start included
        assert cpu_seconds([os.getpid()]) - ours < spent
        assert process.pid in set(family(os.getpid()))
        assert 1 < resident_megabytes(process.pid) < 1000
        process.stdin.close()
    assert cpu_seconds([process.pid]) == 0


def rounds(*cpu: float) -> list[Round]:
    return [Round(each, 1.0, 1000.0, 1.0, 2.0) for each in cpu]


def test_a_ratio_is_of_the_two_rounds_that_stood_beside_each_other() -> None:
    found = {"one": rounds(10, 40, 30), "other": rounds(10, 20, 10)}
    assert ratio(found, "one", "other") == Ratio(median=2.0, least=1.0, most=3.0)
    assert median(found["one"]).cpu == 30
    with pytest.raises(ValueError, match="zip"):
        Ratio.of([1.0], [1.0, 2.0])


def test_a_round_tells_microseconds_of_each_request_that_was_answered() -> None:
    outcome = Outcome(seconds=2.0, offered=101, statuses={200: 100}, p50=1.5, p99=2.5)
    assert as_round(outcome, 0.5, 0.25) == Round(cpu=5000, postgres=2500, rate=50, p50=1.5, p99=2.5)


class Turns:
    """A stage without anything on it but the order in which loads were sent."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        self.driver = self

    @contextmanager
    def connected(self, load: Load) -> Iterator[None]:
        self.ports.append(load.port)
        yield

    def finish(self) -> Outcome:
        return Outcome(seconds=1.0, offered=1, statuses={200: 1})

    def send(self, load: Load) -> None:
        self.ports.append(-load.port)

    def postgres_seconds(self) -> float:
        return 0.0


def test_candidates_go_in_turn_forwards_and_backwards_after_a_round_that_does_not_count() -> None:
    turns = Turns()
    candidates = [Candidate(str(port), os.getpid(), lambda port=port: Load(port, "/")) for port in (1, 2)]  # type: ignore[misc]
    found = alternate(cast(Stage, turns), candidates, rounds=3)
    assert turns.ports == [-1, -2, 1, 2, 2, 1, 1, 2]
    assert [len(each) for each in found.values()] == [3, 3]


def test_the_tally_of_a_second_has_what_was_in_time() -> None:
    tally = Tally(in_time=1.0, good=[(0.2, 0.001), (0.4, 0.003), (2.5, 1.5), (2.6, 0.5)])
    assert tally.outcome(3.0).each_second == [Second(2, 2, 3.0), Second(0, 0, 0.0), Second(2, 1, 1500.0)]


def outcome(*seconds: tuple[int, float], **more: Any) -> Outcome:
    each = [Second(good, good, p50) for good, p50 in seconds]
    good = sum(good for good, _ in seconds)
    return Outcome(**{"seconds": 3.0, "offered": good, "statuses": {200: good}, "each_second": each, **more})


@pytest.mark.parametrize(
    ("afterwards", "after"),
    [
        (((100, 1.0), (100, 1.0), (100, 1.0)), 0.5),
        (((100, 90.0), (100, 1.0), (100, 1.0)), 1.5),
        (((10, 1.0), (100, 1.0), (100, 1.0)), 1.5),  # most were not answered
        (((100, 1.0), (0, 0.0), (100, 1.0)), None),  # and it was not over
        (((100, 9.0), (100, 9.0), (100, 1.0)), None),  # the last second is not a whole one
    ],
)
def test_an_overload_is_over_when_all_is_well_and_stays_so(
    afterwards: tuple[tuple[int, float], ...], after: float | None
) -> None:
    flooded = outcome((900, 50.0), (700, 60.0), (5, 1.0), seconds=2.5, unsaid=3, lost=2)
    load = Load(1, "/", rate=10_000.0, seconds=2.0)
    found = told(1000.0, outcome((100, 1.0)), load, flooded, outcome(*afterwards), probe=0.5, busy=0.9)
    assert (found.goodput, found.kept, found.recovered_after) == (800.0, 0.8, after)
    assert (found.unsaid, found.dropped) == (3, 2)


def test_memorys_first_minute_is_compared_with_its_last() -> None:
    assert Memory(100.0, under_load=[*[200.0] * 6, *[250.0] * 6, *[203.0] * 6]).grown == 3.0
    assert Memory(100.0, under_load=[100.0] * 11).grown is None


def results() -> Results:
    one = Round(1.0, 2.0, 3.0, 4.0, 5.0)
    ratios = {name: Ratio(1.0, 0.5, 2.0) for name in LIMITS if " / " in name and "refresh" not in name}
    for name in (
        "time for due grants / ideal",
        "goodput in overload / peak",
        "first sync / reading and COPY",
    ):
        del ratios[name]
    cost = Cost(1.0, 2.0, 3.0, 4.0, 5.0)
    return Results(
        here("18.6"),
        rounds=5,
        fetches=[Compared({"hot": one}, ratios)],
        refreshes=Refreshes(cost, cost, Ratio(1.0, 0.5, 2.0)),
        due=Worked(5000, 64, 0.5, 45.0, 39.0, 20.0),
        memory=Memory(100.0, 200.0, 100_000, [150.0] * 60),
        starts=Starts([1.0, 1.5, 1.2], 0.9, 0.8, Memory(100.0)),
        overload=told(
            1000.0,
            outcome((100, 1.0)),
            Load(1, "/", rate=1e4),
            outcome((900, 1.0)),
            outcome(),
            probe=None,
            busy=0.9,
        ),
        calendars=first_syncs(140.0, 143.0),
        proxied=Proxied(Compared({}, {}), [Streamed("an answer", 100.0, 103.0)]),
    )


def first_syncs(*peaks: float) -> FirstSyncs:
    resident = [Resident(5000, 120.0, peak, 130.0) for peak in peaks]
    ratio = Ratio(1.0, 0.5, 2.0)
    return FirstSyncs(5000, 0.3, 0.2, {"read": 0.1, "copied": 0.1}, 0.2, 0.6, ratio, ratio, resident)


def test_memory_of_syncs_is_compared_by_its_peaks() -> None:
    assert first_syncs(140.0, 143.0).grown == 3.0
    assert first_syncs(140.0).grown is None


def test_the_peak_of_a_process_is_forgotten_when_that_is_asked_for() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _LARGE, "100000000"], stdout=subprocess.PIPE, stdin=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        assert peak_megabytes(process.pid) > resident_megabytes(process.pid) + 50
        forget_peak(process.pid)
        assert peak_megabytes(process.pid) < resident_megabytes(process.pid) + 50
        process.stdin.close()


def test_a_table_names_each_limit_and_neither_the_machine_nor_a_folder() -> None:
    table = results().table()
    for name in LIMITS:
        assert f"| {name} |" in table
    kept = json.loads(results().as_json())
    assert kept["figures"]["seconds until ready"] == 1.2
    assert kept["ratios"].keys() | kept["figures"].keys() == LIMITS.keys()
    for text in (table, results().as_json()):
        assert "/home" not in text
        assert os.getcwd() not in text
        assert socket.gethostname() not in text


def test_flame_graphs_name_files_from_their_package_on() -> None:
    svg = '<text id="title" x="5">py-spy record --pid 7</text><title>a (/opt/v/lib/python3.11/site-packages/uvicorn/main.py:7)'
    assert (
        without_places(svg, "A fetch") == '<text id="title" x="5">A fetch</text><title>a (uvicorn/main.py:7)'
    )
    kept = list((ROOT / "docs" / "performance").glob("*.svg"))
    assert kept
    for path in kept:
        titles = re.findall(r"<(?:title|text)[^>]*>([^<]*)", path.read_text())
        assert len(titles) > 100
        assert [title for title in titles if re.search(r"\(/|site-packages|--pid", title)] == []


@pytest.mark.parametrize("kind", ["bare", "route"])
def test_a_reference_server_answers_what_the_service_answers(kind: str) -> None:
    port, driver = free_port(), Driver()
    with subprocess.Popen([sys.executable, "-m", "bench.reference", kind, "--port", str(port)]) as process:
        try:
            assert _first_answer(port).keys() == TokenAnswer.model_fields.keys()
            found = driver.send(Load(port, "/tokens/graced/hot-0", most=20, seconds=30))
        finally:
            process.terminate()
            driver.close()
    assert found.statuses == {200: 20}


def _first_answer(port: int) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while True:
        try:
            answered = httpx.get(f"http://127.0.0.1:{port}/tokens/graced/hot-0")
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return cast(dict[str, Any], answered.raise_for_status().json())


@pytest.mark.parametrize(
    "module", ["bench", "bench.capacity", "bench.flame", "bench.foreign", "bench.plots", "bench.reference"]
)
def test_each_command_says_how_it_is_used(module: str) -> None:
    """Without matplotlib and py-spy, which `make bench` brings."""
    ran = subprocess.run(
        [sys.executable, "-m", module, "--help"], stdout=subprocess.PIPE, text=True, check=True
    )
    assert ran.stdout.startswith(f"usage: python -m {module}")
