"""Who may talk to whom: what the policies open is what the pods' own variables name, and what comes from outside.

The policies are evaluated as a network plugin does it: a connection needs an opening at both of its ends.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import pytest

from tests.support.manifests import NAME, PART_OF, Object, Workload, of_kind, one, rendered, selects, workloads

FULL = ("overlays/production", "overlays/stateless-ingest")
NAMED = re.compile(r"([a-z][a-z0-9.-]*):(\d+)")
HANDING_OVER = {("ingest", "ingest", "grpc")}
"""Pods of the StatefulSet end beside the Deployment that takes their place, and hand over to it."""


class Opening(NamedTuple):
    """What one rule of a policy opens to one peer."""

    peer: Mapping[str, object]
    port: str | int
    protocol: str


def pods_beside(directory: str) -> dict[str, Workload]:
    """What runs in the namespace, by its short name; the Job and a mirror beside an agent too."""
    objects = rendered(directory)
    found = workloads(directory)
    [job] = workloads("jobs/adopt-spool")
    agent = one(rendered("overlays/dev"), "Deployment", "relayfile-agent-example")
    around = [*_of_the_agent(), *objects]
    return {each.labels[NAME].removeprefix("relayfile-"): each for each in (*found, job, Workload(agent, around))}


def _of_the_agent() -> Iterator[Object]:
    """ConfigMaps that the example names, the common one with what production has."""
    [common] = [each for each in of_kind(rendered(FULL[0]), "ConfigMap") if _stem(each) == "relayfile"]
    for each in of_kind(rendered("overlays/dev"), "ConfigMap"):
        if _stem(each) == "relayfile":
            yield {**each, "data": common["data"]}
        elif _stem(each) == "relayfile-agent-example":
            yield each


def _stem(generated: Object) -> str:
    return str(generated["metadata"]["name"]).rpartition("-")[0]


def openings(directory: str, workload: Workload, way: str) -> Iterator[Opening]:
    """All of a pod's, `egress` or `ingress`. A rule for everybody, or for every port, fails."""
    kind, peers = ("Egress", "to") if way == "egress" else ("Ingress", "from")
    for policy in (each["spec"] for each in of_kind(rendered(directory), "NetworkPolicy")):
        if not selects(policy["podSelector"], workload.labels):
            continue
        assert not policy.get(way) or kind in policy["policyTypes"]
        for rule in policy.get(way, []):
            assert rule[peers], "everybody"
            assert rule["ports"], "every port"
            for peer in rule[peers]:
                for port in rule["ports"]:
                    assert "endPort" not in port
                    yield Opening(peer, port["port"], port["protocol"])


def within(found: Iterator[Opening], other: Workload, port: Object) -> bool:
    """Whether one of the openings is to this port of another pod of the namespace."""
    wanted = (port["name"], port.get("protocol", "TCP"))
    return any(
        each.peer.keys() == {"podSelector"}
        and selects(_object(each.peer["podSelector"]), other.labels)
        and (each.port, each.protocol) == wanted
        for each in found
    )


def _object(value: object) -> Object:
    assert isinstance(value, dict)
    return value


def called(directory: str, name: str, workload: Workload) -> Iterator[tuple[str, str, str]]:
    """(caller, called, port) of every address of the cluster among the variables of a pod."""
    objects = rendered(directory)
    pods = pods_beside(directory)
    for container in workload.containers:
        for variable, value in workload.environment(container).items():
            for host, number in NAMED.findall(value) if isinstance(value, str) else ():
                service = one(objects, "Service", host.rpartition(".")[2])
                ports = {each["port"]: each for each in service["spec"]["ports"]}
                assert int(number) in ports, f"{variable} of {name}: {host} has no port {number}"
                selector = {"matchLabels": service["spec"]["selector"]}
                [target] = [short for short, each in pods.items() if selects(selector, each.labels)]
                pod = host.rpartition(".")[0]
                if pod:
                    there = [f"relayfile-{target}-{index}" for index in range(pods[target].object["spec"]["replicas"])]
                    assert pod in there, f"{variable} of {name}: there is no {pod}"
                yield name, target, ports[int(number)]["targetPort"]


@pytest.mark.parametrize("directory", FULL)
def test_nothing_is_open_that_no_policy_opens(directory: str) -> None:
    policies = [each["spec"] for each in of_kind(rendered(directory), "NetworkPolicy")]
    denied = [each for each in policies if each["podSelector"] == {}]
    assert [each.keys() for each in denied] == [{"podSelector", "policyTypes"}]
    assert denied[0]["policyTypes"] == ["Ingress", "Egress"]


@pytest.mark.parametrize("directory", FULL)
def test_pods_reach_those_that_their_variables_name_and_no_other(directory: str) -> None:
    pods = pods_beside(directory)
    needed = {call for name, each in pods.items() for call in called(directory, name, each)}
    allowed = {
        (sender_name, receiver_name, port["name"])
        for sender_name, sender in pods.items()
        for receiver_name, receiver in pods.items()
        for container in receiver.containers
        for port in container.get("ports", [])
        if within(openings(directory, sender, "egress"), receiver, port)
        and within(openings(directory, receiver, "ingress"), sender, port)
    }
    assert allowed == needed | (HANDING_OVER if directory == "overlays/stateless-ingest" else set())
    assert needed >= {
        ("ingest", "store", "grpc"),
        ("store", "store", "grpc"),
        ("syncd", "store", "grpc"),
        ("agent-example", "store", "grpc"),
        ("adopt-spool", "ingest", "grpc"),
        *((each, "otel-collector", "otlp") for each in ("store", "ingest", "syncd", "agent-example")),
    }
    assert directory == "overlays/stateless-ingest" or needed >= HANDING_OVER


@pytest.mark.parametrize("directory", FULL)
def test_no_opening_leads_nowhere(directory: str) -> None:
    """One end alone opens nothing: each opening within the namespace has its counterpart."""
    pods = pods_beside(directory)
    for workload in pods.values():
        for way, back in (("egress", "ingress"), ("ingress", "egress")):
            for opening in openings(directory, workload, way):
                if opening.peer.keys() != {"podSelector"}:
                    continue
                others = [each for each in pods.values() if selects(_object(opening.peer["podSelector"]), each.labels)]
                assert others, opening
                for other in others:
                    listening = other if way == "egress" else workload
                    ports = [each for one_of in listening.containers for each in one_of.get("ports", [])]
                    [port] = [each for each in ports if each["name"] == opening.port]
                    assert within(openings(directory, other, back), workload, port), (workload.name, opening)


def _namespace(name: str) -> dict[str, object]:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def outside(directory: str, way: str) -> dict[str, set[tuple[str, str | int, str]]]:
    """Pod to (peer, port, protocol) beyond the namespace; of what comes in only ports that a pod has."""
    found: dict[str, set[tuple[str, str | int, str]]] = {}
    for name, workload in pods_beside(directory).items():
        ports = {each["name"] for container in workload.containers for each in container.get("ports", [])}
        for opening in openings(directory, workload, way):
            if opening.peer.keys() != {"podSelector"} and (way == "egress" or opening.port in ports):
                entry = (json.dumps(opening.peer, sort_keys=True), opening.port, opening.protocol)
                found.setdefault(name, set()).add(entry)
    return found


@pytest.mark.parametrize("directory", FULL)
def test_beyond_the_namespace_pods_ask_for_names_and_for_nothing_else(directory: str) -> None:
    names = {**_namespace("kube-system"), "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}
    asked = {(json.dumps(names, sort_keys=True), 53, protocol) for protocol in ("UDP", "TCP")}
    ours = [name for name, each in pods_beside(directory).items() if each.labels.get(PART_OF) == "relayfile"]
    assert outside(directory, "egress") == dict.fromkeys(ours, asked)


@pytest.mark.parametrize("directory", FULL)
def test_from_outside_only_webhooks_clients_and_the_monitoring_come_in(directory: str) -> None:
    client = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"relayfile.dev/client": "true"}}}
    metrics = (json.dumps(_namespace("monitoring")), "metrics", "TCP")
    calls = (json.dumps(client), "grpc", "TCP")
    assert outside(directory, "ingress") == {
        "store": {metrics, calls},
        "ingest": {metrics, calls, (json.dumps(_namespace("ingress-nginx")), "http", "TCP")},
        "syncd": {metrics, calls},
        # Its gRPC is for the pod alone.
        "agent-example": {metrics},
    }


def test_network_policies_select_what_there_is() -> None:
    said = {name for each in of_kind(rendered(FULL[0]), "NetworkPolicy") for name in _names(each["spec"])}
    assert said == {each.labels[NAME] for each in pods_beside(FULL[0]).values()}


def _names(value: object) -> set[str]:
    """The values of the label `name` below a value."""
    if isinstance(value, dict):
        if value.get("key") == NAME:
            return set(value["values"])
        own = {value[NAME]} if NAME in value else set()
        return own.union(*map(_names, value.values())) if value else own
    return set().union(*map(_names, value)) if isinstance(value, Sequence) and not isinstance(value, str) else set()
