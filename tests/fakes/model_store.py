"""A store in memory: applies plans to dicts, and loads slices from them as an engine does.

For tests of the planner and of whatever sends it entries. It keeps only what a real engine keeps, and `check`
recomputes from the files what the plans maintain.
"""

import copy
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from itertools import count

from relayfile.model import MemberKind, Outcome, Semantics
from relayfile.paths import ancestors, name, parent
from relayfile.store.plan.buckets import BUILT, NOTHING, BucketSum, bucket_of, is_counted, next_step
from relayfile.store.plan.digest import file_term
from relayfile.store.plan.entry import Entry, Fold, Member
from relayfile.store.plan.file_index import Term, terms_of
from relayfile.store.plan.letters import LetterRef, LetterState, replay_fold, settle_replays
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.plan.needs import first_needs, more_needs
from relayfile.store.plan.planner import plan
from relayfile.store.plan.result import MemberResult, Plan
from relayfile.store.plan.rows import (
    DeadLetterRow,
    DeliveryKey,
    DirectoryRow,
    DuplicateKey,
    EventRow,
    FileRow,
    ObjectKey,
    ObjectRow,
    WorkspaceRow,
)
from relayfile.store.plan.rules import enforceable_count
from relayfile.store.plan.slice import Needs, Slice

WORKSPACE = "ws"
ROUNDS_MAX = 4


class ModelStore:
    """One workspace."""

    def __init__(self, limits: PlanLimits | None = None) -> None:
        self.limits = limits or PlanLimits()
        self.workspace: WorkspaceRow | None = WorkspaceRow("history", 0, 0)
        self.files: dict[str, FileRow] = {}
        self.contents: dict[int, bytes] = {}
        self.directories: dict[str, DirectoryRow] = {}
        self.objects: dict[ObjectKey, ObjectRow] = {}
        self.deliveries: dict[DeliveryKey, tuple[str, Outcome]] = {}
        self.duplicates: set[DuplicateKey] = set()
        self.events: list[EventRow] = []
        self.dead_letters: list[DeadLetterRow] = []
        self.outcomes: Counter[tuple[str, Outcome]] = Counter()
        self.terms: set[tuple[Term, str]] = set()
        self.provider_files: Counter[tuple[str, str]] = Counter()
        self.buckets: dict[tuple[str, int], BucketSum] = {}
        self.bucket_builds: set[str] = set()
        self._ids = count(1)

    def load(self, entry: Entry) -> Slice:
        """The slice for `entry`, in rounds; strictly what was asked for."""
        loaded = Slice(workspace=self.workspace)
        needs = first_needs(entry)
        for _ in range(ROUNDS_MAX):
            self.answer(needs, loaded)
            needs = more_needs(entry, loaded)
            if not needs:
                return loaded
        raise AssertionError(f"more_needs does not end: {needs}")

    def plan(self, *folds: Fold, now_us: int = 1) -> Plan:
        """Plan one entry without applying it."""
        entry = Entry(WORKSPACE, folds)
        loaded = self.load(entry)
        before = copy.deepcopy(
            (loaded.deliveries, loaded.duplicates, loaded.files, loaded.directories, loaded.contents)
        )
        planned = plan(entry, loaded, now_us=now_us, limits=self.limits, new_id=lambda: f"id-{next(self._ids)}")
        after = (loaded.deliveries, loaded.duplicates, loaded.files, loaded.directories, loaded.contents)
        assert before == after, "a plan changes nothing of its slice"
        return planned

    def apply(self, *folds: Fold, now_us: int = 1) -> list[tuple[MemberResult, ...]]:
        """Plan one entry and commit it."""
        planned = self.plan(*folds, now_us=now_us)
        self.commit(planned)
        return planned.results

    def outcomes_of(self, *folds: Fold, now_us: int = 1) -> list[Outcome | None]:
        """`apply`, and the outcomes of all members in order."""
        return [result.outcome for results in self.apply(*folds, now_us=now_us) for result in results]

    def replay(self, dead: DeadLetterRow) -> Outcome | None:
        """Plan the change of a dead letter again and commit it; its outcome."""
        assert dead.member is not None, "of the stage apply"
        ref = letter_ref(dead)
        planned = self.plan(replay_fold(ref, dead.member))
        settle_replays(planned, [ref], 1)
        self.commit(planned)
        return planned.results[0][0].outcome

    def commit(self, planned: Plan) -> None:
        """What an engine does with a plan."""
        self.workspace = planned.workspace
        for path in planned.files_deleted:
            del self.files[path]
        for path, put in planned.files_put.items():
            content_id = put.row.content_id
            if put.content is not None:
                assert content_id == 0, "a new content has no id yet"
                content_id = len(self.contents) + 1
                while content_id in self.contents:
                    content_id += 1
                self.contents[content_id] = put.content
            self.files[path] = put.row._replace(content_id=content_id)
        for content_id in planned.contents_released:
            del self.contents[content_id]
        for path in planned.directories_deleted:
            del self.directories[path]
        self.directories.update(planned.directories_put)
        self._keep_buckets(planned)
        assert self.terms.issuperset(planned.index.removed)
        assert self.terms.isdisjoint(planned.index.added)
        self.terms.difference_update(planned.index.removed)
        self.terms.update(planned.index.added)
        self.provider_files.update(planned.index.provider_files)
        self.objects.update({row.key: row for row in planned.objects_put})
        for delivery in planned.deliveries_put:
            self.deliveries[delivery.key] = (delivery.envelope_id, delivery.outcome)
        self.duplicates.update(row.key for row in planned.duplicates_put)
        self.events.extend(planned.events)
        self.dead_letters = [
            row for row in self.dead_letters if (row.key, row.envelope_id) not in planned.dead_letters_resolved
        ]
        if planned.letters is not None:
            gone = {ref.dead_letter_id for ref in planned.letters.removed}
            self.dead_letters = [row for row in self.dead_letters if row.dead_letter_id not in gone]
            for one in planned.letters.retried:
                places = [row.dead_letter_id for row in self.dead_letters]
                place = places.index(one.ref.dead_letter_id)
                self.dead_letters[place] = self.dead_letters[place]._replace(failure=one.failure)
        self.dead_letters.extend(planned.dead_letters)
        for key, change in planned.outcome_counts.items():
            self.outcomes[key] += change

    def build_buckets(self, entries_max: int) -> None:
        """A step of each directory that wants it."""
        for path in sorted(self.bucket_builds):
            row = self.directories[path]
            assert row.buckets_to not in (None, BUILT)
            entries: list[FileRow | DirectoryRow] = [file for file in self.files.values() if parent(file.path) == path]
            entries += [each for each in self.directories.values() if each.path != "/" and parent(each.path) == path]
            left = sorted((each for each in entries if name(each.path) > (row.buckets_to or "")), key=_path)
            buckets_to, changes = next_step(row, left[:entries_max], at_end=len(left) < entries_max)
            planned = Plan(WORKSPACE, self.workspace, buckets=changes)
            planned.directories_put[path] = row._replace(buckets_to=buckets_to)
            self.commit(planned)

    def _keep_buckets(self, planned: Plan) -> None:
        changes = planned.buckets
        for path in changes.dropped:
            self.buckets = {key: held for key, held in self.buckets.items() if key[0] != path}
        self.bucket_builds.difference_update(changes.dropped, changes.finished)
        self.bucket_builds.update(changes.wanted)
        for key, change in changes.sums.items():
            held = self.buckets.get(key, NOTHING)
            total = (held.digest + change.digest) % 2**256
            self.buckets[key] = BucketSum(
                held.file_count + change.file_count, held.total_bytes + change.total_bytes, total
            )

    def tree(self) -> dict[str, bytes]:
        """Path -> content."""
        return {path: self.contents[row.content_id] for path, row in sorted(self.files.items())}

    def check(self) -> None:
        """Recompute what plans maintain: revisions, directories, contents, bindings, counters."""
        assert self.workspace is not None
        assert [event.revision for event in self.events] == list(range(1, self.workspace.revision + 1))
        for path, row in self.files.items():
            content = self.contents[row.content_id]
            assert (row.path, row.content_sha256, row.size_bytes) == (path, sha256(content).digest(), len(content))
            assert not any(above in self.files for above in ancestors(path)), f"{path} is below a file"
        used = [row.content_id for row in self.files.values()]
        assert sorted(used) == sorted(self.contents), "every content has exactly one file"
        self._check_directories()
        self._check_bindings()
        self._check_index()
        self._check_buckets()
        rows = len(self.deliveries) + len(self.duplicates)
        assert sum(self.outcomes.values()) == rows, (self.outcomes, rows)
        assert all(number >= 0 for number in self.outcomes.values())
        assert {row.key for row in self.dead_letters} == {
            key for key, (_, outcome) in self.deliveries.items() if outcome is Outcome.DEAD_LETTERED
        }

    def _check_directories(self) -> None:
        expected: dict[str, DirectoryRow] = {}
        entries: dict[str, set[str]] = {}
        for path, row in self.files.items():
            below = path
            for above in ancestors(path):
                entries.setdefault(above, set()).add(below)
                below = above
                old = expected.get(above) or DirectoryRow(above, 0, 0, 0, 0, 0, 0)
                expected[above] = DirectoryRow(
                    above,
                    old.file_count + 1,
                    old.total_bytes + row.size_bytes,
                    old.rule_count + enforceable_count(row.semantics.permissions),
                    (old.digest + file_term(path, row.content_sha256)) % 2**256,
                    0,
                    0,
                )
        actual = {path: row._replace(revision=0, buckets_to=None) for path, row in self.directories.items()}
        expected = {path: row._replace(entry_count=len(entries[path])) for path, row in expected.items()}
        if not expected and "/" in actual:
            expected["/"] = DirectoryRow("/", 0, 0, 0, 0, 0, 0)
        assert actual == expected
        newest: dict[str, int] = {}
        for event in self.events:
            for above in ancestors(event.path):
                newest[above] = event.revision
        assert {path: row.revision for path, row in self.directories.items()} == {
            path: newest[path] for path in self.directories
        }

    def _check_buckets(self) -> None:
        expected: dict[tuple[str, int], BucketSum] = {}
        for path, row in self.files.items():
            below = path
            for above in ancestors(path):
                entry_name, below = name(below), above
                if is_counted(self.directories[above].buckets_to, entry_name):
                    key = (above, bucket_of(entry_name))
                    held = expected.get(key, NOTHING)
                    total = (held.digest + file_term(path, row.content_sha256)) % 2**256
                    expected[key] = BucketSum(held.file_count + 1, held.total_bytes + row.size_bytes, total)
        assert {key: held for key, held in self.buckets.items() if held != NOTHING} == expected
        unfinished = {path for path, row in self.directories.items() if row.buckets_to not in (None, BUILT)}
        assert self.bucket_builds == unfinished

    def _check_index(self) -> None:
        assert self.terms == {(term, path) for path, row in self.files.items() for term in terms_of(row.semantics)}
        held = Counter((row.provider, parent(path).rstrip("/") + "/") for path, row in self.files.items())
        kept = {key: number for key, number in self.provider_files.items() if number}
        assert kept == {key: number for key, number in held.items() if key[0]}

    def _check_bindings(self) -> None:
        bound = {(row.provider, row.object_key): path for path, row in self.files.items() if row.object_key}
        assert len(bound) == sum(1 for row in self.files.values() if row.object_key), "one file for each object"
        for key, row in self.objects.items():
            assert row.path == bound.get((key.provider, key.key)), f"{key} and its file disagree"
            assert not (row.deleted and row.path)

    def answer(self, needs: Needs, loaded: Slice) -> None:
        """Add what is asked for, as an engine answers a round."""
        loaded.deliveries.update({key: self.deliveries[key] for key in needs.deliveries if key in self.deliveries})
        loaded.duplicates |= needs.duplicates & self.duplicates
        loaded.objects.update({key: self.objects[key] for key in needs.objects if key in self.objects})
        loaded.files.update({path: self.files[path] for path in needs.files if path in self.files})
        loaded.directories.update({p: self.directories[p] for p in needs.directories if p in self.directories})
        loaded.contents.update({content_id: self.contents[content_id] for content_id in needs.contents})


def _path(row: FileRow | DirectoryRow) -> str:
    return row.path


def letter_ref(dead: DeadLetterRow) -> LetterRef:
    """A dead letter that is queued for another try."""
    return LetterRef(
        dead.dead_letter_id, dead.stage, LetterState.REPLAYING, dead.key, dead.envelope_id, dead.failure.reason,
        dead.received_us, 0, 0,
    )  # fmt: skip


class Deliveries:
    """Makes members and folds with fresh ids, shortly."""

    def __init__(self, provider: str = "github") -> None:
        self.provider = provider
        self._numbers = count(1)

    def member(
        self,
        kind: MemberKind,
        path: str = "",
        content: bytes | None = b"",
        *,
        occurred_us: int | None = None,
        received_us: int = 1_000,
        content_type: str = "application/json",
        semantics: Semantics | None = None,
        object_id: str = "",
        envelope_id: str = "",
        delivery_id: str = "",
    ) -> Member:
        """One change; `content` None is elided."""
        number = next(self._numbers)
        return Member(
            kind=kind,
            envelope_id=envelope_id or f"e{number}",
            delivery_id=delivery_id or f"d{number}",
            change_index=0,
            path=path,
            provider_object_id=object_id,
            received_us=received_us,
            occurred_us=occurred_us,
            content=content,
            content_type=content_type,
            semantics=semantics or Semantics(),
            correlation_id=f"c{number}",
            traceparent="",
        )

    def fold(self, object_id: str, members: Sequence[Member], ingest_id: str = "") -> Fold:
        """A fold of one object."""
        return Fold(self.provider, "o:" + object_id, tuple(members), ingest_id)
