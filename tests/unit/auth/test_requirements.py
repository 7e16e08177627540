from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor

from relayfile.auth import (
    EVERY_SCOPE,
    REQUIREMENTS,
    Principal,
    Reach,
    Requirement,
    authorise_workspace,
    bearer_token,
    require_entries,
)
from relayfile.auth.stage import request_check
from relayfile.errors import PermissionDenied, StartRefused, Unauthenticated
from relayfile.v1 import (
    admin_pb2,
    dead_letter_pb2,
    event_pb2,
    file_pb2,
    ingest_pb2,
    mirror_pb2,
    route_pb2,
    shard_pb2,
    topology_pb2,
    workspace_pb2,
    writeback_pb2,
)

FILES = [
    admin_pb2, dead_letter_pb2, event_pb2, file_pb2, ingest_pb2, mirror_pb2, route_pb2, shard_pb2, topology_pb2,
    workspace_pb2, writeback_pb2,
]  # fmt: skip
METHODS: dict[str, Any] = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def token(*workspaces: str, service: str = "", scopes: tuple[str, ...] = (EVERY_SCOPE,)) -> Principal:
    return Principal(subject="s", workspaces=frozenset(workspaces), scopes=scopes, service=service, expires_at_us=0)


def test_the_table_has_exactly_the_rpcs_of_the_api() -> None:
    assert descriptor_pool.Default() is not None
    assert REQUIREMENTS.keys() == METHODS.keys()
    require_entries(METHODS)
    with pytest.raises(StartRefused, match=r"relayfile\.v1\.FileService/Shred"):
        require_entries(["/relayfile.v1.FileService/Shred"])


@pytest.mark.parametrize("method", METHODS)
def test_the_named_workspace_field_exists_and_none_is_overlooked(method: str) -> None:
    requirement = REQUIREMENTS[method]
    message: Descriptor | None = METHODS[method].input_type
    if requirement.reach in {Reach.WORKSPACE, Reach.WORKSPACE_OR_CLUSTER}:
        *way, last = requirement.workspace_field.split(".")
        for step in way:
            assert message is not None
            message = message.fields_by_name[step].message_type
        assert message is not None
        assert last in message.fields_by_name


def request(workspace: str) -> Any:
    return SimpleNamespace(workspace_id=workspace, start=SimpleNamespace(workspace_id=workspace))


def test_one_workspace() -> None:
    check = request_check(token("acme"), Requirement("fs:read"))
    assert check is not None
    check(request("acme"))
    check(request(""))
    with pytest.raises(PermissionDenied, match="'other'"):
        check(request("other"))
    assert request_check(token("*"), Requirement("fs:read")) is None
    nested = request_check(token("acme"), Requirement("fs:read", workspace_field="start.workspace_id"))
    assert nested is not None
    with pytest.raises(PermissionDenied):
        nested(request("other"))


def test_the_cluster_needs_a_token_for_all() -> None:
    either = request_check(token("acme"), Requirement("sync:read", Reach.WORKSPACE_OR_CLUSTER))
    assert either is not None
    either(request("acme"))
    with pytest.raises(PermissionDenied, match="cluster"):
        either(request(""))
    with pytest.raises(PermissionDenied, match="cluster"):
        request_check(token("acme"), Requirement("admin:read", Reach.CLUSTER))
    assert request_check(token("*"), Requirement("admin:read", Reach.CLUSTER)) is None


def test_services_only() -> None:
    assert request_check(token("*", service="ingest"), Requirement("", Reach.SERVICE)) is None
    for caller in (token("*"), token("acme", service="ingest")):
        with pytest.raises(PermissionDenied, match="processes"):
            request_check(caller, Requirement("", Reach.SERVICE))


def test_servicers_can_check_a_workspace_themselves() -> None:
    authorise_workspace(token("acme"), "acme")
    with pytest.raises(PermissionDenied):
        authorise_workspace(token("acme"), "*")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Basic abc", b"Bearer x"])
def test_calls_without_a_token(header: object) -> None:
    with pytest.raises(Unauthenticated, match="no token"):
        bearer_token(header)


def test_the_scheme_is_not_case_sensitive() -> None:
    assert bearer_token("bearer  abc ") == "abc"
