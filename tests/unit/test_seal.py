"""A sealed value opens at its own place, under its own key, unchanged; and in no other way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.vault.seal import KEY_BYTES, CannotOpen, Place, key_id_of, open_sealed, seal

KEY_ID = UUID("019b0000-0000-7000-8000-000000000001")
OTHER_ID = UUID("019b0000-0000-7000-8000-000000000002")
KEY = bytes(range(KEY_BYTES))
PLACE = Place("grants", UUID("019b0000-0000-7000-8000-00000000000a"), "refresh_token", 7)
SEALED = seal(KEY_ID, KEY, b"a refresh token", PLACE)


@given(st.binary(max_size=5000))
def test_what_was_sealed_opens(plaintext: bytes) -> None:
    sealed = seal(KEY_ID, KEY, plaintext, PLACE)
    assert open_sealed(KEY, sealed, PLACE) == plaintext
    assert key_id_of(sealed) == KEY_ID


@given(st.binary(min_size=8))
def test_nothing_of_the_plaintext_shows(plaintext: bytes) -> None:
    assert plaintext not in seal(KEY_ID, KEY, plaintext, PLACE)


def test_two_seals_of_one_value_differ() -> None:
    assert len({seal(KEY_ID, KEY, b"same", PLACE) for _ in range(1000)}) == 1000


def test_each_seal_has_a_nonce_of_its_own() -> None:
    assert len({seal(KEY_ID, KEY, b"same", PLACE)[17:29] for _ in range(1000)}) == 1000


@pytest.mark.parametrize("position", range(len(SEALED)))
def test_no_byte_can_be_changed(position: int) -> None:
    for bit in range(8):
        changed = bytearray(SEALED)
        changed[position] ^= 1 << bit
        with pytest.raises(CannotOpen):
            open_sealed(KEY, bytes(changed), PLACE)


@pytest.mark.parametrize("length", range(len(SEALED)))
def test_no_part_of_it_opens(length: int) -> None:
    with pytest.raises(CannotOpen):
        open_sealed(KEY, SEALED[:length], PLACE)


@pytest.mark.parametrize("more", [b"\0", b"more", SEALED], ids=["NUL", "text", "itself"])
def test_nothing_can_be_added(more: bytes) -> None:
    for longer in (SEALED + more, more + SEALED):
        with pytest.raises(CannotOpen):
            open_sealed(KEY, longer, PLACE)


@pytest.mark.parametrize(
    "changes",
    [
        {"table": "grant_candidates"},
        {"row_id": UUID("019b0000-0000-7000-8000-00000000000b")},
        {"field": "access_token"},
        {"generation": 6},
        {"generation": 8},
        {"generation": 77},
        {"table": "grants|x", "field": "x"},
    ],
    ids=str,
)
def test_it_opens_at_no_other_place(changes: dict[str, Any]) -> None:
    with pytest.raises(CannotOpen, match="does not open"):
        open_sealed(KEY, SEALED, replace(PLACE, **changes))


def test_it_opens_under_no_other_key() -> None:
    with pytest.raises(CannotOpen):
        open_sealed(KEY[::-1], SEALED, PLACE)


def test_it_cannot_be_passed_off_as_sealed_under_another_key_id() -> None:
    renamed = SEALED[:1] + OTHER_ID.bytes + SEALED[17:]
    assert key_id_of(renamed) == OTHER_ID
    with pytest.raises(CannotOpen):
        open_sealed(KEY, renamed, PLACE)


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\x01", b"\x02" + SEALED[1:], bytes(60), b"not sealed at all, but long enough to be so"],
    ids=["nothing", "a version", "another version", "zeros", "text"],
)
def test_what_was_never_sealed_has_no_key_id(garbage: bytes) -> None:
    with pytest.raises(CannotOpen):
        key_id_of(garbage)
    with pytest.raises(CannotOpen):
        open_sealed(KEY, garbage, PLACE)


@given(st.binary(max_size=200))
def test_garbage_never_opens_and_never_breaks(garbage: bytes) -> None:
    for text in (garbage, b"\x01" + garbage, SEALED[:29] + garbage):
        with pytest.raises(CannotOpen):
            open_sealed(KEY, text, PLACE)


def test_the_error_names_the_place_and_no_secret() -> None:
    with pytest.raises(CannotOpen) as caught:
        open_sealed(KEY[::-1], SEALED, PLACE)
    assert str(caught.value) == f"grants.refresh_token of {PLACE.row_id} does not open"
