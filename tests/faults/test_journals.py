"""What is seen of journals from outside: every answer that was in one for a while, and no secret that was readable."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from app.grants.grant import Trigger
from app.grants.journal_record import Entry, encode, encode_done
from tests.faults.journals import Journals

ENTRY = Entry(
    attempt_id=UUID(int=1),
    epoch=1,
    grant_id=UUID(int=2),
    provider="sandbox",
    lineage_id=UUID(int=3),
    generation=1,
    base_fingerprint=b"f" * 32,
    trigger=Trigger.REQUEST,
    sealed=b"\x01 nobody can read this",
    received_at=datetime(2026, 1, 1, tzinfo=UTC),
    took=timedelta(seconds=0.2),
)
OTHER = replace(ENTRY, attempt_id=UUID(int=4))
TOKEN = b"srt_" + b"a" * 32


def test_an_entry_is_remembered_though_it_is_settled_and_its_file_emptied(tmp_path: Path) -> None:
    file, journals = tmp_path / "replica-0.journal", Journals(tmp_path)
    file.write_bytes(encode(ENTRY))
    journals.look()
    file.write_bytes(encode(ENTRY) + encode_done(ENTRY.attempt_id))
    journals.look()
    assert journals.outstanding() == {file.name: 0}
    file.write_bytes(b"")
    journals.look()
    file.write_bytes(encode(OTHER))
    journals.look()
    assert set(journals.entries) == {ENTRY.attempt_id, OTHER.attempt_id}
    assert journals.outstanding() == {file.name: 1}
    file.unlink()
    journals.look()
    assert journals.outstanding() == {}


def test_a_secret_is_found_as_it_is_and_in_what_should_be_sealed_settled_or_not(tmp_path: Path) -> None:
    file, journals = tmp_path / "replica-0.journal", Journals(tmp_path)
    file.write_bytes(encode(ENTRY))
    journals.look()
    assert journals.secrets == set()
    file.write_bytes(
        encode(replace(ENTRY, sealed=b'{"refresh_token": "' + TOKEN + b'"}')) + encode_done(ENTRY.attempt_id)
    )
    anew = Journals(tmp_path)
    anew.look()
    assert anew.secrets == {TOKEN}
    (tmp_path / "replica-1.journal").write_bytes(b"junk " + TOKEN[:-1] + b"b junk")
    anew.look()
    assert anew.secrets == {TOKEN, TOKEN[:-1] + b"b"}


def test_nothing_is_seen_where_no_folder_is(tmp_path: Path) -> None:
    journals = Journals(tmp_path / "none")
    journals.look()
    assert journals.outstanding() == {} == journals.entries
