"""The SQL of grants as they are remembered: read by their keys, one or many, each by one statement that is kept prepared."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Text, func, select
from sqlalchemy.dialects.postgresql import ARRAY

from app.grants.grant import GrantKey, LeanGrant
from app.grants.store import LEAN, at_key, to_lean
from app.statements import Prepared, Statements, given

_READ = Prepared(select(*LEAN).where(at_key(given("provider"), given("user_id"), given("account"))))


async def read(statements: Statements, key: GrantKey) -> LeanGrant | None:
    """The grant that is not revoked, if there is one."""
    row = await statements.one(_READ, provider=key.provider, user_id=key.user_id, account=key.account)
    return None if row is None else to_lean(row, key)


_wanted = (
    func.unnest(
        given("providers", ARRAY(Text)), given("user_ids", ARRAY(Text)), given("accounts", ARRAY(Text))
    )
    .table_valued("provider", "user_id", "account", name="wanted")
    .render_derived()
)
_READ_ALL = Prepared(
    select(*LEAN).join(_wanted, at_key(_wanted.c.provider, _wanted.c.user_id, _wanted.c.account))
)


async def read_all(statements: Statements, keys: Sequence[GrantKey]) -> dict[GrantKey, LeanGrant]:
    """Those of the grants that are there and not revoked."""
    if len(keys) == 1:  # whose own statement costs less
        found = await read(statements, keys[0])
        return {} if found is None else {keys[0]: found}
    rows = await statements.all(
        _READ_ALL,
        providers=[key.provider for key in keys],
        user_ids=[key.user_id for key in keys],
        accounts=[key.account for key in keys],
    )
    asked = {key: key for key in keys}
    keyed = {GrantKey(row["provider"], row["user_id"], row["account"]): row for row in rows}
    return {asked[key]: to_lean(row, asked[key]) for key, row in keyed.items()}
