"""From a workload's manifest to a pod of it on this machine: files for its volumes, and its environment made local.

What differs from a cluster is here alone: `0.0.0.0` and `127.0.0.1` become the pod's address, a mounted path a
directory and, where pods cannot be confined, a name of the cluster an address. Containers of other images than ours are
left out.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.confining import Confinement
from tests.cluster.container import Container
from tests.cluster.pod import First, Pod
from tests.support.manifests import Object, Workload

PATIENT = {"RELAYFILE_ACCEPT_DEADLINE": "30s"}
"""The one setting that is not the manifest's: on a crowded machine a disk may be slow for longer than 2.5 s, which is
answered with 503, and is none of the manifests' doing."""
_NAMED = re.compile(r"([a-z][a-z0-9-]*(?:\.[a-z0-9-]+)*):(\d+)")


@dataclass(frozen=True, slots=True)
class Place:
    """Where pods are made."""

    root: Path
    secrets: Mapping[str, Mapping[str, str]]
    """Of the namespace: name, key, value."""
    resolve: Callable[[str], str | None]
    """The address that stands for a name in a pod's environment; None: the name stands there."""
    resolver_file: Path | None
    """Where pods learn whom to ask for names; None: they are not confined."""


def make_pod(workload: Workload, name: str, address: str, place: Place, generation: int) -> Pod:
    """A pod that was not started. `generation` counts pods of one name: what is empty at first is made anew."""
    directory = place.root / "pods" / f"{name}-{generation}"
    volumes = {each["name"]: _volume(each, directory, place) for each in workload.pod.get("volumes", [])}
    for claim in workload.object["spec"].get("volumeClaimTemplates", []):
        volumes[claim["metadata"]["name"]] = place.root / "claims" / f"{claim['metadata']['name']}-{name}"
    for path in volumes.values():
        path.mkdir(parents=True, exist_ok=True)

    def container(spec: Object) -> Container:
        paths = {each["mountPath"]: volumes[each["name"]] for each in spec["volumeMounts"]}
        said = {**spec, "args": [_local_path(each, paths) for each in spec["args"]]}
        log = place.root / "logs" / f"{name}-{spec['name']}.log"
        log.parent.mkdir(exist_ok=True)
        environment = _environment(workload, spec, paths, name, address, place)
        return Container(said, environment, address, directory, log, _confinement(spec, paths, place))

    first = [
        First(container(each), each.get("restartPolicy") == "Always")
        for each in workload.pod.get("initContainers", [])
        if _is_ours(each)
    ]
    containers = [container(each) for each in workload.pod["containers"] if _is_ours(each)]
    return Pod(name, address, workload.labels, first, containers, workload.pod["terminationGracePeriodSeconds"])


def _is_ours(container: Object) -> bool:
    return str(container["image"]).rpartition("/")[2].startswith("relayfile:")


def _volume(volume: Object, directory: Path, place: Place) -> Path:
    path = directory / "volumes" / str(volume["name"])
    if "secret" in volume:
        said = volume["secret"]
        values = place.secrets.get(said["secretName"])
        assert values is not None or said.get("optional"), f"the Secret {said['secretName']} is not there"
        files = {each["key"]: each["path"] for each in said.get("items", [])} or {key: key for key in values or {}}
        for key, name in files.items():
            if values is not None and key in values:
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_text(values[key])
    elif "persistentVolumeClaim" in volume:
        return place.root / "claims" / str(volume["persistentVolumeClaim"]["claimName"])
    else:
        assert "emptyDir" in volume, volume
    return path


def _confinement(spec: Object, paths: Mapping[str, Path], place: Place) -> Confinement | None:
    if place.resolver_file is None:
        return None
    assert spec["securityContext"]["readOnlyRootFilesystem"] is True
    written = [str(paths[each["mountPath"]]) for each in spec["volumeMounts"] if not each.get("readOnly")]
    return Confinement(written, str(place.resolver_file))


def _environment(
    workload: Workload, spec: Object, paths: Mapping[str, Path], name: str, address: str, place: Place
) -> dict[str, str]:
    made = {"HOSTNAME": name, "TMPDIR": str(paths["/tmp"])}
    for variable, value in workload.environment(spec).items():
        if not isinstance(value, str):
            assert value["fieldRef"]["fieldPath"] == "metadata.labels['apps.kubernetes.io/pod-index']", value
            made[variable] = name.rpartition("-")[2]
            continue
        value = re.sub(r"\b(0\.0\.0\.0|127\.0\.0\.1):", f"{address}:", _local_path(value, paths))
        made[variable] = _NAMED.sub(lambda match: _located(match, place), value)
    return made | PATIENT


def _located(match: re.Match[str], place: Place) -> str:
    found = place.resolve(match[1])
    return match[0] if found is None else f"{found}:{match[2]}"


def _local_path(value: str, paths: Mapping[str, Path]) -> str:
    for mount, path in paths.items():
        if value == mount or value.startswith(f"{mount}/"):
            return str(path) + value.removeprefix(mount)
    return value
