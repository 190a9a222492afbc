"""`/tokens/batch`: many tokens at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from app.api.access import as_seen, consumer_with
from app.api.deps import Body, OpaqueName, WaitQuery
from app.api.problems import Problem, problem_of, responses
from app.api.services import Services, Use
from app.api.tokens import TokenAnswer, answer_of, disclosure_of
from app.consumers.consumer import Consumer, Scope
from app.errors import BrokerError
from app.grants.grant import DEFAULT_ACCOUNT, GrantKey, not_found
from app.grants.token import Need, Token
from app.telemetry import note

router = APIRouter(tags=["Tokens"])

MOST_ITEMS = 100


class BatchItem(Body):
    """What a fetch of one token names in its path and query."""

    provider: str = Field(
        max_length=63,
        description="An OAuth client registration, called like its catalogue entry.",
        examples=["google"],
    )
    user_id: OpaqueName = Field(description="Your name for the user.", examples=["user-42"])
    account: OpaqueName = Field(
        default=DEFAULT_ACCOUNT, description="Tells several accounts of one user at one provider apart."
    )
    min_ttl: int = Field(
        default=60, ge=0, le=86400, strict=True, description="Seconds the token must still be good for."
    )
    scope: str = Field(
        default="",
        max_length=4096,
        description="Space-separated scopes without which no token is of use.",
    )


class BatchBody(Body):
    """The tokens that are wanted."""

    items: list[BatchItem] = Field(min_length=1, max_length=MOST_ITEMS)


class BatchToken(BaseModel):
    """An item that succeeded."""

    status: Literal[200]
    token: TokenAnswer


class BatchProblem(BaseModel):
    """An item that failed."""

    status: int = Field(description="The status that a fetch of its own would have had.")
    problem: Problem


class BatchAnswer(BaseModel):
    """A token or a problem for each item."""

    items: list[BatchToken | BatchProblem] = Field(description="In the order of the request.")


@router.post("/tokens/batch", summary="Fetch many tokens", responses=responses())
async def get_tokens(
    body: BatchBody,
    request: Request,
    services: Use,
    response: Response,
    consumer: Annotated[Consumer, Depends(consumer_with(Scope.TOKENS_READ))],
    wait: WaitQuery = 30,
) -> BatchAnswer:
    """Up to 100 tokens. Each item succeeds or fails for itself, with what a fetch of its own would have answered."""

    async def fetch(item: BatchItem, key: GrantKey | BrokerError) -> Token | BatchProblem:
        try:
            if isinstance(key, BrokerError):
                raise key
            if key in absent:
                raise not_found(key)
            need = Need(min_ttl=timedelta(seconds=item.min_ttl))
            return await services.refresher.fresh(key, need, scope=item.scope, wait=timedelta(seconds=wait))
        except BrokerError as error:
            return _problem(request, error)

    response.headers["Cache-Control"] = "no-store"
    keys = [_key_seen(services, consumer, item) for item in body.items]
    absent = await services.known.load([key for key in keys if isinstance(key, GrantKey)])
    fetched = await asyncio.gather(*map(fetch, body.items, keys))
    refused = await _recorded_or_refused(request, services, consumer, fetched)
    items = [
        (refused or BatchToken(status=200, token=answer_of(each, services, response)))
        if isinstance(each, Token)
        else each
        for each in fetched
    ]
    note(items=len(items), failed=sum(item.status != 200 for item in items))
    return BatchAnswer(items=items)


def _key_seen(services: Services, consumer: Consumer, item: BatchItem) -> GrantKey | BrokerError:
    """As `as_seen` has it, with what that raises as an item's own failure."""
    try:
        return as_seen(services, consumer, GrantKey(item.provider, item.user_id, item.account))
    except BrokerError as error:
        return error


async def _recorded_or_refused(
    request: Request, services: Services, consumer: Consumer, fetched: Sequence[Token | BatchProblem]
) -> BatchProblem | None:
    """Has all tokens of a batch on record; else what is answered in place of each of them."""
    try:
        await services.disclosures.given(
            [disclosure_of(consumer, each) for each in fetched if isinstance(each, Token)]
        )
    except BrokerError as error:
        return _problem(request, error)
    return None


def _problem(request: Request, error: BrokerError) -> BatchProblem:
    problem = problem_of(request, error)
    return BatchProblem(status=problem.status, problem=problem)
