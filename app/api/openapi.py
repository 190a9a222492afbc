"""The OpenAPI document, mended where FastAPI cannot say what is so."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from app.api.problems import MEDIA_TYPE

_PROBLEM = {"$ref": "#/components/schemas/Problem"}


class DocumentedApp(FastAPI):
    """An application whose document gives problems their media type: FastAPI writes JSON for every model."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            for operations in super().openapi()["paths"].values():
                for operation in operations.values():
                    _name_media_type(operation["responses"])
        assert self.openapi_schema is not None
        return self.openapi_schema


def _name_media_type(responses: dict[str, Any]) -> None:
    for response in responses.values():
        content = response.get("content", {})
        if content.get("application/json", {}).get("schema") == _PROBLEM:
            content[MEDIA_TYPE] = content.pop("application/json")
