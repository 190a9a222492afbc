"""`/providers`: the catalogue, without secrets."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from app.api.access import authenticated
from app.api.deps import ProviderPath
from app.api.problems import responses
from app.api.services import Use
from app.consumers.consumer import Consumer
from app.oauth.client import OAuthClient, no_such_provider
from app.oauth.parts import Rotation

router = APIRouter(tags=["OAuth"])


class ProviderAnswer(BaseModel):
    """A registration, or a catalogue entry without one."""

    name: str = Field(description="What `{provider}` is in every path.")
    catalogue: str = Field(description="The catalogue entry that it is of.")
    display_name: str
    documentation: str | None
    registered: bool = Field(description="Whether there is an OAuth client, so that users can connect.")
    connectable: bool = Field(description="Whether there is a page at which users consent.")
    revocable: bool = Field(description="Whether deleting a grant revokes it at the provider.")
    scopes: list[str] = Field(description="What is asked for by default.")
    rotation: Rotation = Field(description="What a refresh does to the refresh token.")
    access_token_lifetime_seconds: int | None = Field(description="Null: access tokens do not expire.")
    unconfirmed: list[str] = Field(description="Facts of the entry that nobody has confirmed yet.")


class ProviderList(BaseModel):
    """What the key may use."""

    items: list[ProviderAnswer] = Field(description="In the order of their names.")


@router.get("/providers", summary="List providers", responses=responses())
async def list_providers(
    services: Use, consumer: Annotated[Consumer, Depends(authenticated)]
) -> ProviderList:
    """Those that the key may use."""
    visible = (client for client in services.clients if consumer.may_use(client.name))
    return ProviderList(
        items=[_describe(client) for client in sorted(visible, key=lambda client: client.name)]
    )


@router.get("/providers/{provider}", summary="Look at a provider", responses=responses("unknown_provider"))
async def get_provider(
    provider: ProviderPath, services: Use, consumer: Annotated[Consumer, Depends(authenticated)]
) -> ProviderAnswer:
    """What is known of one provider."""
    client = services.clients.get(provider)
    if not consumer.may_use(provider):
        raise no_such_provider(provider)
    return _describe(client)


def _describe(client: OAuthClient) -> ProviderAnswer:
    provider = client.provider
    return ProviderAnswer(
        name=client.name,
        catalogue=provider.name,
        display_name=client.title,
        documentation=provider.documentation,
        registered=client.client_id is not None,
        connectable=provider.is_connectable,
        revocable=provider.revocation_url is not None,
        scopes=list(client.scopes or provider.scopes.default),
        rotation=provider.refresh_token.rotation,
        access_token_lifetime_seconds=provider.access_token.lifetime_seconds,
        unconfirmed=list(provider.unconfirmed),
    )
