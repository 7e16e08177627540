"""Administrative actions without another effect: what was ordered about a node, written by itself."""

from collections.abc import Sequence
from typing import NamedTuple

from relayfile.store.engine import WorkspaceKey
from relayfile.store.plan.result import Plan
from relayfile.store.plan.rows import AdminActionRow


class Recorded(NamedTuple):
    """An action, and the answer to keep for a repeat."""

    action: AdminActionRow
    answer: bytes


class RecordActions:
    """The `EntryKind`; answers what it is given."""

    async def plan(self, key: WorkspaceKey, mutations: Sequence[Recorded]) -> tuple[Plan | None, Sequence[bytes]]:
        plan = Plan(key.workspace_id, None)
        plan.admin_actions_put += [mutation.action for mutation in mutations]
        return plan, [mutation.answer for mutation in mutations]
