"""`/docs`: the routes in a browser. Its script and style sheet are ours to serve, so it works without the internet."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)

_ASSETS = "/docs/assets"
_VENDORED = Path(__file__).parent / "vendor" / "swagger-ui"


@router.get("/")
async def root() -> RedirectResponse:
    return RedirectResponse("/docs", status_code=307)


@router.get("/docs")
async def docs() -> HTMLResponse:
    return get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="Token broker",
        swagger_js_url=f"{_ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{_ASSETS}/swagger-ui.css",
        swagger_favicon_url="data:,",
    )


def install(app: FastAPI) -> None:
    """Serves the page and what it needs."""
    app.mount(_ASSETS, StaticFiles(directory=_VENDORED))
    app.include_router(router)
