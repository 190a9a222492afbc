"""`/refresh/run`: the scheduler's work, now."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.api.access import Admin
from app.api.problems import responses
from app.api.services import Use

router = APIRouter(tags=["Operations"])


class RunAnswer(BaseModel):
    """What became of the grants that were due."""

    due: int = Field(description="All of them.")
    refreshed: int
    failed: int
    postponed: int = Field(description="Left for later: the provider was not available.")


@router.post("/refresh/run", summary="Refresh what is due", responses=responses())
async def run_refresh(services: Use, _: Admin) -> RunAnswer:
    """Does what a tick of the scheduler does, and answers when it is done. Replicas share the work."""
    return RunAnswer(**asdict(await services.due.run(within=services.timetable.interval)))
