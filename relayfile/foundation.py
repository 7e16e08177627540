"""What every process lays before its own parts: clock, ids, keys, logs, metrics, tracing, and the policy around calls.

For the ``app`` modules, the composition roots, so that the three say it once. Refuses to know any of their parts.
"""

from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from relayfile import faults
from relayfile.auth import FetchedKeys, KeyStore, KeyUrl, RateLimits, ServiceCredentials, TokenSigner, TokenVerifier
from relayfile.clock import Clock, SystemClock
from relayfile.errors import SettingError
from relayfile.ids import IdSource
from relayfile.serving import CallPolicy
from relayfile.settings import CommonSettings
from relayfile.telemetry import RpcInstruments, Tracing, configure_logs, configure_tracing, new_registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundation:
    """The shared parts of one process."""

    clock: Clock
    ids: IdSource
    registry: CollectorRegistry
    tracing: Tracing
    policy: CallPolicy
    """For the ``GrpcServer``."""
    credentials: ServiceCredentials
    """For calls to other processes: ``metadata=foundation.credentials.metadata()``, which may be empty."""


def lay(process: str, settings: CommonSettings) -> Foundation:
    """Configure logging and faults, and make the shared parts of ``process`` (``store``, ``ingest``, ``syncd``).

    The first process of a system makes its signing key here. ``StartRefused`` when keys cannot be read;
    ``SettingError`` when certificates are to name processes and callers are not asked for any.
    """
    configure_logs(process, settings.log_level, settings.log_format)
    faults.arm(settings.fault)
    if settings.tls_service_names and (settings.tls_ca_file is None or settings.tls_cert_file is None):
        raise SettingError(
            variable="RELAYFILE_TLS_SERVICE_NAMES",
            problem="is set, but callers are not asked for a certificate",
            way_out="set RELAYFILE_TLS_CERT_FILE, RELAYFILE_TLS_KEY_FILE and RELAYFILE_TLS_CA_FILE too, or unset it",
        )
    clock = SystemClock()
    registry = new_registry()
    tracing = configure_tracing(process, settings, registry)
    credentials, public_keys = _keys(process, settings, clock)
    return Foundation(
        clock=clock,
        ids=IdSource(clock),
        registry=registry,
        tracing=tracing,
        policy=CallPolicy(
            verifier=TokenVerifier(public_keys, clock, _fetched_keys(settings, clock)),
            instruments=RpcInstruments.declare(registry),
            tracing=tracing,
            clock=clock,
            rates=RateLimits(
                workspace_calls=settings.workspace_calls_per_second_max,
                caller_calls=settings.caller_calls_per_second_max,
                workspace_bytes=settings.workspace_bytes_per_second_max,
                caller_bytes=settings.caller_bytes_per_second_max,
            ),
            service_names=frozenset(settings.tls_service_names),
        ),
        credentials=credentials,
    )


def _fetched_keys(settings: CommonSettings, clock: Clock) -> FetchedKeys | None:
    if not settings.jwks_url:
        return None
    return FetchedKeys(KeyUrl.parse(settings.jwks_url).fetch, clock, settings.jwks_refresh_s)


def _keys(process: str, settings: CommonSettings, clock: Clock) -> tuple[ServiceCredentials, Path]:
    store = KeyStore(settings.keys_dir or settings.data_dir / "keys")
    shown = None
    if settings.service_token_file is not None:
        shown = ServiceCredentials(process, clock, file=settings.service_token_file)
    elif settings.tls_service_names:
        shown = ServiceCredentials(process, clock, by_certificate=True)
    if shown is not None and settings.jwks_file is not None:
        return shown, settings.jwks_file
    # Without keys of somebody else the system makes its own; this also writes the public file.
    signer = TokenSigner(store.signing_key(), clock)
    return shown or ServiceCredentials(process, clock, signer=signer), settings.jwks_file or store.public_file
