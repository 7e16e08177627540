"""gRPC that is encrypted: a real server on loopback, its own authority, replaced certificates, who a certificate is."""

from __future__ import annotations  # gRPC's classes are generic in their stubs only

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
import trustme
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from relayfile.auth import KeyStore, Principal, TokenSigner, TokenVerifier, auth_stage, current_principal
from relayfile.clock import SystemClock
from relayfile.connections import server_arguments
from relayfile.errors import SettingError
from relayfile.ids import IdSource
from relayfile.interception import CallInterceptor
from relayfile.serving import bind, channel
from relayfile.settings import ClusterSettings
from relayfile.status import error_stage
from relayfile.tls import channel_credentials, server_credentials
from tests.support.certificates import Authority, CertificateFiles


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
    server = grpc.aio.server(options=server_arguments(settings))
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


NAMES = frozenset({"ingest.internal", "spiffe://prod/relayfile/syncd"})
METHOD = "/relayfile.v1.ShardService/SetPause"
Metadata = tuple[tuple[str, str], ...]


def settings_of(made: CertificateFiles) -> ClusterSettings:
    return ClusterSettings(tls_cert_file=made.cert, tls_key_file=made.key, tls_ca_file=made.ca)


class Asked:
    """A server that answers one RPC of the cluster's processes, and remembers who called."""

    def __init__(self, made: CertificateFiles, keys: KeyStore, names: frozenset[str]) -> None:
        clock = SystemClock()
        stages = (error_stage, auth_stage(TokenVerifier(keys.public_file, clock), names))
        settings = settings_of(made)
        self.server = grpc.aio.server(
            interceptors=[CallInterceptor(stages, IdSource(clock).new_id, frozenset())],
            options=server_arguments(settings),
        )
        answer: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._answer)
        handlers = {"SetPause": answer}
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("relayfile.v1.ShardService", handlers),)
        )
        self.address = bind(self.server, "127.0.0.1:0", server_credentials(settings))
        self.callers: list[Principal] = []

    async def _answer(self, _request: bytes, _context: object) -> bytes:
        self.callers.append(current_principal())
        return b""

    async def refusal_of(self, made: CertificateFiles, metadata: Metadata = ()) -> grpc.StatusCode | None:
        """Call with a certificate; None when it was served."""
        async with channel(self.address, settings_of(made)) as opened:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = opened.unary_unary(METHOD)
            try:
                await call(b"", metadata=metadata, timeout=5)
            except grpc.aio.AioRpcError as error:
                return error.code()
        return None


@asynccontextmanager
async def asked(tmp_path: Path, made: CertificateFiles, names: frozenset[str]) -> AsyncIterator[Asked]:
    keys = KeyStore(tmp_path / "keys")
    keys.signing_key()
    found = Asked(made, keys, names)
    await found.server.start()
    try:
        yield found
    finally:
        await found.server.stop(0)


async def test_a_certificate_with_a_name_of_the_cluster_is_a_service_identity(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    by_dns = authority.issue("a", dns=("other.internal", "Ingest.Internal"))
    by_uri = authority.issue("b", uris=("spiffe://prod/relayfile/syncd",))
    async with asked(tmp_path, authority.issue("store"), NAMES) as store:
        assert await store.refusal_of(by_dns) is None
        assert await store.refusal_of(by_uri) is None
    assert [(each.service, each.subject, each.is_service) for each in store.callers] == [
        ("Ingest.Internal", "Ingest.Internal", True),
        ("spiffe://prod/relayfile/syncd", "spiffe://prod/relayfile/syncd", True),
    ]


async def test_other_names_of_the_authority_are_nobody_without_a_token(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    others = [
        authority.issue("ingest.internal"),  # the common name alone
        authority.issue("a", dns=("x.ingest.internal", "*.internal", "ingest.internal.evil.example")),
        authority.issue("b", uris=("spiffe://prod/relayfile/SYNCD", "spiffe://prod/relayfile/syncd/x")),
        authority.issue("c", emails=("x@ingest.internal",)),
        authority.issue("d", uris=("https://ingest.internal",)),
    ]
    async with asked(tmp_path, authority.issue("store"), NAMES) as store:
        for each in others:
            assert await store.refusal_of(each) is grpc.StatusCode.UNAUTHENTICATED, each
    assert not store.callers


async def test_without_names_a_certificate_is_nobody(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with asked(tmp_path, authority.issue("store"), frozenset()) as store:
        made = authority.issue("a", dns=("ingest.internal",))
        assert await store.refusal_of(made) is grpc.StatusCode.UNAUTHENTICATED


async def test_a_token_counts_instead_of_the_certificate(tmp_path: Path) -> None:
    """What a node passes on comes over its own certificate, and must not become the node's own call."""
    authority = Authority(tmp_path)
    made = authority.issue("a", dns=("ingest.internal",))
    async with asked(tmp_path, authority.issue("store"), NAMES) as store:
        signer = TokenSigner(KeyStore(tmp_path / "keys").signing_key(), SystemClock())
        agent = signer.mint("agent", workspaces="acme", ttl_s=60, scopes=("fs:read",))
        assert await store.refusal_of(made, (("authorization", f"Bearer {agent}"),)) is (
            grpc.StatusCode.PERMISSION_DENIED
        )
        for broken in ("", "Bearer", "Bearer x"):
            assert await store.refusal_of(made, (("authorization", broken),)) is grpc.StatusCode.UNAUTHENTICATED
    assert not store.callers
