"""`/clients`: our OAuth client registrations at providers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict

from app.api.access import Admin
from app.api.deps import Body, percent_decode
from app.api.problems import responses
from app.api.services import Services, Use
from app.clients.registrar import Registered, Wanted
from app.errors import ValidationFailed
from app.oauth.resources import LONGEST_PATH, MOST_RESOURCES, MOST_SECONDS

router = APIRouter(tags=["OAuth"])

ClientPath = Annotated[
    Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,62}$")],
    BeforeValidator(percent_decode),
    Path(
        description="What `{provider}` is in every path: the catalogue entry's name, or another one of your own.",
        examples=["google-acme"],
    ),
]
_Scope = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+$")]
# What `app.oauth.resources` checks, or somewhat less, for those who read the document.
_RESOURCE: JsonDict = {
    "minLength": 1,
    "maxLength": LONGEST_PATH,
    "pattern": r"^(/|(/[A-Za-z0-9_~!$&'()*+,;=:@-]+)+)$",
}
_Kept = Annotated[int, Field(strict=True, ge=0, le=MOST_SECONDS)]
_Visible = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[\x20-\x7e]+$")]


class ClientBody(Body):
    """A registration (RFC 6749 section 2.2)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "catalogue": "google",
                    "client_id": "1234.apps.googleusercontent.com",
                    "client_secret": "GOCSPX-...",
                    "scopes": ["openid", "email"],
                }
            ]
        }
    )

    catalogue: str | None = Field(
        default=None,
        max_length=63,
        description="The catalogue entry; left out, that of the same name. It cannot be changed later.",
    )
    client_id: _Visible = Field(description="What the provider calls us.")
    client_secret: _Visible | None = Field(
        default=None, description="Never answered. Left out it stays as it is; null removes it."
    )
    scopes: list[_Scope] = Field(
        default=[], max_length=100, description="Asked for by default; left out, those of the catalogue."
    )
    settings: dict[str, str] = Field(
        default={}, max_length=20, description="The entry's `variables`, such as a tenant or an account."
    )
    resources: dict[str, _Kept] = Field(
        default={},
        max_length=MOST_RESOURCES,
        json_schema_extra={"propertyNames": _RESOURCE},
        description="For how many seconds `/proxy` keeps answers to a GET below each path of the API; the longest path "
        "counts, 0 is never, and what no path is above is not kept.",
    )


class ClientAnswer(BaseModel):
    """A registration without its secret."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "provider": "google-acme",
                    "catalogue": "google",
                    "client_id": "1234.apps.googleusercontent.com",
                    "has_client_secret": True,
                    "scopes": ["openid", "email"],
                    "settings": {},
                    "resources": {"/calendar/v3/users/me/calendarList": 60},
                    "redirect_uri": "https://broker.example.com/api/v1/oauth/google-acme/callback",
                    "created_at": "2026-11-22T10:00:00Z",
                    "updated_at": "2026-11-22T10:00:00Z",
                }
            ]
        }
    )

    provider: str = Field(description="Its name.")
    catalogue: str = Field(description="The catalogue entry that it is of.")
    client_id: str
    has_client_secret: bool
    scopes: list[str] = Field(description="What is asked for by default.")
    settings: dict[str, str]
    resources: dict[str, int] = Field(description="Seconds that answers below each path are kept.")
    redirect_uri: str = Field(description="What has to be registered at the provider.")
    created_at: datetime | None = Field(
        description="Null: it comes from the settings, `BROKER_CLIENTS__...`."
    )
    updated_at: datetime | None


@router.put(
    "/clients/{provider}",
    summary="Register us at a provider",
    responses={201: {"model": ClientAnswer, "description": "It is new."}, **responses("conflict")},
)
async def put_client(
    provider: ClientPath, body: ClientBody, services: Use, admin: Admin, response: Response
) -> ClientAnswer:
    """Used by all replicas at once. One of the same name in the settings counts for nothing while this is there."""
    wanted = Wanted(
        client_id=body.client_id,
        client_secret=body.client_secret,
        keep_secret="client_secret" not in body.model_fields_set,
        catalogue=body.catalogue,
        scopes=tuple(body.scopes),
        settings=body.settings,
        resources=body.resources,
    )
    try:
        registered, created = await services.registrar.put(provider, wanted, actor=admin.name)
    except ValidationFailed as refused:
        fields = {f"body.{name}": wrong for name, wrong in refused.fields.items()}
        raise ValidationFailed(refused.detail, fields=fields, provider=provider) from refused
    response.status_code = 201 if created else 200
    return _describe(registered, services)


@router.get("/clients/{provider}", summary="Look at a registration", responses=responses("unknown_provider"))
async def get_client(provider: ClientPath, services: Use, _: Admin) -> ClientAnswer:
    """Its secret is never answered."""
    return _describe(await services.registrar.get(provider), services)


@router.delete(
    "/clients/{provider}",
    status_code=204,
    summary="Remove a registration",
    responses=responses("unknown_provider"),
)
async def delete_client(provider: ClientPath, services: Use, admin: Admin) -> None:
    """Its grants stay, and cannot be renewed until there is a registration of this name again."""
    await services.registrar.remove(provider, actor=admin.name)


def _describe(registered: Registered, services: Services) -> ClientAnswer:
    client = registered.client
    return ClientAnswer(
        provider=client.name,
        catalogue=client.provider.name,
        client_id=client.client_id or "",
        has_client_secret=client.client_secret is not None,
        scopes=list(client.scopes or client.provider.scopes.default),
        settings=dict(client.variables),
        resources=dict(client.resources),
        redirect_uri=f"{services.base_url}/api/v1/oauth/{client.name}/callback",
        created_at=registered.created_at,
        updated_at=registered.updated_at,
    )
