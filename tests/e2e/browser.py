"""As much of a browser as connecting an account takes: it follows redirects and keeps cookies."""

from __future__ import annotations

from typing import Self

import httpx


class Browser:
    """One with an empty cookie jar. As in real ones, cookies do not tell ports apart."""

    def __init__(self) -> None:
        self._http = httpx.Client(timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def open(self, url: str) -> httpx.Response:
        """The page that `url` leads to in the end."""
        return self._http.get(url, follow_redirects=True)

    def walk(self, url: str, *, until: str) -> str:
        """The first address on the way from `url` that begins with `until`; it is not opened."""
        while not url.startswith(until):
            page = self._http.get(url)
            assert page.next_request is not None, f"{page.url} leads nowhere: {page.status_code} {page.text}"
            url = str(page.next_request.url)
        return url
