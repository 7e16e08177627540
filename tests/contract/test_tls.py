"""gRPC that is encrypted: a real server on loopback, its own authority, replaced certificates."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
import trustme
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from relayfile.errors import SettingError
from relayfile.serving import bind, channel, server_options
from relayfile.settings import ClusterSettings
from relayfile.tls import channel_credentials, server_credentials


def files(folder: Path, authority: trustme.CA, name: str, *, mutual: bool = True) -> ClusterSettings:
    """A certificate of the authority for loopback, in files; with `mutual` callers need one too."""
    made = authority.issue_cert("127.0.0.1", common_name=name)
    made.private_key_pem.write_to_path(folder / f"{name}.key")
    made.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    authority.cert_pem.write_to_path(folder / f"{name}-ca.pem")
    return ClusterSettings(
        tls_cert_file=folder / f"{name}.pem",
        tls_key_file=folder / f"{name}.key",
        tls_ca_file=folder / f"{name}-ca.pem" if mutual else None,
    )


@asynccontextmanager
async def served(settings: ClusterSettings) -> AsyncIterator[str]:
    server = grpc.aio.server(options=server_options(settings))
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    address = bind(server, "127.0.0.1:0", server_credentials(settings))
    await server.start()
    try:
        yield address
    finally:
        await server.stop(0)


async def reaches(address: str, settings: ClusterSettings) -> bool:
    async with channel(address, settings) as opened:
        check: grpc.aio.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]
        check = opened.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            await check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.aio.AioRpcError as error:
            return error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    return True


async def test_processes_with_certificates_of_one_authority_reach_one_another(tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    store, ingest = files(tmp_path, authority, "store"), files(tmp_path, authority, "ingest")
    stranger = files(tmp_path, other, "stranger")
    trusting = ClusterSettings(
        tls_cert_file=stranger.tls_cert_file, tls_key_file=stranger.tls_key_file, tls_ca_file=store.tls_ca_file
    )
    async with served(store) as address:
        assert await reaches(address, ingest)
        assert not await reaches(address, ClusterSettings()), "not without TLS"
        assert not await reaches(address, ClusterSettings(tls_ca_file=store.tls_ca_file)), "not without a certificate"
        assert not await reaches(address, trusting), "not with a certificate of another authority"
        assert not await reaches(address, stranger), "and a server of another authority is not trusted"


async def test_without_an_authority_callers_need_no_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    store = files(tmp_path, authority, "store", mutual=False)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with served(store) as address:
        assert await reaches(address, ClusterSettings(tls_ca_file=tmp_path / "ca.pem"))
        assert not await reaches(address, ClusterSettings())


async def test_replaced_files_count_at_the_next_handshake(tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    store = files(tmp_path, old, "store", mutual=False)
    old.cert_pem.write_to_path(tmp_path / "old.pem")
    new.cert_pem.write_to_path(tmp_path / "new.pem")
    trusts_old, trusts_new = (ClusterSettings(tls_ca_file=tmp_path / f"{each}.pem") for each in ("old", "new"))
    async with served(store) as address:
        assert await reaches(address, trusts_old)
        assert store.tls_cert_file is not None
        store.tls_cert_file.write_text("half a file")
        assert await reaches(address, trusts_old), "what is broken leaves the present ones in force"
        files(tmp_path, new, "store", mutual=False)
        assert await reaches(address, trusts_new)
        assert not await reaches(address, trusts_old)


def test_what_is_half_set_or_unreadable_is_refused_by_name(tmp_path: Path) -> None:
    store = files(tmp_path, trustme.CA(), "store")
    with pytest.raises(SettingError, match="RELAYFILE_TLS_KEY_FILE"):
        server_credentials(ClusterSettings(tls_cert_file=store.tls_cert_file))
    with pytest.raises(SettingError, match="RELAYFILE_TLS_CERT_FILE"):
        server_credentials(ClusterSettings(tls_key_file=store.tls_key_file))
    with pytest.raises(SettingError, match="RELAYFILE_TLS_CA_FILE"):
        channel_credentials(ClusterSettings(tls_ca_file=tmp_path / "missing"))
    (tmp_path / "der").write_bytes(b"\x30\x82")
    with pytest.raises(SettingError, match="not PEM"):
        channel_credentials(ClusterSettings(tls_ca_file=tmp_path / "der"))
