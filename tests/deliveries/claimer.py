"""A process that claims deliveries and ends them as delivered, until there are none: what it claimed, and how many of a batch
it ever saw being sent.

python -m tests.deliveries.claimer URL
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys

from app.clock import SystemClock
from app.db import Database
from app.deliveries import claim_store
from app.deliveries.category import Verdict
from app.deliveries.claimed import Claimed, ending
from app.deliveries.endings import Endings
from tests.postgres import database

_MOST_AT_ONCE = "SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM deliveries WHERE status = 'sending' GROUP BY batch_id) s"
_LEFT = "SELECT count(*) FROM deliveries WHERE ended_at IS NULL"


async def main(url: str) -> None:
    db, claimed_ids, most = Database(url, pool_size=8), [], 0
    endings = Endings(db, SystemClock())

    async def end(claimed: Claimed) -> None:
        await asyncio.sleep(random.uniform(0, 0.01))
        await endings.end(claimed, ending(claimed, Verdict(None, status=200)))

    async with database(url) as watching, asyncio.TaskGroup() as ends:
        while await watching.fetchval(_LEFT):
            taken = await claim_store.claim(
                db.statements, replica=f"process-{os.getpid()}", most=8, each=8, rooms={}
            )
            most = max(most, await watching.fetchval(_MOST_AT_ONCE))
            for claimed in taken.claimed:
                claimed_ids.append(str(claimed.id))
                ends.create_task(end(claimed))
            await asyncio.sleep(0.002)
    sys.stdout.write(json.dumps({"claimed": claimed_ids, "most": most}))
    await db.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
