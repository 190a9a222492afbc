"""Key-encryption keys that HashiCorp Vault or OpenBao holds: its transit secrets engine wraps data keys, and never shows the
key it does so with (https://openbao.org/api-docs/secret/transit/).

What its token needs: `update` on `<mount>/encrypt/<key>` and `<mount>/decrypt/<key>`, and `read` on `<mount>/keys/<key>`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.errors import ConfigurationError
from app.outbound.json_call import CannotAsk, call_json
from app.vault.data_key import WrappedKey
from app.vault.key_provider import KeysUnavailable
from app.vault.seal import KEY_BYTES

_CIPHERTEXT = re.compile(r"[a-z]+:v(?P<version>\d{1,9}):[A-Za-z0-9+/=]+")


@dataclass(frozen=True)
class TransitKey:
    """Where it is. `token` is asked for each time, since an agent may renew it behind our back."""

    url: str
    key: str
    token: Callable[[], str]
    mount: str = "transit"
    namespace: str | None = None


class TransitKeys:
    """A `KeyProvider`. The data key's id goes along as associated data, so that none can be put in another's place."""

    def __init__(self, transit: TransitKey) -> None:
        self._transit = transit
        self._prefix = f"transit:{transit.mount}/{transit.key}:v"

    def owns(self, key_encryption_key: str) -> bool:
        return key_encryption_key.startswith(self._prefix)

    async def wrap(self, key_id: UUID, data_key: bytes) -> tuple[str, bytes]:
        fields = await self._ask("POST", "encrypt", {"plaintext": _encoded(data_key), **_bound_to(key_id)})
        ciphertext = fields.get("ciphertext")
        match = _CIPHERTEXT.fullmatch(ciphertext) if isinstance(ciphertext, str) else None
        if match is None:
            raise KeysUnavailable("Transit gave an answer without a ciphertext")
        return f"{self._prefix}{match['version']}", match[0].encode()

    async def unwrap(self, wrapped: WrappedKey) -> bytes:
        ciphertext = wrapped.wrapped_key.decode("ascii", "replace")
        fields = await self._ask(
            "POST", "decrypt", {"ciphertext": ciphertext, **_bound_to(wrapped.id)}, wrapped
        )
        try:
            key = base64.b64decode(str(fields.get("plaintext")), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != KEY_BYTES:
            raise KeysUnavailable("Transit gave an answer without a key of 32 bytes")
        return key

    async def is_current(self, key_encryption_key: str) -> bool:
        fields = await self._ask("GET", "keys", None)
        return key_encryption_key == f"{self._prefix}{fields.get('latest_version')}"

    async def _ask(
        self, method: str, what: str, body: Mapping[str, Any] | None, wrapped: WrappedKey | None = None
    ) -> Mapping[str, Any]:
        transit = self._transit
        headers = {"X-Vault-Token": transit.token(), "X-Vault-Request": "true"}
        if transit.namespace is not None:
            headers["X-Vault-Namespace"] = transit.namespace
        url = f"{transit.url}/v1/{transit.mount}/{what}/{transit.key}"
        try:
            answer = await call_json(method, url, headers=headers, body=body)
        except CannotAsk as error:
            raise KeysUnavailable(f"Transit cannot be reached at {transit.url} ({error})") from error
        if answer.status == 200 and isinstance(fields := answer.fields.get("data"), dict):
            return fields
        if answer.status == 400 and wrapped is not None:
            raise _does_not_open(wrapped)
        raise KeysUnavailable(_refusal(answer.status, f"{transit.mount}/{what}/{transit.key}"))


def _refusal(status: int, path: str) -> str:
    match status:
        case 403:
            return f"Transit refuses our token for {path}: it has ended, or its policy lacks that path"
        case 404:
            return f"Transit has nothing at {path}: is BROKER_TRANSIT_KEY there, and the engine at BROKER_TRANSIT_MOUNT?"
        case 503:
            return "Transit is sealed, or a standby that answers nothing"
    return f"Transit answered {status} for {path}"


def _does_not_open(wrapped: WrappedKey) -> ConfigurationError:
    sentence = (
        f"BROKER_TRANSIT_KEY: {wrapped.key_encryption_key!r} does not open the data key {wrapped.id}: it is another key than "
        "the one that wrapped it, or its min_decryption_version is above that one's"
    )
    return ConfigurationError([sentence])


def _bound_to(key_id: UUID) -> dict[str, str]:
    return {"associated_data": _encoded(str(key_id).encode())}


def _encoded(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")
