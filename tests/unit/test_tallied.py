"""Observations told together are what the histogram would have made of them one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from app.tallied import Tallied

BUCKETS = (0.001, 0.5, 1.0, 30.0)


@given(st.lists(st.lists(st.sampled_from([0.0, 0.001, 0.0011, 0.5, 0.75, 1.0, 29.0, 30.0, 31.0, 64.0]))))
def test_told_together_they_are_what_they_are_one_by_one(rounds: list[list[float]]) -> None:
    told, direct = CollectorRegistry(), CollectorRegistry()
    tallied = Tallied(Histogram("seconds", "x", ["route"], buckets=BUCKETS, registry=told).labels("a"))
    histogram = Histogram("seconds", "x", ["route"], buckets=BUCKETS, registry=direct).labels("a")
    for amounts in rounds:
        for amount in amounts:
            tallied.observe(amount)
            histogram.observe(amount)
        tallied.tell()
    # Sums as far as the order of adding up leaves them the same.
    shown = {name: pytest.approx(value) for name, value in _shown(told).items()}
    assert _shown(direct) == shown


def _shown(registry: CollectorRegistry) -> dict[str, float]:
    lines = [
        line.rsplit(" ", 1) for line in generate_latest(registry).decode().splitlines() if line[0] != "#"
    ]
    return {name: float(value) for name, value in lines}
