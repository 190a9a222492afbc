"""`/docs`: the routes in a browser. Its script and style sheet are ours to serve, so it works without the internet."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from app.api.headers import PERMISSIONS_POLICY

router = APIRouter(include_in_schema=False)

_ASSETS = "/docs/assets"
_VENDORED = Path(__file__).parent / "vendor" / "swagger-ui"


@router.get("/")
async def root() -> RedirectResponse:
    return RedirectResponse("/docs", status_code=307)


class _Assets(StaticFiles):
    """Unlike anything else here they may be kept by browsers, which ask whether they are still the same."""

    def file_response(
        self,
        full_path: str | os.PathLike[str],
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _page() -> HTMLResponse:
    """With the one script that stands in it allowed by its hash (CSP level 3, section 8.1)."""
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="Token broker",
        swagger_js_url=f"{_ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{_ASSETS}/swagger-ui.css",
        swagger_favicon_url="data:,",
    )
    [script] = re.findall(rb"<script>(.*?)</script>", bytes(page.body), flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode("ascii")
    page.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src 'self' 'sha256-{digest}'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
    page.headers["Permissions-Policy"] = PERMISSIONS_POLICY
    return page


_PAGE = _page()


@router.get("/docs")
async def docs() -> HTMLResponse:
    return _PAGE


def install(app: FastAPI) -> None:
    """Serves the page and what it needs."""
    app.mount(_ASSETS, _Assets(directory=_VENDORED))
    app.include_router(router)
