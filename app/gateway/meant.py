"""Which answers are to be forgotten, and how one replica says so to another. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from uuid import UUID

from app.grants.grant import GrantKey
from app.oauth.resources import Segments, is_below, segments

_LONGEST_PATH = 2000  # what PostgreSQL passes on ends at 8000 bytes


@dataclass(frozen=True)
class Meant:
    """Answers that agree in all that is given: those at and below `path`. `is_unsure`: they may change yet, at any moment."""

    path: str = "/"
    grant_id: str | None = None
    provider: str | None = None
    user_id: str | None = None
    account: str | None = None
    is_unsure: bool = False

    def covers(self, grant_id: UUID, of: GrantKey, path: Segments) -> bool:
        """Whether an answer to a GET of that path for that grant is meant."""
        return (
            self.grant_id in {None, str(grant_id)}
            and self.provider in {None, of.provider}
            and self.user_id in {None, of.user_id}
            and self.account in {None, of.account}
            and is_below(path, segments(self.path))
        )

    def told_by(self, replica: str) -> str:
        """What others are told. A path that is too long is told as the whole of the API."""
        fields = {name: value for name, value in asdict(self).items() if value not in {None, False}}
        if len(self.path) > _LONGEST_PATH:
            fields["path"] = "/"
        return json.dumps({**fields, "by": replica}, ensure_ascii=False)


def heard(text: str) -> tuple[str, Meant]:
    """Who says so, and what. Where that is of a release that says it otherwise: everything."""
    try:
        fields = json.loads(text)
        return str(fields.pop("by")), Meant(**fields)
    except (ValueError, TypeError, KeyError, AttributeError):
        return "", Meant()
