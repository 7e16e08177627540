"""The rendered manifests, run as processes under load: rolling updates and scaling refuse and lose no webhook.

The oracle is that of the kill tests: what was acknowledged is in the store, once, with its content.
"""

import asyncio
import itertools
import json
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from relayfile.auth import EVERY_SCOPE, KeyStore, TokenSigner
from relayfile.client import Client as FileClient
from relayfile.client import ClientLimits
from relayfile.clock import SystemClock
from relayfile.local.delivery import Sender
from tests.cluster.cluster import Cluster, running
from tests.crash.oracle import OracleLoad
from tests.crash.storm import at_work, judge
from tests.support.client import Client
from tests.support.manifests import Workload, rendered, workloads
from tests.support.webhooks import Issue

pytestmark = [pytest.mark.full, pytest.mark.timeout(400)]

W = "acme"
SECRET = "a secret of the sender"
WEBHOOKS_PER_S = 60.0
CALL_TIMEOUT_S = 120.0
"""With all repeats, while a node restarts on a crowded machine."""


class Authority:
    """Who issues tokens: the Secrets of the namespace, and a token for everything."""

    def __init__(self, directory: Path) -> None:
        keys = KeyStore(directory)
        signer = TokenSigner(keys.signing_key(), SystemClock())

        def minted(service: str = "") -> str:
            return signer.mint("test", workspaces="*", ttl_s=3600.0, scopes=(EVERY_SCOPE,), service=service)

        self.token = minted()
        self.secrets = {
            "relayfile-jwks": {"jwks.json": keys.public_file.read_text()},
            "relayfile-service-token": {"token": minted("cluster")},
            "relayfile-webhook-secrets": {f"{W}.github": SECRET},
            "relayfile-agent-token": {"token": self.token},
        }


@dataclass(slots=True)
class Running:
    """A cluster with a workspace and a client that goes through the Services."""

    cluster: Cluster
    client: Client
    directory: Path

    def load(self, *, keeps_alive: bool = True) -> OracleLoad:
        return OracleLoad(
            url=f"http://{self.cluster.service('relayfile-ingest')}:7430",
            workspace=W,
            secret=SECRET,
            log=str(self.directory / "oracle.log"),
            rate=WEBHOOKS_PER_S,
            connections=8,
            keeps_alive=keeps_alive,
            answer_timeout_s=40.0,
        )


@asynccontextmanager
async def deployed(overlay: str, directory: Path, *only: str) -> AsyncIterator[Running]:
    authority = Authority(directory / "authority")
    async with running(rendered(f"overlays/{overlay}"), directory, authority.secrets) as cluster:
        await cluster.start(*only)
        store = f"{cluster.service('relayfile-store')}:7420"
        ingest = f"{cluster.service('relayfile-ingest')}:7431"
        client = Client(ingest_address=ingest, node_addresses=(store,), syncd_address="", token=authority.token)
        try:
            await client.create_workspace(W)
            yield Running(cluster, client, directory)
        finally:
            await client.close()


@asynccontextmanager
async def files_written(at: Running) -> AsyncIterator[None]:
    """Files that are written and read back all the time, in workspaces of all nodes, by the Python client: it repeats
    what a node that restarts does not answer."""
    names = [f"files-{number}" for number in range(6)]
    stopping = asyncio.Event()
    limits = ClientLimits(call_timeout_s=CALL_TIMEOUT_S)
    async with FileClient(at.client.node_addresses[0], at.client.token, limits=limits) as client:
        for name in names:
            await client.workspaces.create(name)

        async def write(name: str) -> None:
            files = client.workspace(name).files
            for number in itertools.count(1):
                path, content = f"/notes/{number % 5}.md", b"%d" % number
                await files.write(path, content, force=True)
                assert (await files.read(path)).data == content
                if stopping.is_set():
                    return

        async with asyncio.TaskGroup() as tasks:
            for name in names:
                tasks.create_task(write(name))
            yield
            stopping.set()


async def answered(at: Running, more: int = 200) -> None:
    """Until so many more webhooks were answered, as far as the oracle has written it down."""
    log = Path(at.load().log)

    def answers() -> int:
        return log.read_text().count('"what": "A"') if log.exists() else 0

    until = answers() + more
    for _ in range(1_200):
        if answers() >= until:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"fewer than {until} answers")


async def judged(at: Running, refused_from_s: float = float("inf")) -> None:
    """Nothing lost, and before that time nothing refused or unanswered; no pod ended but in order and by itself."""
    log = Path(at.load().log)
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    told = [entry for entry in entries if entry["what"] not in ("S", "A") and entry["at"] < refused_from_s]
    assert not told, f"{len(told)} of {len(entries)}, such as {told[:3]}"
    history = await judge(at.client, W, log, refused_may_be_stored=refused_from_s < float("inf"))
    assert history.acked
    pods = [*at.cluster.gone, *at.cluster.present()]
    assert [(pod.name, pod.restarts, pod.was_killed) for pod in pods if pod.restarts or pod.was_killed] == []
    assert {code for pod in at.cluster.gone for code in pod.exit_codes} == {0}


async def test_a_rolling_update_of_production_refuses_no_webhook(tmp_path: Path) -> None:
    async with deployed("production", tmp_path) as at:
        async with at_work(at.load()), files_written(at):
            # As `kubectl apply` of another image: every set goes on by itself.
            await asyncio.gather(*(at.cluster.roll(name) for name in at.cluster.workloads))
        assert len(at.cluster.gone) == 7
        if os.geteuid() == 0:
            before, now = ({pod.address for pod in pods} for pods in (at.cluster.gone, at.cluster.present()))
            assert not before & now, "names had to lead to where the new pods are"
        await judged(at)


async def test_scaling_ingest_from_three_to_one_loses_nothing(tmp_path: Path) -> None:
    async with deployed("production", tmp_path, "relayfile-store", "relayfile-ingest") as at:
        await at.cluster.scale("relayfile-ingest", 3)
        async with at_work(at.load(keeps_alive=False)):
            await answered(at)
            await at.cluster.scale("relayfile-ingest", 1)
            await answered(at)
        await judged(at)


async def test_ingest_without_a_spool_is_rolled_and_scaled_and_loses_nothing(tmp_path: Path) -> None:
    async with deployed("stateless-ingest", tmp_path, "relayfile-store", "relayfile-ingest") as at:
        async with at_work(at.load()):
            await at.cluster.roll("relayfile-ingest")
            await at.cluster.scale("relayfile-ingest", 3)
            await at.cluster.scale("relayfile-ingest", 1)
            # A node that is away: the sender hears it, and repeats.
            rolled_s = time.time()
            async with files_written(at):
                await at.cluster.roll("relayfile-store")
        await judged(at, rolled_s)


async def test_a_job_adopts_the_spool_of_a_pod_that_is_gone(tmp_path: Path) -> None:
    async with deployed("production", tmp_path, "relayfile-store", "relayfile-ingest") as at:
        async with at_work(at.load()):
            await answered(at)
            await at.cluster.scale("relayfile-store", 0)
            await answered(at)
            await at.cluster.lose(at.cluster.pods("relayfile-ingest")[1])
        await at.cluster.scale("relayfile-store", 3)
        [job] = workloads("jobs/adopt-spool")
        second = Workload(json.loads(json.dumps(job.object).replace("ordinal", "1")), job.around)
        code, said = await at.cluster.run_job(second)
        taken = re.search(r"(\d+) of (\d+) changes taken, 0 left", said)
        assert code == 0, said
        assert taken is not None, said
        assert taken[1] == taken[2] != "0", "the pod had accepted what the store did not have"
        await judge(at.client, W, Path(at.load().log))


async def test_development_mirrors_a_webhook_beside_an_agent(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    authority.secrets["relayfile-webhook-secrets"] = {"demo.github": SECRET}
    async with running(rendered("overlays/dev"), tmp_path, authority.secrets) as cluster:
        await cluster.start("relayfile-store", "relayfile-ingest", "relayfile-syncd")
        issue = Issue(1, "seen by the agent")
        async with Sender(f"http://{cluster.service('relayfile-ingest')}:7430") as sender:
            answer = await sender.post(issue.delivery("demo", SECRET))
        assert answer.status == 200, answer.body
        # The first webhook makes the workspace, which the agent's pod waits for.
        await cluster.start("relayfile-agent-example")
        [agent] = cluster.pods("relayfile-agent-example")
        await appeared(cluster.volume(agent, "workspace") / f"demo{issue.path}", issue)
        # Ingest and the mirror find the node where it is now.
        await cluster.roll("relayfile-store")
        issue = Issue(2, "seen after the node had moved")
        async with Sender(f"http://{cluster.service('relayfile-ingest')}:7430") as sender:
            answer = await sender.post(issue.delivery("demo", SECRET))
        assert answer.status == 200, answer.body
        await appeared(cluster.volume(agent, "workspace") / f"demo{issue.path}", issue)


async def appeared(mirrored: Path, issue: Issue) -> None:
    for _ in range(600):
        if mirrored.exists():
            break
        await asyncio.sleep(0.1)
    assert json.loads(mirrored.read_bytes()) == issue.content
