"""What the objects name of one another is there: Services, volumes, scraped ports, the collector's, settings."""

import re

import pytest
import yaml

from relayfile.settings import IngestSettings, StoreSettings, SyncdSettings, load
from relayfile.settings.environment import GROUPS, definitions
from tests.support.manifests import OVERLAYS, ROOT, Object, Workload, of_kind, one, rendered, selects, workloads

MEASURED_PEAK_BYTES = 300 * 10**6
"""Nothing that is measured may take more (docs/benchmarks.md, P12 and P3b)."""
OURS = [
    pytest.param(workload, container, id=f"{name}-{workload.name}")
    for name in OVERLAYS
    for workload in workloads(f"overlays/{name}")
    if workload.is_ours
    for container in workload.lasting
    if container.get("args", [""])[0] in GROUPS
]
SERVICES = {"relayfile-store", "relayfile-store-nodes", "relayfile-ingest", "relayfile-ingest-peers", "relayfile-syncd"}


def texts(workload: Workload, container: Object) -> dict[str, str]:
    """A container's variables; what the cluster fills in is 0."""
    return {name: value if isinstance(value, str) else "0" for name, value in workload.environment(container).items()}


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_service_leads_to_the_pods_of_one_workload(name: str) -> None:
    objects = rendered(f"overlays/{name}")
    found = {}
    for service in of_kind(objects, "Service"):
        selector = {"matchLabels": service["spec"]["selector"]}
        [workload] = [each for each in workloads(f"overlays/{name}") if selects(selector, each.labels)]
        named = {each["name"] for container in workload.containers for each in container.get("ports", [])}
        assert {each["targetPort"] for each in service["spec"]["ports"]} <= named
        found[service["metadata"]["name"]] = workload
    left_out = {"relayfile-ingest-peers"} if name == "stateless-ingest" else set()
    assert found.keys() - {"relayfile-otel-collector"} == SERVICES - left_out, "the docs and clients name these"
    for each in of_kind(objects, "StatefulSet"):
        headless = one(objects, "Service", each["spec"]["serviceName"])
        assert headless["spec"]["clusterIP"] == "None"
        assert found[headless["metadata"]["name"]].name == each["metadata"]["name"], "its pods would have no names"


@pytest.mark.parametrize(("workload", "container"), OURS)
def test_what_a_process_keeps_lies_on_its_volume(workload: Workload, container: Object) -> None:
    kept = texts(workload, container).get("RELAYFILE_DATA_DIR")
    if workload.kind == "Deployment":
        mounted = {each["name"]: each for each in workload.pod["volumes"]}
        assert all("emptyDir" in each or "secret" in each for each in mounted.values())
        return
    [claim] = workload.object["spec"]["volumeClaimTemplates"]
    [place] = [each for each in container["volumeMounts"] if f"{kept}/".startswith(f"{each['mountPath']}/")]
    assert place["name"] == claim["metadata"]["name"]


@pytest.mark.parametrize(("workload", "container"), OURS)
def test_a_process_is_told_what_it_reads(workload: Workload, container: Object) -> None:
    read = {variable for _, variable, _ in definitions(GROUPS[container["args"][0]])}
    own = {each["name"] for each in container.get("env", [])}
    for source in container["envFrom"]:
        config = one(workload.around, "ConfigMap", source["configMapRef"]["name"])
        assert all(variable.startswith("RELAYFILE_") for variable in config["data"])
        if not re.fullmatch(r"relayfile-\w+", config["metadata"]["name"]):  # not the one of all processes
            own |= config["data"].keys()
    assert own <= read


@pytest.mark.parametrize(("workload", "container"), OURS)
def test_memory_holds_what_was_measured_and_what_may_wait(workload: Workload, container: Object) -> None:
    variables = texts(workload, container)
    match container["args"][0]:
        case "store":
            store = load(StoreSettings, variables)
            waiting_bytes = store.node_queue_bytes_max + store.commit_bytes_max
        case "ingest":
            ingest = load(IngestSettings, variables)
            waiting_bytes = ingest.bodies_bytes_max + ingest.in_flight_bytes_max + ingest.spool_read_bytes_max
        case _:
            waiting_bytes = load(SyncdSettings, variables).sync_read_bytes_max
    asked, allowed = (
        int(container["resources"][what]["memory"].removesuffix("Mi").replace("1Gi", "1024")) << 20
        for what in ("requests", "limits")
    )
    assert asked >= MEASURED_PEAK_BYTES
    assert allowed >= 1.25 * (MEASURED_PEAK_BYTES + waiting_bytes)


def test_every_process_is_scraped_where_it_tells_its_figures() -> None:
    monitor = one(rendered("overlays/production"), "PodMonitor", "relayfile")
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    for name in OVERLAYS:
        for workload in workloads(f"overlays/{name}"):
            if workload.is_ours:
                assert selects(monitor["spec"]["selector"], workload.labels), workload.name
                told = [
                    each for container in workload.lasting for each in container.get("ports", [])
                    if each["name"] == endpoint["port"]
                ]  # fmt: skip
                assert len(told) == 1
    assert endpoint["port"] == "metrics", "compared with the settings elsewhere"
    assert f'case "{endpoint["path"]}":' in (ROOT / "relayfile/serving.py").read_text()
    assert "namespaceSelector" not in monitor["spec"], "its own namespace"


def test_the_collector_listens_where_spans_are_sent_and_keeps_within_its_memory() -> None:
    objects = rendered("overlays/production")
    collector = Workload(one(objects, "Deployment", "relayfile-otel-collector"), objects)
    [container] = collector.containers
    [volume] = collector.pod["volumes"]
    config = yaml.safe_load(one(objects, "ConfigMap", volume["configMap"]["name"])["data"]["config.yaml"])
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert config["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"] == f"0.0.0.0:{ports['otlp']}"
    assert config["extensions"]["health_check"]["endpoint"] == f"0.0.0.0:{ports['health']}"
    assert {container[f"{each}Probe"]["httpGet"]["port"] for each in ("startup", "readiness", "liveness")} == {"health"}
    assert config["service"]["extensions"] == ["health_check"]
    [mount] = container["volumeMounts"]
    assert container["args"] == [f"--config={mount['mountPath']}/config.yaml"]
    pipeline = config["service"]["pipelines"]["traces"]
    assert pipeline["processors"][0] == "memory_limiter", "before anything else that keeps spans"
    for part in ("receivers", "processors", "exporters"):
        assert set(pipeline[part]) <= config[part].keys()


@pytest.mark.parametrize("name", ["production", "stateless-ingest"])
def test_the_autoscaler_can_scale(name: str) -> None:
    objects = rendered(f"overlays/{name}")
    spec = one(objects, "HorizontalPodAutoscaler", "relayfile-ingest")["spec"]
    ingest = Workload(one(objects, spec["scaleTargetRef"]["kind"], "relayfile-ingest"), objects)
    assert spec["maxReplicas"] >= 2 * spec["minReplicas"]
    cpu = spec["metrics"][0]["resource"]
    assert cpu["name"] == "cpu"
    assert 0 < cpu["target"]["averageUtilization"] < 100, "of what is requested"
    assert all("cpu" in each["resources"]["requests"] for each in ingest.containers)
    up = spec["behavior"]["scaleUp"]
    assert (up["stabilizationWindowSeconds"], up["selectPolicy"]) == (0, "Max")
    targets = [each["pods"]["target"] for each in spec["metrics"][1:]]
    assert all(each["type"] == "AverageValue" and float(each["averageValue"]) >= 1 for each in targets)


def test_the_example_mirrors_into_a_directory_of_the_pod_before_and_after_its_agent() -> None:
    objects = rendered("overlays/dev")
    pod = one(objects, "Deployment", "relayfile-agent-example")["spec"]["template"]["spec"]
    syncd, mirror = pod["initContainers"]
    [agent] = pod["containers"]
    assert (syncd["name"], syncd["restartPolicy"]) == ("syncd", "Always"), "a sidecar: first to start, last to stop"
    assert "restartPolicy" not in mirror
    [shared] = agent["volumeMounts"]
    assert all(shared in each["volumeMounts"] for each in (syncd, mirror))
    [volume] = [each for each in pod["volumes"] if each["name"] == shared["name"]]
    assert volume["emptyDir"]["sizeLimit"]
    assert mirror["args"][3].startswith(f"{shared['mountPath']}/")


def test_a_deployment_of_ingest_never_has_a_pod_less() -> None:
    strategy = one(rendered("overlays/stateless-ingest"), "Deployment", "relayfile-ingest")["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_namespace_refuses_pods_that_are_not_restricted(name: str) -> None:
    objects = rendered(f"overlays/{name}")
    [namespace] = of_kind(objects, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {each["metadata"]["namespace"] for each in objects if each["kind"] != "Namespace"} == {
        namespace["metadata"]["name"]
    }
