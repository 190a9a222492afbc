"""`/cache`: the answers of providers' APIs that the gateway keeps: how many, of what use, and away with them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.api.access import Admin, as_seen, consumer_with
from app.api.deps import OpaqueName
from app.api.problems import responses
from app.api.services import Services, Use
from app.consumers.consumer import Consumer, Scope
from app.errors import Forbidden
from app.gateway.counts import Counts, Outcome
from app.gateway.meant import Meant
from app.grants.grant import DEFAULT_ACCOUNT, GrantKey
from app.oauth.resources import LONGEST_PATH, path_mistake
from app.telemetry import note

router = APIRouter(tags=["Gateway"])


def _resource(path: str) -> str:
    wrong = path_mistake(path)
    if wrong is not None:
        raise ValueError(wrong)
    return path


_Path = Annotated[str, Field(min_length=1, max_length=LONGEST_PATH), AfterValidator(_resource)]
_Caller = Annotated[Consumer, Depends(consumer_with(Scope.PROXY))]


class CacheCounts(BaseModel):
    """Since this replica began."""

    hits: int = Field(description="Answered from memory, without asking the provider.")
    misses: int = Field(description="The provider was asked.")
    coalesced: int = Field(description="Waited for an answer that somebody else had asked for.")
    revalidated: int = Field(description="Of the misses, those that the provider answered with 304.")
    bypassed: int = Field(description="Calls that nothing kept could answer, writes among them.")
    evicted: int = Field(description="Answers that had to go for others, before their time was over.")


class ProviderCache(CacheCounts):
    provider: str
    entries: int


class CacheAnswer(CacheCounts):
    """What one replica keeps."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "replica": "broker-1-17-c0ffee",
                    "entries": 12,
                    "bytes": 48213,
                    "max_bytes": 33554432,
                    "hits": 941,
                    "misses": 60,
                    "coalesced": 7,
                    "revalidated": 31,
                    "bypassed": 4,
                    "evicted": 0,
                    "providers": [
                        {
                            "provider": "google",
                            "entries": 12,
                            "hits": 941,
                            "misses": 60,
                            "coalesced": 7,
                            "revalidated": 31,
                            "bypassed": 4,
                            "evicted": 0,
                        }
                    ],
                }
            ]
        }
    )

    replica: str = Field(description="The one that answered: each keeps answers of its own.")
    entries: int
    bytes: int
    max_bytes: int = Field(description="`BROKER_PROXY_CACHE_BYTES`.")
    providers: list[ProviderCache] = Field(description="In the order of their names.")


class PurgeAnswer(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"purged": 3}]})

    purged: int = Field(description="How many this replica had; the others are told.")


@router.get("/cache", summary="Look at the gateway's cache", responses=responses())
async def get_cache(services: Use, _: Admin) -> CacheAnswer:
    """Of the replica that answers; `/metrics` of each has the same."""
    answers = services.answers
    answers.hear()
    return CacheAnswer(
        replica=services.replica,
        entries=len(answers),
        bytes=answers.bytes,
        max_bytes=answers.max_bytes,
        **_counted(answers.counts, None),
        providers=[
            ProviderCache(provider=name, entries=entries, **_counted(answers.counts, name))
            for name, entries in answers.by_provider().items()
        ],
    )


@router.delete("/cache", summary="Purge the gateway's cache", responses=responses("unknown_provider"))
async def purge_cache(
    services: Use,
    consumer: _Caller,
    provider: Annotated[OpaqueName | None, Query(description="Left out: of all of them.")] = None,
    user_id: Annotated[OpaqueName | None, Query(description="Left out: of all users.")] = None,
    account: Annotated[OpaqueName | None, Query(description="Left out: of all accounts.")] = None,
    path: Annotated[_Path, Query(description="At and below it.", examples=["/portfolio"])] = "/",
) -> PurgeAnswer:
    """Forgets what agrees in all that is given, on all replicas. Without the scope `admin` a provider and a user have to be
    named."""
    note(provider=provider)
    meant = Meant(path, provider=provider, user_id=user_id, account=account)
    if not _may_purge(services, consumer, meant):
        return PurgeAnswer(purged=0)
    return PurgeAnswer(purged=await services.purger.purge(meant, actor=consumer.name))


def _may_purge(services: Services, consumer: Consumer, meant: Meant) -> bool:
    """False for a user who is none of the consumer's, of whom there is nothing. Raises Forbidden where none is named, and
    UnknownProvider."""
    if consumer.has(Scope.ADMIN) and (meant.provider is None or meant.user_id is None):
        if meant.provider is not None:
            services.clients.get(meant.provider)
        return True
    if meant.provider is None or meant.user_id is None:
        raise Forbidden("This API key may purge the answers of one user at one provider; name both.")
    key = GrantKey(meant.provider, meant.user_id, meant.account or DEFAULT_ACCOUNT)
    return as_seen(services, consumer, key) == key


def _counted(counts: Counts, provider: str | None) -> dict[str, int]:
    return {
        "hits": counts.of(provider, Outcome.HIT),
        "misses": counts.of(provider, Outcome.MISS),
        "coalesced": counts.of(provider, Outcome.COALESCED),
        "revalidated": counts.of(provider, Outcome.REVALIDATED),
        "bypassed": counts.of(provider, Outcome.BYPASS),
        "evicted": counts.of(provider, Outcome.EVICTED),
    }
