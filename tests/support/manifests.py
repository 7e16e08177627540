"""The rendered manifests of deploy/k8s, as objects: what kustomize makes, and what a pod of a workload is given.

Rendering starts a process; each directory is rendered once in a test run.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy" / "k8s"
OVERLAYS = ("dev", "production", "stateless-ingest")
Object: TypeAlias = Mapping[str, Any]
"""One object of Kubernetes, as its YAML has it."""

NAME = "app.kubernetes.io/name"
PART_OF = "app.kubernetes.io/part-of"
WORKLOADS = ("Deployment", "StatefulSet", "Job")


@cache
def rendered(directory: str) -> tuple[Object, ...]:
    """What `kubectl kustomize deploy/k8s/<directory>` makes. `AssertionError` with its words when it cannot."""
    kubectl = Path(sys.executable).parent / "kubectl"
    command = [str(kubectl), "kustomize", str(KUBERNETES / directory)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.load_all(done.stdout, yaml.CSafeLoader))


@dataclass(frozen=True, slots=True)
class Workload:
    """What makes pods, with the objects around it."""

    object: Object
    around: Sequence[Object]

    @property
    def kind(self) -> str:
        return str(self.object["kind"])

    @property
    def name(self) -> str:
        return str(self.object["metadata"]["name"])

    @property
    def pod(self) -> Object:
        """The pod's spec."""
        found: Object = self.object["spec"]["template"]["spec"]
        return found

    @property
    def labels(self) -> Mapping[str, str]:
        """The pod's."""
        found: Mapping[str, str] = self.object["spec"]["template"]["metadata"]["labels"]
        return found

    @property
    def containers(self) -> list[Object]:
        """All of a pod, those that come first too."""
        return [*self.pod.get("initContainers", []), *self.pod["containers"]]

    @property
    def lasting(self) -> list[Object]:
        """Those that run as long as the pod does."""
        sidecars = [each for each in self.pod.get("initContainers", []) if each.get("restartPolicy") == "Always"]
        return [*sidecars, *self.pod["containers"]]

    @property
    def is_ours(self) -> bool:
        return self.labels.get(PART_OF) == "relayfile"

    def environment(self, container: Object) -> dict[str, str | Object]:
        """A container's variables: a text, or where it comes from."""
        found: dict[str, str | Object] = {}
        for source in container.get("envFrom", []):
            name = source["configMapRef"]["name"]
            found |= one(self.around, "ConfigMap", name)["data"]
        for each in container.get("env", []):
            found[each["name"]] = each["value"] if "value" in each else each["valueFrom"]
        return found


def of_kind(objects: Sequence[Object], *kinds: str) -> Iterator[Object]:
    """The objects of these kinds."""
    return (each for each in objects if each["kind"] in kinds)


def one(objects: Sequence[Object], kind: str, name: str) -> Object:
    """The object with a name; `AssertionError` when there is none."""
    found = [each for each in of_kind(objects, kind) if each["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} of {kind}/{name}"
    return found[0]


def workloads(directory: str) -> list[Workload]:
    """What makes pods, in one rendered directory."""
    objects = rendered(directory)
    return [Workload(each, objects) for each in of_kind(objects, *WORKLOADS)]


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects what has these labels."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for each in selector.get("matchExpressions", []):
        assert each["operator"] == "In", each
        if labels.get(each["key"]) not in each["values"]:
            return False
    return True
