"""What services ask to be delivered: the bodies of `POST /deliveries` and `POST /deliveries/batches`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header
from pydantic import AfterValidator, Field, field_validator

from app.api.deps import Moment, OpaqueName
from app.api.json_text import JsonText
from app.api.verbatim import AnyJson, Records, VerbatimBody
from app.deliveries.delivery import Content
from app.deliveries.wanted import (
    DEFAULT_ATTEMPTS,
    MAX_ATTEMPTS,
    METHODS,
    Wanted,
    WantedBatch,
    checked_headers,
    checked_path,
    with_body,
)
from app.errors import ValidationFailed
from app.grants.grant import DEFAULT_ACCOUNT, GrantKey

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Yours. The same request with the same key within 24 hours is not carried out twice: it answers what the "
        "first one made, with `Idempotency-Replayed: true`. With another request it is a `conflict`.",
        examples=["order-4711"],
    ),
]
Method = Annotated[str, Field(json_schema_extra={"enum": list(METHODS)})]
StatusCode = Annotated[int, Field(ge=400, le=599, strict=True)]
Path = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2048,
        description="Below the provider's `api.base_url`, with the query if there is one: `/crm/v3/contacts`.",
    ),
    AfterValidator(checked_path),
]
Headers = Annotated[
    dict[str, str],
    Field(
        description="Sent as they are. Refused are those of the connection, of credentials and `Idempotency-Key`: the token "
        "and the delivery's own id are sent in them."
    ),
]


class _Asked(VerbatimBody):
    provider: str = Field(max_length=64, description="An OAuth client registration.")
    user_id: OpaqueName = Field(description="Your name for the user, whose grant's token is sent.")
    account: OpaqueName = Field(
        default=DEFAULT_ACCOUNT, description="Tells several accounts of one user at one provider apart."
    )
    method: Method
    path: Path
    headers: Headers = Field(default={})
    max_attempts: int = Field(
        default=DEFAULT_ATTEMPTS, ge=1, le=MAX_ATTEMPTS, strict=True, description="After which it is dead."
    )
    retry_on: list[StatusCode] = Field(
        default=[], max_length=50, description="Statuses that are tried again, whatever they mean elsewhere."
    )

    @field_validator("method")
    @classmethod
    def _is_one(cls, method: str) -> str:
        if method not in METHODS:
            raise ValueError(f"must be one of {', '.join(METHODS)}")
        return method

    @field_validator("headers")
    @classmethod
    def _may_be_sent(cls, headers: dict[str, str]) -> dict[str, str]:
        return dict(checked_headers(headers))

    @property
    def key(self) -> GrantKey:
        return GrantKey(self.provider, self.user_id, self.account)

    @property
    def target(self) -> tuple[str, str | None]:
        """The path, and the query, which may hold what is sealed only; None: there is none."""
        path, mark, query = self.path.partition("?")
        return path, query if mark else None

    @property
    def statuses(self) -> tuple[int, ...] | None:
        return tuple(sorted(set(self.retry_on))) or None


class DeliveryBody(_Asked):
    """A call that has to arrive."""

    body: AnyJson | None = Field(
        default=None,
        description="Sent as JSON, as it is written here; a string goes as it is where `headers` has a Content-Type.",
    )
    not_before: Moment | None = Field(
        default=None, description="When it is sent first, 30 days ahead at most; left out: at once."
    )

    def wanted(self) -> Wanted:
        """Raises ValidationFailed."""
        path, query = self.target
        return Wanted(
            self.key,
            self.method,
            path,
            Content(*_sent(tuple(self.headers.items()), self.body), query=query),
            self.not_before,
            self.max_attempts,
            self.statuses,
        )

    def parameters(self) -> dict[str, Any]:
        """All but the body."""
        return self.model_dump(exclude={"body"})


class DeliveryBatchBody(_Asked):
    """Many records that have to arrive, some at a time."""

    records: Records = Field(description="Each is sent as it is written here.")
    records_per_request: int = Field(
        ge=1, le=10_000, strict=True, description="How many go into one request; 1 MiB of it at most."
    )
    concurrency: int = Field(
        ge=1, le=100, strict=True, description="How many requests are under way at once, over all replicas."
    )
    wrap: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description='The name of the field around the records: `inputs` sends `{"inputs": [...]}`. Left out: an array is sent.',
    )

    def wanted(self) -> WantedBatch:
        """Raises ValidationFailed."""
        headers, _ = _sent(tuple(self.headers.items()), JsonText("[]", None))
        path, query = self.target
        wanted = WantedBatch(
            self.key,
            self.method,
            path,
            headers,
            self.records.texts,
            self.records_per_request,
            self.concurrency,
            self.wrap,
            query,
            self.max_attempts,
            self.statuses,
        )
        try:
            wanted.require_small_chunks()
        except ValueError as error:
            raise _mistake("body.records_per_request", error) from None
        return wanted

    def parameters(self) -> dict[str, Any]:
        """All but the records."""
        return self.model_dump(exclude={"records"})


def _sent(
    headers: tuple[tuple[str, str], ...], body: JsonText | None
) -> tuple[tuple[tuple[str, str], ...], str | None]:
    try:
        if body is not None and isinstance(body.value, str):
            body.value.encode()
        return with_body(
            headers,
            json_text=None if body is None else body.text,
            text=None if body is None else body.value,
        )
    except UnicodeEncodeError:
        raise _mistake("body.body", ValueError("must not contain half of a surrogate pair")) from None
    except ValueError as error:
        raise _mistake("body.body", error) from None


def _mistake(field: str, error: ValueError) -> ValidationFailed:
    return ValidationFailed(f"The request is not valid. {field}: {error}", fields={field: str(error)})
