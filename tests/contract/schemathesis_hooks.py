"""Loaded by `st run`, in the tools' venv: each request comes from an address of its own, since wrong keys are counted by address."""

from __future__ import annotations

import random
from ipaddress import IPv4Address
from typing import Any

import schemathesis

_FIRST = int(IPv4Address("198.18.0.0"))  # RFC 2544: of no network


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    address = IPv4Address(_FIRST + random.randrange(1 << 17))
    case.headers = {**(case.headers or {}), "X-Forwarded-For": str(address)}
