"""The planner against the reference fold: the sample payloads in many orders, one by one, on the store in memory."""

import json
from pathlib import Path

import pytest

from relayfile import pinned_json
from relayfile.model import MemberKind
from tests.fakes.model_store import Deliveries, ModelStore
from tests.support.fold import fold
from tests.support.sample_changes import arrivals
from tests.support.webhooks import samples, shuffled

KINDS = {"upsert": MemberKind.UPSERT, "delete": MemberKind.DELETE, "patch": MemberKind.PATCH}
RECEIVED_US = 1_790_000_000_000_000
ORDERS = 25


@pytest.mark.needs_data
def test_every_order_gives_the_tree_of_the_fold(shared_data: Path) -> None:
    found = samples(shared_data / "github-webhooks")
    for seed in range(ORDERS):
        order = arrivals(found if seed == 0 else shuffled(found, seed))
        store, make = ModelStore(), Deliveries()
        for number, change in enumerate(order):
            member = make.member(
                KINDS[change.kind],
                change.path,
                b"" if change.is_delete else pinned_json.write(change.content),
                occurred_us=change.occurred_us,
                received_us=RECEIVED_US + number,
                object_id=change.object_id,
            )
            store.apply(make.fold(change.object_id, [member]))
        store.check()
        assert {path: json.loads(content) for path, content in store.tree().items()} == fold(order), f"seed {seed}"
