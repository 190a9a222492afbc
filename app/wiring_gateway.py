"""The gateway, wired together."""

from __future__ import annotations

from app.apis.caller import ApiCaller
from app.gateway.gateway import Gateway
from app.ground import Ground


def wired_gateway(on: Ground, caller: ApiCaller) -> Gateway:
    """Nothing is started."""
    return Gateway(caller, on.clients)
