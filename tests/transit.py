"""A transit secrets engine as its documentation describes it: versions of a key, wrapped and unwrapped, a token that is
asked for, and what it answers when something is wrong."""

from __future__ import annotations

import base64
import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from aiohttp import web
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.embedded_host import free_port

TOKEN = "hvs.a-token-of-tests"


class Transit:
    """One key, called `broker`, at the mount `transit`. `failing` is a status that it answers to everything."""

    def __init__(self, port: int) -> None:
        self._runner = web.ServerRunner(web.Server(self._answer))
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.token = TOKEN
        self.versions = [AESGCM.generate_key(256)]
        self.least_version = 1
        self.failing: int | None = None
        self.namespaces: set[str | None] = set()
        self.asked: Counter[str] = Counter()

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncIterator[Self]:
        transit = cls(free_port())
        await transit._runner.setup()
        await web.TCPSite(transit._runner, "127.0.0.1", transit.port).start()
        try:
            yield transit
        finally:
            await transit.stop()

    async def stop(self) -> None:
        """Nothing listens at its port any more."""
        await self._runner.cleanup()

    def rotate(self) -> None:
        self.versions.append(AESGCM.generate_key(256))

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.namespaces.add(request.headers.get("X-Vault-Namespace"))
        if self.failing is not None:
            return _errors(self.failing, "told to fail")
        if request.headers.get("X-Vault-Token") != self.token:
            return _errors(403, "permission denied")
        body = json.loads(await request.text() or "{}")
        match request.method, request.path:
            case "POST", "/v1/transit/encrypt/broker":
                self.asked["encrypt"] += 1
                return _data(self._encrypted(body))
            case "POST", "/v1/transit/decrypt/broker":
                self.asked["decrypt"] += 1
                return self._decrypted(body)
            case "GET", "/v1/transit/keys/broker":
                return _data({"name": "broker", "type": "aes256-gcm96", "latest_version": len(self.versions)})
        return _errors(404, "no handler for route")

    def _encrypted(self, body: dict[str, str]) -> dict[str, Any]:
        nonce, version = os.urandom(12), len(self.versions)
        bound = base64.b64decode(body["associated_data"])
        sealed = nonce + AESGCM(self.versions[-1]).encrypt(nonce, base64.b64decode(body["plaintext"]), bound)
        return {"ciphertext": f"vault:v{version}:{base64.b64encode(sealed).decode()}", "key_version": version}

    def _decrypted(self, body: dict[str, str]) -> web.Response:
        _, version, encoded = body["ciphertext"].split(":")
        number, sealed = int(version[1:]), base64.b64decode(encoded)
        if not self.least_version <= number <= len(self.versions):
            return _errors(400, "ciphertext or signature version is disallowed by policy (too old)")
        try:
            bound = base64.b64decode(body["associated_data"])
            opened = AESGCM(self.versions[number - 1]).decrypt(sealed[:12], sealed[12:], bound)
        except InvalidTag:
            return _errors(400, "cipher: message authentication failed")
        return _data({"plaintext": base64.b64encode(opened).decode()})


def _data(fields: dict[str, Any]) -> web.Response:
    return web.json_response({"request_id": "0", "lease_id": "", "renewable": False, "data": fields})


def _errors(status: int, sentence: str) -> web.Response:
    return web.json_response({"errors": [sentence]}, status=status)
