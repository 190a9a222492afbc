"""Licences as installed metadata tell them, in SPDX's words."""

from __future__ import annotations

import re
from importlib.metadata import Distribution

# What is found in older metadata, and what it means.
_KNOWN = {
    "apache 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd 2-clause license": "BSD-2-Clause",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}
# The first line of a licence's text, where the metadata hold all of it and nothing shorter.
_TEXTS = {"Redistribution and use in source and binary forms": "BSD-3-Clause"}
_IDENTIFIER = re.compile(r"[A-Za-z0-9.+-]+")
_OPERATOR = re.compile(r"\s+(AND|OR)\s+")


def licence_of(distribution: Distribution) -> str | None:
    """An SPDX expression; None where the metadata tell nothing that is understood."""
    [*_, expression] = ["", *_fields(distribution, "License-Expression")]
    if expression:
        return expression
    [*_, told] = ["", *_fields(distribution, "License")]
    classifiers = [
        each.rpartition(" :: ")[2]
        for each in _fields(distribution, "Classifier")
        if each.startswith("License")
    ]
    for candidate in (told, *classifiers):
        named = _KNOWN.get(candidate.lower(), candidate)
        if _IDENTIFIER.fullmatch(named):
            return named
    return next((name for beginning, name in _TEXTS.items() if beginning in told), None)


def _fields(distribution: Distribution, name: str) -> list[str]:
    return [str(each).strip() for each in distribution.metadata.get_all(name) or []]


def is_allowed(expression: str, allowed: frozenset[str]) -> bool:
    """Whether one may choose an allowed licence of each `AND`. Parentheses are not understood, so not allowed."""
    parts = _OPERATOR.split(expression)
    terms, operators = parts[::2], parts[1::2]
    if len(set(operators)) > 1:
        return False
    judged = [term in allowed for term in terms]
    return any(judged) if "OR" in operators else all(judged)
