"""Ports, health services, variables, commands and metrics of the manifests are those of the code."""

import json
import re
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from typer.main import get_command

from relayfile import __version__
from relayfile.cli import app
from relayfile.serving import LIVE
from relayfile.settings import IngestSettings, StoreSettings, SyncdSettings, load
from relayfile.telemetry import IngestInstruments, RpcInstruments, StoreInstruments, SyncdInstruments
from relayfile.v1 import file_pb2, ingest_pb2, mirror_pb2
from tests.support.dockerfile import stages
from tests.support.manifests import KUBERNETES, OVERLAYS, ROOT, Object, Workload, of_kind, one, rendered, workloads

Settings = IngestSettings | StoreSettings | SyncdSettings
PROCESSES = {
    "store": set(file_pb2.DESCRIPTOR.services_by_name),
    "ingest": set(ingest_pb2.DESCRIPTOR.services_by_name),
    "syncd": set(mirror_pb2.DESCRIPTOR.services_by_name),
}
PROCESSING = [
    pytest.param(workload, container, id=f"{name}-{workload.name}")
    for name in OVERLAYS
    for workload in workloads(f"overlays/{name}")
    if workload.is_ours
    for container in workload.lasting
    if container.get("args", [""])[0] in PROCESSES
]
EVERY_CONTAINER = [
    pytest.param(workload, container, id=f"{directory}-{workload.name}-{container['name']}")
    for directory in (*(f"overlays/{name}" for name in OVERLAYS), "jobs/adopt-spool")
    for workload in workloads(directory)
    for container in workload.containers
    if "relayfile" in container["image"]
]


def settings_of(workload: Workload, container: Object) -> Settings:
    """What the process would read; `SettingError` for what it would refuse."""
    variables = workload.environment(container)
    texts = {name: value if isinstance(value, str) else "0" for name, value in variables.items()}
    match container["args"][0]:
        case "store":
            return load(StoreSettings, texts)
        case "ingest":
            return load(IngestSettings, texts)
        case _:
            return load(SyncdSettings, texts)


@pytest.mark.parametrize(("workload", "container"), PROCESSING)
def test_a_process_takes_its_variables(workload: Workload, container: Object) -> None:
    settings = settings_of(workload, container)
    assert settings.jwks_file is not None
    assert settings.service_token_file is not None, "without it a process would sign its own, with a key of its own"
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    for path in (settings.jwks_file, settings.service_token_file):
        assert str(path.parent) in mounts
    assert any(settings.data_dir.is_relative_to(mount) for mount in mounts) or workload.kind == "Deployment"
    variables = workload.environment(container)
    for name, value in variables.items():
        if not isinstance(value, str):
            assert (name, value) == (
                "RELAYFILE_NODE_INDEX",
                {"fieldRef": {"fieldPath": "metadata.labels['apps.kubernetes.io/pod-index']"}},
            )


@pytest.mark.parametrize(("workload", "container"), PROCESSING)
def test_ports_are_those_that_a_process_listens_on(workload: Workload, container: Object) -> None:
    settings = settings_of(workload, container)
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    listened = {"metrics": settings.admin_http_address, "health": settings.admin_grpc_address}
    if isinstance(settings, IngestSettings):
        listened |= {"http": settings.http_address, "grpc": settings.grpc_address}
    else:
        listened["grpc"] = settings.address
    if workload.name == "relayfile-agent-example":
        assert listened["grpc"].startswith("127.0.0.1:"), "for the pod alone"
    assert ports == {name: int(address.rpartition(":")[2]) for name, address in listened.items()}
    for service in of_kind(workload.around, "Service"):
        if service["spec"].get("selector") and service["spec"]["selector"].items() <= workload.labels.items():
            for port in service["spec"]["ports"]:
                assert port["port"] == ports[port["targetPort"]]


@pytest.mark.parametrize(("workload", "container"), PROCESSING)
def test_probes_ask_for_health_that_is_served(workload: Workload, container: Object) -> None:
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    services = PROCESSES[container["args"][0]]
    for probe, expected in (
        ("startupProbe", {LIVE}),
        ("livenessProbe", {LIVE}),
        ("readinessProbe", {f"relayfile.v1.{name}" for name in services}),
    ):
        asked = container[probe]["grpc"]
        assert asked["port"] == ports["health"]
        assert asked["service"] in expected


@pytest.mark.parametrize(("workload", "container"), EVERY_CONTAINER)
def test_commands_are_those_of_the_image(workload: Workload, container: Object) -> None:
    final = stages((ROOT / "Dockerfile").read_text())[-1]
    assert [json.loads(each) for each in final.of("ENTRYPOINT")] == [["relayfile"]]
    assert "command" not in container
    assert final.of("USER") == [f"{workload.pod['securityContext']['runAsUser']}:65532"]
    command: Any = get_command(app)
    words = list(container["args"])
    while words and hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    options = {option for each in command.params for option in each.opts}
    assert {word for word in words if word.startswith("--")} <= options
    assert container["image"].rpartition(":")[2] in {__version__, "dev"}


def exported() -> set[str]:
    """The names of all series that the processes export."""
    registry = CollectorRegistry()
    for group in (RpcInstruments, IngestInstruments, StoreInstruments, SyncdInstruments):
        group.declare(registry)
    names: set[str] = set()
    for family in registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        names |= {family.name + suffix for suffix in suffixes}
    return names


RULES = yaml.safe_load((KUBERNETES / "components/metrics-adapter/rules.yaml").read_text())["rules"]


def test_the_metrics_in_the_manifests_are_exported() -> None:
    kubernetes = one(rendered("overlays/production"), "PrometheusRule", "relayfile-kubernetes")
    alerts = [rule["expr"] for group in kubernetes["spec"]["groups"] for rule in group["rules"]]
    said = [*alerts, *(rule["seriesQuery"] for rule in RULES), *(rule["name"]["matches"] for rule in RULES)]
    names = {name for text in said for name in re.findall(r"\brelayfile_\w+", text)}
    assert len(names) == 3
    assert names <= exported()


def test_the_autoscaler_asks_for_what_the_adapter_serves() -> None:
    [config] = [
        yaml.safe_load(each["data"]["config.yaml"])
        for each in of_kind(rendered("overlays/production"), "ConfigMap")
        if each["metadata"]["name"] == "relayfile-metrics-adapter-rules"
    ]
    assert config["rules"] == RULES
    scaler = one(rendered("overlays/production"), "HorizontalPodAutoscaler", "relayfile-ingest")
    asked = {each["pods"]["metric"]["name"] for each in scaler["spec"]["metrics"] if each["type"] == "Pods"}
    assert asked == {rule["name"]["as"] for rule in RULES}
    assert all(rule["resources"]["overrides"].keys() == {"namespace", "pod"} for rule in RULES)


def test_a_metric_that_is_missing_is_not_zero() -> None:
    for rule in RULES:
        query = rule["metricsQuery"]
        assert not re.search(r"\bor\b|vector\(|absent|clamp", query), "it would make a number of nothing"
        # NaN is served as 0 by the adapter: a rate of counters has none, a comparison drops it.
        assert "rate(" in query or ">= 0" in query
    registry = CollectorRegistry()
    instruments = IngestInstruments.declare(registry)
    # What the autoscaler reads has no labels of ours: it is there from the start, and an idle pod says 0 itself.
    assert instruments.accept_seconds._labelnames == instruments.sendable_age_seconds._labelnames == ()


def test_the_place_of_spools_is_the_one_that_the_job_and_the_alert_name() -> None:
    objects = rendered("overlays/production")
    [claim] = one(objects, "StatefulSet", "relayfile-ingest")["spec"]["volumeClaimTemplates"]
    prefix = f"{claim['metadata']['name']}-relayfile-ingest-"
    [job] = workloads("jobs/adopt-spool")
    claims = [
        each["persistentVolumeClaim"]["claimName"]
        for each in job.pod["volumes"]
        if len(each) == 2 and "persistentVolumeClaim" in each
    ]
    assert claims == [f"{prefix}ordinal"]
    [container] = job.containers
    assert [each["mountPath"] for each in container["volumeMounts"] if each["name"] == "spool"] == [
        container["args"][2]
    ]
    assert load(IngestSettings, {k: str(v) for k, v in job.environment(container).items()}).ingest_peers
    [rule] = one(objects, "PrometheusRule", "relayfile-kubernetes")["spec"]["groups"][0]["rules"]
    assert f'"{prefix}[0-9]+"' in rule["expr"]
    page, _, heading = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^## (.*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert heading in {each.lower().replace(" ", "-") for each in headings}
