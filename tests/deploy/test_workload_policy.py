"""What a platform team asks of each workload, asserted of the rendered objects."""

import re

import pytest

from relayfile.lifecycle import Lifecycle
from relayfile.settings.definition import parse_duration, parse_size
from tests.support.manifests import (
    NAME,
    OVERLAYS,
    PART_OF,
    Workload,
    of_kind,
    one,
    rendered,
    selects,
    workloads,
)

SHUTDOWN_GRACE_S = 20.0
"""The default."""
ALL = [
    (f"{directory}-{each.name}", each)
    for directory in (*(f"overlays/{name}" for name in OVERLAYS), "jobs/adopt-spool")
    for each in workloads(directory)
]
EVERYTHING = [pytest.param(each, id=name) for name, each in ALL]
SERVING = [pytest.param(each, id=name) for name, each in ALL if each.kind != "Job"]
OURS = [pytest.param(each, id=name) for name, each in ALL if each.kind != "Job" and each.is_ours]
FULL = ("overlays/production", "overlays/stateless-ingest")


@pytest.mark.parametrize("workload", SERVING)
def test_everything_that_lasts_is_probed(workload: Workload) -> None:
    for container in workload.lasting:
        if workload.name == "relayfile-agent-example" and container["name"] == "agent":
            continue  # stands for something that is not ours
        startup, ready, live = (container[f"{each}Probe"] for each in ("startup", "readiness", "liveness"))
        patience_s = startup["periodSeconds"] * startup["failureThreshold"]
        assert patience_s >= 60, "a first start, or one after an upgrade, takes its time"
        assert live["periodSeconds"] * live.get("failureThreshold", 3) >= 60, "a busy process is not a dead one"
        assert ready != live


@pytest.mark.parametrize("workload", EVERYTHING)
def test_pods_are_restricted(workload: Workload) -> None:
    pod = workload.pod["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["runAsUser"] >= 10_000
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & workload.pod.keys()
    assert not [each for each in workload.pod["volumes"] if "hostPath" in each]
    for container in workload.containers:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@pytest.mark.parametrize("workload", EVERYTHING)
def test_pods_say_what_they_take(workload: Workload) -> None:
    for container in workload.containers:
        resources = container["resources"]
        for what in ("requests", "limits"):
            assert {"cpu", "memory"} <= resources[what].keys()
        assert _bytes(resources["requests"]["memory"]) <= _bytes(resources["limits"]["memory"])


@pytest.mark.parametrize("workload", EVERYTHING)
def test_pods_have_no_rights_at_the_api_server(workload: Workload) -> None:
    objects = [each for name in OVERLAYS for each in rendered(f"overlays/{name}")]
    accounts = {each["metadata"]["name"]: each for each in of_kind(objects, "ServiceAccount")}
    assert accounts[workload.pod["serviceAccountName"]]["automountServiceAccountToken"] is False
    assert workload.pod["automountServiceAccountToken"] is False
    assert workload.pod["enableServiceLinks"] is False
    assert not list(of_kind(objects, "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"))


@pytest.mark.parametrize("workload", SERVING)
def test_pods_are_spread_and_not_all_taken_at_once(workload: Workload) -> None:
    budgets = [
        each
        for each in of_kind(workload.around, "PodDisruptionBudget")
        if selects(each["spec"]["selector"], workload.labels)
    ]
    [budget] = budgets
    assert budget["spec"]["maxUnavailable"] == 1
    assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow", "what is not ready holds up no machine"
    spread = workload.pod["topologySpreadConstraints"]
    apart = {"kubernetes.io/hostname"} | ({"topology.kubernetes.io/zone"} if workload.is_ours else set())
    assert {each["topologyKey"] for each in spread} == apart
    assert all(selects(each["labelSelector"], workload.labels) for each in spread)
    assert {each["whenUnsatisfiable"] for each in spread} == {"ScheduleAnyway"}, "a small cluster runs it too"


def test_no_two_store_nodes_of_production_share_a_machine() -> None:
    for directory in FULL:
        store = Workload(one(rendered(directory), "StatefulSet", "relayfile-store"), rendered(directory))
        [term] = store.pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert term["topologyKey"] == "kubernetes.io/hostname"
        assert selects(term["labelSelector"], store.labels)


def test_connections_that_begin_anew_leave_time_for_what_does_not_resume() -> None:
    for directory in FULL:
        for workload in workloads(directory):
            for container in workload.lasting if workload.is_ours else ():
                variables = workload.environment(container)
                assert parse_duration(str(variables["RELAYFILE_STREAM_AGE_MAX"])) > 0
                grace_s = parse_duration(str(variables["RELAYFILE_STREAM_AGE_GRACE"]))
                assert grace_s >= 12 * 3600, "backups, scrubs and audits are cut after it"


def test_the_store_does_not_take_the_root_of_its_volume() -> None:
    for name in OVERLAYS:
        objects = rendered(f"overlays/{name}")
        store = Workload(one(objects, "StatefulSet", "relayfile-store"), objects)
        [container] = store.containers
        mounts = {each["mountPath"] for each in container["volumeMounts"]}
        assert store.environment(container)["RELAYFILE_DATA_DIR"] not in mounts, "lost+found is there"


@pytest.mark.parametrize("workload", OURS)
def test_a_pod_has_time_to_drain(workload: Workload) -> None:
    for container in workload.lasting:
        variables = workload.environment(container)
        if not variables:
            continue  # the agent of the example
        pause_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        grace = variables.get("RELAYFILE_SHUTDOWN_GRACE", f"{SHUTDOWN_GRACE_S:.0f}s")
        grace_s = parse_duration(str(grace))
        # What is left of a stop after the drain: streams, then files.
        needed_s = pause_s + grace_s + 2 * Lifecycle.CLOSE_TIMEOUT_S
        assert workload.pod["terminationGracePeriodSeconds"] > needed_s
        ready = container["readinessProbe"]
        assert pause_s > 0
        assert pause_s + grace_s > ready["periodSeconds"] * ready["failureThreshold"]
        if "RELAYFILE_DRAIN_SHARDS" in variables:
            assert parse_duration(str(variables["RELAYFILE_DRAIN_SHARDS"])) <= grace_s / 2, "peers need their part"


@pytest.mark.parametrize("workload", EVERYTHING)
def test_secrets_are_files(workload: Workload) -> None:
    for container in workload.containers:
        assert not any("secretRef" in each for each in container.get("envFrom", []))
        for name, value in workload.environment(container).items():
            assert isinstance(value, str) or "secretKeyRef" not in value, name
            assert name not in {"RELAYFILE_TOKEN", "RELAYFILE_WEBHOOK_SECRETS"}
    mounted = {each["name"] for each in workload.pod["volumes"] if "secret" in each}
    for container in workload.containers:
        for mount in container["volumeMounts"]:
            assert mount["name"] not in mounted or mount["readOnly"] is True
    modes = [each["secret"]["defaultMode"] for each in workload.pod["volumes"] if "secret" in each]
    assert set(modes) <= {0o440}
    assert not list(of_kind(workload.around, "Secret")), "whoever deploys makes them"


@pytest.mark.parametrize("name", OVERLAYS)
def test_only_ingest_is_autoscaled(name: str) -> None:
    scalers = list(of_kind(rendered(f"overlays/{name}"), "HorizontalPodAutoscaler"))
    if name == "dev":
        assert not scalers
        return
    [scaler] = scalers
    target = scaler["spec"]["scaleTargetRef"]
    workload = one(rendered(f"overlays/{name}"), target["kind"], target["name"])
    assert workload["metadata"]["name"] == "relayfile-ingest"
    assert "replicas" not in workload["spec"], "an apply would set the number back"
    assert scaler["spec"]["minReplicas"] == 2
    down = scaler["spec"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] == 300
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 120}]


def test_the_autoscaler_works_with_metrics_server_alone() -> None:
    alone = (rendered("components/hpa"), rendered("overlays/production"))
    metrics = [[each["type"] for each in one(objects, "HorizontalPodAutoscaler", "relayfile-ingest")["spec"]["metrics"]]
               for objects in alone]  # fmt: skip
    assert metrics == [["Resource"], ["Resource", "Pods", "Pods"]]


def test_the_store_has_as_many_replicas_as_nodes_are_listed() -> None:
    for name in OVERLAYS:
        objects = rendered(f"overlays/{name}")
        store = Workload(one(objects, "StatefulSet", "relayfile-store"), objects)
        nodes = str(store.environment(store.containers[0])["RELAYFILE_NODES"]).split(",")
        headless = store.object["spec"]["serviceName"]
        assert nodes == [
            f"relayfile-store-{index}.{headless}:7420" for index in range(store.object["spec"]["replicas"])
        ]
        assert one(objects, "Service", headless)["spec"]["publishNotReadyAddresses"] is True


def test_volumes_stay_and_are_larger_than_what_is_put_into_them() -> None:
    for name in OVERLAYS:
        for each in of_kind(rendered(f"overlays/{name}"), "StatefulSet"):
            policy = each["spec"]["persistentVolumeClaimRetentionPolicy"]
            assert policy == {"whenDeleted": "Retain", "whenScaled": "Retain"}
            workload = Workload(each, rendered(f"overlays/{name}"))
            [claim] = each["spec"]["volumeClaimTemplates"]
            size = _bytes(claim["spec"]["resources"]["requests"]["storage"])
            spool = workload.environment(workload.containers[0]).get("RELAYFILE_SPOOL_BYTES_MAX")
            if spool is not None:
                assert size >= parse_size(str(spool)) * 1.2


def test_ingest_without_a_spool_has_no_volume() -> None:
    objects = rendered("overlays/stateless-ingest")
    ingest = Workload(one(objects, "Deployment", "relayfile-ingest"), objects)
    assert ingest.environment(ingest.containers[0])["RELAYFILE_SPOOL_MODE"] == "through"
    assert not [each for each in ingest.pod["volumes"] if not {"emptyDir", "secret"} & each.keys()]
    assert not [each for each in of_kind(objects, "StatefulSet") if each["metadata"]["name"] == "relayfile-ingest"]


def _bytes(quantity: str) -> int:
    match = re.fullmatch(r"(\d+)([KMGT]i)", quantity)
    assert match is not None, quantity
    return int(match[1]) << {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40}[match[2]]


def test_every_pod_is_a_part_of_relayfile_or_of_what_surrounds_it() -> None:
    named = {each.labels[NAME] for each in workloads("overlays/production") if PART_OF not in each.labels}
    assert named == {"relayfile-otel-collector"}
