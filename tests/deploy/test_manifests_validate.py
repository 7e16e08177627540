"""Every rendered object is valid, strictly, for three releases of Kubernetes: no unknown field, no wrong type."""

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing
import yaml

from tests.support.manifests import KUBERNETES, OVERLAYS, Object, of_kind, rendered

RELEASES = ("1.35", "1.36", "1.37")
OURS = Path(__file__).parent / "schemas"
DIRECTORIES = [*(f"overlays/{name}" for name in OVERLAYS), "jobs/adopt-spool"]


@cache
def schemas_of(release: str) -> Any:
    """The registry that a release's schemas refer to."""
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{release}.0-local-strict"
    definitions = json.loads((folder / "_definitions.json").read_text())
    return referencing.Resource.from_contents(definitions) @ referencing.Registry()


@cache
def validator(release: str, api_version: str, kind: str) -> Any:
    group, _, version = api_version.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.partition(".")[0], version) if part)
    custom = OURS / f"{name}.json"
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{release}.0-local-strict"
    schema = json.loads((custom if custom.exists() else folder / f"{name}.json").read_text())
    registry = referencing.Resource.from_contents(schema) @ schemas_of(release) if "$schema" in schema else None
    return jsonschema.Draft202012Validator(schema, registry=registry or schemas_of(release))


def problems(release: str, each: Object) -> list[str]:
    found = validator(release, each["apiVersion"], each["kind"]).iter_errors(each)
    return [f"{each['kind']}/{each['metadata']['name']}: {error.json_path}: {error.message[:200]}" for error in found]


@pytest.mark.parametrize("release", RELEASES)
def test_every_object_is_valid(release: str) -> None:
    different = {json.dumps(each): each for directory in DIRECTORIES for each in rendered(directory)}
    assert not [problem for each in different.values() for problem in problems(release, each)]


def test_a_wrong_object_is_not() -> None:
    workload = json.loads(json.dumps(next(of_kind(rendered("overlays/dev"), "StatefulSet"))))
    workload["spec"]["template"]["spec"]["containers"][0]["livenes"] = {}
    [unknown] = problems(RELEASES[0], workload)
    assert "livenes" in unknown
    monitor = json.loads(json.dumps(next(of_kind(rendered("overlays/production"), "PodMonitor"))))
    monitor["spec"]["podMetricsEndpoints"][0]["interval"] = "15 seconds"
    assert problems(RELEASES[0], monitor)


def test_every_kustomization_is_a_part_of_what_is_validated() -> None:
    parts = {path.parent for path in KUBERNETES.rglob("kustomization.yaml")}
    used: set[Path] = set()
    waiting = [KUBERNETES / directory for directory in DIRECTORIES]
    while waiting:
        part = waiting.pop()
        used.add(part)
        said = yaml.safe_load((part / "kustomization.yaml").read_text())
        named = [*said.get("resources", []), *said.get("components", [])]
        waiting += [(part / each).resolve() for each in named if not each.endswith(".yaml")]
    assert used == parts
