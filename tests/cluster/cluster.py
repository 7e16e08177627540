"""A namespace of rendered objects that runs: Services, sets and Deployments, rolled and scaled as controllers do it."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.cluster import names
from tests.cluster.making import Place, make_pod
from tests.cluster.names import NameServer
from tests.cluster.network import Loopback, ServiceProxy
from tests.cluster.pod import Pod
from tests.support.manifests import Object, Workload, of_kind, selects

PROPAGATION_S = 2.0
"""How long connections still lead to a pod that was deleted: not everybody hears of it at once."""


class Cluster:
    """See the module; made by `running`."""

    def __init__(
        self,
        objects: Sequence[Object],
        root: Path,
        secrets: Mapping[str, Mapping[str, str]],
        tasks: asyncio.TaskGroup,
        *,
        confines: bool,
    ) -> None:
        self.gone: list[Pod] = []
        """Pods that were deleted and have ended."""
        self.workloads = {
            each["metadata"]["name"]: Workload(each, objects)
            for each in of_kind(objects, "StatefulSet", "Deployment")
            if Workload(each, objects).is_ours
        }
        self._services = {each["metadata"]["name"]: each for each in of_kind(objects, "Service")}
        self._network = Loopback()
        self._addresses: dict[str, str] = {}
        self._proxies: list[ServiceProxy] = []
        self._names: NameServer | None = None
        resolver_file = None
        if confines:
            [namespace] = {each["metadata"]["namespace"] for each in self._services.values()}
            self._names = NameServer(self._network.address(), namespace, self._look_up)
            resolver_file = root / "resolv.conf"
            resolver_file.write_text(names.resolver_file(self._names.address, namespace))
        self._place = Place(root, secrets, self._resolve, resolver_file)
        self._pods: dict[str, list[Pod]] = {name: [] for name in self.workloads}
        self._numbers = itertools.count(1)
        self._changed = asyncio.Event()
        self._tasks = tasks

    # ... what a test asks

    def service(self, name: str) -> str:
        """The address of a Service."""
        return self._address(name)

    def pods(self, workload: str) -> Sequence[Pod]:
        """Those that were not deleted, oldest or lowest first."""
        return [pod for pod in self._pods[workload] if not pod.deleted.is_set()]

    def present(self) -> list[Pod]:
        """Those of all workloads."""
        return [pod for name in self.workloads for pod in self.pods(name)]

    def claims(self, workload: str) -> dict[str, Path]:
        """The volumes of a set, by name, of pods that are gone too."""
        folder = self._place.root / "claims"
        return {each.name: each for each in folder.iterdir() if f"-{workload}-" in each.name}

    def volume(self, pod: Pod, name: str) -> Path:
        """Where an emptyDir of a pod is."""
        [found] = self._place.root.glob(f"pods/{pod.name}-*/volumes/{name}")
        return found

    async def start(self, *names: str) -> None:
        """The pods of these workloads, or of all, until they are ready. A number that is left out is the
        autoscaler's."""
        chosen = [self.workloads[name] for name in names or self.workloads]
        made = [self._make(workload, number) for workload in chosen for number in range(self._wanted(workload))]
        await self._until(lambda: all(pod.is_ready for pod in made))

    async def roll(self, name: str) -> None:
        """What a changed template does: every pod is replaced, one after the other."""
        workload = self.workloads[name]
        for old in reversed(self.pods(name)):
            if workload.kind == "StatefulSet":
                number = int(old.name.rpartition("-")[2])
                await self._end(old)
                await self._until_ready(self._make(workload, number))
            else:
                assert workload.object["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
                await self._until_ready(self._make(workload, 0))
                old.delete()
        await self._until(lambda: len(self._pods[name]) == len(self.pods(name)))

    async def scale(self, name: str, count: int) -> None:
        """Another number of pods; those that are too many go together, those that are new come together."""
        workload, present = self.workloads[name], self.pods(name)
        assert workload.object["spec"].get("podManagementPolicy", "Parallel") == "Parallel"
        await asyncio.gather(*(self._end(pod) for pod in present[count:]))
        new = [self._make(workload, number) for number in range(len(present), count)]
        await asyncio.gather(*map(self._until_ready, new))

    async def lose(self, pod: Pod) -> None:
        """A machine dies, and its pod is not made again, as when a set is scaled down meanwhile."""
        pod.lose()
        await self._until(lambda: pod in self.gone)

    async def run_job(self, job: Workload) -> tuple[int | None, str]:
        """A Job's pod, once: the exit code and what it wrote."""
        pod = make_pod(job, job.name, self._network.address(), self._place, next(self._numbers))
        [container] = pod.containers
        container.start()
        return await container.ended(), container.tail()

    # ... pods

    def _make(self, workload: Workload, number: int) -> Pod:
        generation = next(self._numbers)
        is_set = workload.kind == "StatefulSet"
        name = f"{workload.name}-{number}" if is_set else f"{workload.name}-{generation:05x}"
        # A name leads to another address when its pod is made anew, unless addresses stand for names.
        address = self._network.address() if self._names else self._address(name)
        pod = make_pod(workload, name, address, self._place, generation)
        pod.changed = self._changed.set
        self._pods[workload.name].append(pod)
        self._pods[workload.name].sort(key=lambda each: each.name)
        self._tasks.create_task(self._run(workload.name, pod))
        return pod

    async def _run(self, workload: str, pod: Pod) -> None:
        await pod.run()
        self._pods[workload].remove(pod)
        self.gone.append(pod)
        self._changed.set()

    async def _end(self, pod: Pod) -> None:
        pod.delete()
        await self._until(lambda: pod in self.gone)

    async def _until_ready(self, pod: Pod) -> None:
        await self._until(lambda: pod.is_ready)

    async def _until(self, holds: Callable[[], bool]) -> None:
        # Waited for in turns: several may wait, and one may have taken the news of another.
        while not holds():
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), 0.2)
            except TimeoutError:
                continue

    def _wanted(self, workload: Workload) -> int:
        said = workload.object["spec"].get("replicas")
        if said is not None:
            return int(said)
        [scaler] = [
            each
            for each in of_kind(workload.around, "HorizontalPodAutoscaler")
            if each["spec"]["scaleTargetRef"]["name"] == workload.name
        ]
        return int(scaler["spec"]["minReplicas"])

    # ... names and Services

    async def serve(self) -> None:
        """Listen at the addresses of all Services, and answer for their names."""
        if self._names:
            await self._names.start()
        for service in self._services.values():
            if not (self._names and _is_headless(service)):
                await self._serve(service)

    def _address(self, name: str) -> str:
        if name not in self._addresses:
            self._addresses[name] = self._network.address()
        return self._addresses[name]

    def _resolve(self, name: str) -> str | None:
        """`<pod>.<headless Service>` or a Service."""
        host, _, service = name.rpartition(".")
        if self._names or service not in self._services:
            return None
        return self._address(host or service)

    def _look_up(self, name: str) -> list[str] | None:
        """As `_resolve`, at this moment."""
        host, _, service = name.rpartition(".")
        said = self._services.get(service)
        if said is None or (host and not _is_headless(said)):
            return None
        if not _is_headless(said):
            return [self._address(service)]
        found = [pod.address for pod in self._endpoints(said) if host in ("", pod.name)]
        return None if host and not found else found

    def _endpoints(self, service: Object) -> list[Pod]:
        """Whom a Service leads to, as far as others have heard."""
        selector = {"matchLabels": service["spec"]["selector"]}
        heard_s = asyncio.get_running_loop().time() - PROPAGATION_S
        takes_all = service["spec"].get("publishNotReadyAddresses", False)
        return [
            pod
            for pod in itertools.chain.from_iterable(self._pods.values())
            if selects(selector, pod.labels) and (takes_all or (pod.is_ready and pod.deleted_s > heard_s))
        ]

    async def _serve(self, service: Object) -> None:
        selector = {"matchLabels": service["spec"]["selector"]}
        targets = [each for each in self.workloads.values() if selects(selector, each.labels)]
        named = {
            port["name"]: port["containerPort"]
            for workload in targets
            for container in workload.containers
            for port in container.get("ports", [])
        }
        ports = {each["port"]: named[each["targetPort"]] for each in service["spec"]["ports"] if named}

        def endpoints() -> list[str]:
            return [pod.address for pod in self._endpoints(service)]

        proxy = ServiceProxy(self._address(service["metadata"]["name"]), ports, endpoints)
        await proxy.start()
        self._proxies.append(proxy)

    async def stop(self) -> None:
        """Delete everything, and wait for its end."""
        left = [pod for pods in self._pods.values() for pod in pods]
        for pod in left:
            pod.delete()
        await self._until(lambda: not any(self._pods.values()))

    async def close(self) -> None:
        """Listen no more."""
        if self._names:
            self._names.close()
        for proxy in self._proxies:
            await proxy.close()


def _is_headless(service: Object) -> bool:
    return bool(service["spec"].get("clusterIP") == "None")


@asynccontextmanager
async def running(
    objects: Sequence[Object], root: Path, secrets: Mapping[str, Mapping[str, str]]
) -> AsyncIterator[Cluster]:
    """A cluster without pods so far. At the end all are deleted, and must end.

    Where the tests have root, pods are confined (`confining`) and find one another by names (`names`).
    """
    async with asyncio.TaskGroup() as tasks:
        cluster = Cluster(objects, root, secrets, tasks, confines=os.geteuid() == 0)
        try:
            await cluster.serve()
            yield cluster
            await cluster.stop()
        finally:
            await cluster.close()
