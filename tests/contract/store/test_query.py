"""QueryFiles over gRPC, on a real engine: what it finds, how it pages, and that it reads no workspace to do so."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import apsw
import grpc.aio
import pytest

from relayfile import errors
from relayfile.model import Semantics
from relayfile.status import from_rpc_error
from relayfile.store.sqlite.engine import SqliteEngine
from relayfile.v1 import file_pb2
from tests.support.indexed_files import IndexedFiles
from tests.support.store_node import TestNode, started_nodes

W = "acme"
LONG = "x" * 200
NOTHING = Semantics()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[TestNode]:
    async with started_nodes(tmp_path) as nodes:
        await nodes[0].writer.create_workspace(W)
        yield nodes[0]


@pytest.fixture
async def files(node: TestNode) -> IndexedFiles:
    known = IndexedFiles(node.node, W)
    await known.put(
        "github",
        {
            f"/github/issues/{number}.json": Semantics(
                properties={"state": "open" if number % 3 else "closed", "team": f"t{number % 5}"},
                relations=(f"repo/{number % 4}", "org/acme"),
                comments=(f"c{number}",),
            )
            for number in range(120)
        },
    )
    await known.put("linear", {f"/linear/{n}.json": Semantics(properties={"state": "open"}) for n in range(30)})
    await known.put("slack", {f"/slack/c{n % 3}/{n}.json": NOTHING for n in range(60)})
    await known.put("github", {"/linear/from-github.json": Semantics(permissions=("allow:agent:test", "tag"))})
    return known


async def asked(node: TestNode, **fields: object) -> file_pb2.QueryFilesResponse:
    request = file_pb2.QueryFilesRequest(workspace_id=W, **fields)  # type: ignore[arg-type]
    return await node.client.files.QueryFiles(request, metadata=node.client.metadata)


async def all_pages(node: TestNode, request: file_pb2.QueryFilesRequest) -> list[list[str]]:
    pages = []
    request.page_token = ""
    while True:
        page = await node.client.files.QueryFiles(request, metadata=node.client.metadata)
        pages.append([file.path for file in page.files])
        if not page.next_page_token:
            return pages
        request.page_token = page.next_page_token


async def refused(node: TestNode, **fields: object) -> errors.RelayfileError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await asked(node, **fields)
    return from_rpc_error(raised.value)


QUERIES = [
    {},
    {"provider": "github"},
    {"provider": "slack", "path_prefix": "/slack/c1"},
    {"provider": "linear", "path_prefix": "/"},
    {"provider": "nobody"},
    {"relation": "repo/2"},
    {"relation": "repo/2", "properties": {"state": "open"}},
    {"relation": "org/acme", "comment": "c17", "properties": {"state": "open", "team": "t2"}},
    {"properties": {"state": "open"}, "provider": "linear"},
    {"properties": {"state": "open"}, "path_prefix": "/linear"},
    {"permission": "allow:agent:test"},
    {"permission": "allow:agent:test", "provider": "linear"},
    {"path_prefix": "/github/issues"},
    {"path_prefix": "/github/issues/1.json"},
    {"comment": "c1"},
]


class TestWhatIsFound:
    @pytest.mark.parametrize("fields", QUERIES, ids=str)
    async def test_every_file_that_satisfies_all_conditions_by_path(
        self, node: TestNode, files: IndexedFiles, fields: dict[str, object]
    ) -> None:
        request = file_pb2.QueryFilesRequest(workspace_id=W, **fields)  # type: ignore[arg-type]
        expected = files.found(request)
        assert await all_pages(node, request) == [expected]
        request.page_size = 7
        pages = await all_pages(node, request)
        assert [path for page in pages for path in page] == expected
        assert all(len(page) <= 7 for page in pages)

    async def test_what_is_found_is_the_whole_file_at_the_revision_of_the_snapshot(
        self, node: TestNode, files: IndexedFiles
    ) -> None:
        answer = await asked(node, permission="tag")
        [file] = answer.files
        assert (file.path, file.provider, list(file.semantics.permissions)) == (
            "/linear/from-github.json", "github", ["allow:agent:test", "tag"]
        )  # fmt: skip
        assert answer.revision == len(files.files)

    async def test_conditions_are_trimmed_as_semantics_are(self, node: TestNode, files: IndexedFiles) -> None:
        assert len((await asked(node, relation=" repo/2 ", properties={" state": "open "})).files) == 20

    async def test_values_longer_than_a_term_are_told_apart(self, node: TestNode) -> None:
        files = IndexedFiles(node.node, W)
        await files.put(
            "github",
            {
                "/a.json": Semantics(relations=(LONG + "a",), properties={"p=q": "r", LONG: "1"}),
                "/b.json": Semantics(relations=(LONG + "b",), properties={"p": "q=r", LONG: "2"}),
            },
        )
        assert [file.path for file in (await asked(node, relation=LONG + "b")).files] == ["/b.json"]
        assert [file.path for file in (await asked(node, properties={"p": "q=r"})).files] == ["/b.json"]
        assert [file.path for file in (await asked(node, properties={"p=q": "r"})).files] == ["/a.json"]
        assert [file.path for file in (await asked(node, properties={LONG: "2"})).files] == ["/b.json"]

    async def test_min_revision_is_waited_for(self, node: TestNode, files: IndexedFiles) -> None:
        revision = len(files.files)
        waiting = asyncio.ensure_future(asked(node, comment="late", min_revision=revision + 1))
        await asyncio.sleep(0)
        await files.put("github", {"/github/late.json": Semantics(comments=("late",))})
        assert [file.path for file in (await waiting).files] == ["/github/late.json"]


class TestPages:
    async def test_a_token_belongs_to_its_query(self, node: TestNode, files: IndexedFiles) -> None:
        token = (await asked(node, relation="org/acme", page_size=5)).next_page_token
        assert isinstance(await refused(node, relation="repo/2", page_token=token), errors.PageTokenInvalid)
        assert isinstance(
            await refused(node, relation="org/acme", provider="github", page_token=token), errors.PageTokenInvalid
        )
        assert isinstance(await refused(node, relation="org/acme", page_token=token[:-2]), errors.PageTokenInvalid)
        assert (await asked(node, relation="org/acme", page_size=50, page_token=token)).files

    async def test_a_page_that_looked_at_enough_is_short_and_goes_on(
        self, node: TestNode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("relayfile.store.servicers.file_query.LOOKED_AT_MAX", 100)
        files = IndexedFiles(node.node, W)
        both = Semantics(relations=("a", "b"))
        each = {
            f"/g/{number:04d}.json": both if number == 399 else Semantics(relations=("ab"[number % 2],))
            for number in range(400)
        }
        await files.put("github", each)
        pages = await all_pages(node, file_pb2.QueryFilesRequest(workspace_id=W, relation="a", page_size=50))
        assert [len(page) for page in pages] == [50, 50, 50, 50, 1]
        await files.put("slack", {f"/g/{number:04d}.txt": NOTHING for number in range(300)} | {"/g/z": NOTHING})
        pages = await all_pages(node, file_pb2.QueryFilesRequest(workspace_id=W, provider="slack", page_size=150))
        assert len(pages) > 3
        assert sum(map(len, pages)) == 301


class TestAccess:
    async def test_only_what_the_caller_may_read_is_found(self, node: TestNode, files: IndexedFiles) -> None:
        secret = Semantics(permissions=("deny:agent:test",), relations=("org/acme",))
        await files.put(
            "linear", {"/linear/secret.json": secret, "/linear/shown.json": Semantics(relations=("org/acme",))}
        )
        assert [file.path for file in (await asked(node, relation="org/acme", path_prefix="/linear")).files] == [
            "/linear/shown.json"
        ]
        narrow = node.caller(W, scopes=("relayfile:fs:read:/linear/**",))
        request = file_pb2.QueryFilesRequest(workspace_id=W)
        seen = (await narrow.files.QueryFiles(request, metadata=narrow.metadata)).files
        linear = [path for path in sorted(files.files) if path.startswith("/linear/")]
        assert [file.path for file in seen] == [path for path in linear if path != "/linear/secret.json"]
        await narrow.channel.close()


class TestRefusals:
    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"path_prefix": "/a/../b"}, "path_prefix"),
            ({"provider": "Git Hub"}, "provider"),
            ({"relation": "  "}, "relation"),
            ({"comment": "c" * 70_000}, "comment"),
            ({"properties": {"a": ""}}, "properties"),
            ({"properties": {str(number): "x" for number in range(21)}}, "properties"),
            ({"page_size": -1}, "page_size"),
            ({"min_revision": -1}, "min_revision"),
        ],
    )
    async def test_what_is_wrong_is_named(self, node: TestNode, fields: dict[str, object], field: str) -> None:
        refusal = await refused(node, **fields)
        assert isinstance(refusal, errors.InvalidArgument)
        assert [violation.field for violation in refusal.violations] == [field]

    async def test_an_unknown_workspace(self, node: TestNode) -> None:
        request = file_pb2.QueryFilesRequest(workspace_id="nobody")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await node.client.files.QueryFiles(request, metadata=node.client.metadata)
        assert isinstance(from_rpc_error(raised.value), errors.WorkspaceNotFound)


async def test_random_edits_leave_an_index_that_finds_what_a_look_at_all_files_finds(node: TestNode) -> None:
    random = Random(20)
    files = IndexedFiles(node.node, W)
    folders = ["", "/a", "/a/b", "/a.b", "/a-b/c", "/c", "/c/d/e"]
    for step in range(40):
        path_of = {f"{random.choice(folders)}/f{random.randrange(40)}": None for _ in range(12)}
        await files.put(random.choice(("github", "linear", "slack")), {path: drawn(random) for path in path_of})
        some = random.sample(sorted(files.files), 3)
        await (files.delete(some) if step % 2 else files.move({path: f"{path}-{step}" for path in some}))
        for _ in range(4):
            request = file_pb2.QueryFilesRequest(
                workspace_id=W,
                path_prefix=random.choice(["", *folders]),
                provider=random.choice(("", "", "github", "slack")),
                relation=random.choice(("", "r1", "r2")),
                permission=random.choice(("", "", "", "allow:public")),
                properties=random.choice(({}, {}, {"p": "1"}, {"p": "2", "q": "1"})),
                page_size=random.choice((0, 3)),
            )
            pages = await all_pages(node, request)
            assert [path for page in pages for path in page] == files.found(request), request


def drawn(random: Random) -> Semantics:
    return Semantics(
        properties={name: str(random.randrange(3)) for name in "pq" if random.random() < 0.4},
        relations=tuple(sorted({f"r{random.randrange(4)}" for _ in range(random.randrange(3))})),
        permissions=("allow:public",) if random.random() < 0.2 else (),
    )


class TestWhatIsRead:
    @pytest.mark.parametrize("fields", QUERIES[1:], ids=str)
    async def test_every_statement_searches_by_key(
        self, node: TestNode, files: IndexedFiles, fields: dict[str, object]
    ) -> None:
        await asked(node)  # opens a reader
        statements = traced(node)
        await asked(node, **fields)
        assert any("file" in statement for statement in statements)
        with_plans = apsw.Connection(str(node.database), flags=apsw.SQLITE_OPEN_READONLY)
        for statement in statements:
            if not statement.startswith("SELECT"):
                continue
            bindings = (None,) * statement.count("?")
            steps = [str(row[3]) for row in with_plans.execute("EXPLAIN QUERY PLAN " + statement, bindings)]
            assert not [step for step in steps if step.startswith("SCAN") and "(subquery" not in step], steps
            assert all("shard_id=? AND workspace_id=?" in step for step in steps if step.startswith("SEARCH")), steps
        with_plans.close()

    async def test_other_providers_files_are_jumped_over(self, node: TestNode) -> None:
        files = IndexedFiles(node.node, W)
        await files.put("slack", {f"/m/{number // 50}/{number}": NOTHING for number in range(2_000)})
        await files.put("github", {f"/m/{number}/g": NOTHING for number in range(100, 104)})
        key = node.ownership.local_key(W)
        async with node.engine.view(key) as view:
            walked = await view.provider_files("github", "/", "", 20)
        assert walked.is_complete
        assert [row.path for row in walked.files] == [f"/m/{number}/g" for number in range(100, 104)]


def traced(node: TestNode) -> list[str]:
    """Every statement that readers run from now on."""
    assert isinstance(node.engine, SqliteEngine)
    statements: list[str] = []

    def note(_cursor: apsw.Cursor, statement: str, _bindings: object) -> bool:
        statements.append(statement)
        return True

    for reader in node.engine._readers:
        reader.set_exec_trace(note)
    return statements
