import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from relayfile import faults
from relayfile.errors import SettingError
from relayfile.foundation import lay
from relayfile.settings import IngestSettings, StoreSettings, load


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    faults.arm("")


def test_processes_of_one_keys_directory_trust_one_another(tmp_path: Path) -> None:
    environ = {"RELAYFILE_KEYS_DIR": str(tmp_path / "keys"), "RELAYFILE_LOG_LEVEL": "error"}
    store = lay("store", load(StoreSettings, {**environ, "RELAYFILE_DATA_DIR": str(tmp_path / "store")}))
    ingest = lay("ingest", load(IngestSettings, {**environ, "RELAYFILE_DATA_DIR": str(tmp_path / "ingest")}))
    principal = store.policy.verifier.verify(ingest.credentials.token())
    assert (principal.service, principal.is_service) == ("ingest", True)
    assert not (tmp_path / "store").exists()


def test_keys_and_a_token_from_outside_make_no_key(tmp_path: Path) -> None:
    own = lay("store", load(StoreSettings, {"RELAYFILE_DATA_DIR": str(tmp_path / "a")}))
    (tmp_path / "token").write_text(own.credentials.token())
    environ = {
        "RELAYFILE_DATA_DIR": str(tmp_path / "b"),
        "RELAYFILE_JWKS_FILE": str(tmp_path / "a" / "keys" / "jwks.json"),
        "RELAYFILE_SERVICE_TOKEN_FILE": str(tmp_path / "token"),
    }
    other = lay("ingest", load(IngestSettings, environ))
    assert other.policy.verifier.verify(other.credentials.token()).service == "store"
    assert not (tmp_path / "b").exists()


def test_a_misspelt_fault_stops_the_start(tmp_path: Path) -> None:
    settings = load(StoreSettings, {"RELAYFILE_DATA_DIR": str(tmp_path), "RELAYFILE_FAULT": "nowhere"})
    with pytest.raises(SettingError, match="RELAYFILE_FAULT"):
        lay("store", settings)


def test_names_in_certificates_make_no_key_and_show_no_token(tmp_path: Path) -> None:
    lay("store", load(StoreSettings, {"RELAYFILE_DATA_DIR": str(tmp_path / "a")}))
    environ = {
        "RELAYFILE_DATA_DIR": str(tmp_path / "b"),
        "RELAYFILE_JWKS_FILE": str(tmp_path / "a" / "keys" / "jwks.json"),
        "RELAYFILE_TLS_SERVICE_NAMES": "Store.Internal, spiffe://Prod/ingest",
        "RELAYFILE_TLS_CERT_FILE": "cert.pem",
        "RELAYFILE_TLS_KEY_FILE": "key.pem",
        "RELAYFILE_TLS_CA_FILE": "ca.pem",
    }
    other = lay("ingest", load(IngestSettings, environ))
    assert other.credentials.metadata() == ()
    assert other.policy.service_names == {"store.internal", "spiffe://Prod/ingest"}
    assert not (tmp_path / "b").exists()
    (tmp_path / "token").write_text("a.token")
    kept = lay("ingest", load(IngestSettings, {**environ, "RELAYFILE_SERVICE_TOKEN_FILE": str(tmp_path / "token")}))
    assert kept.credentials.metadata() == (("authorization", "Bearer a.token"),)


@pytest.mark.parametrize("missing", ["RELAYFILE_TLS_CERT_FILE", "RELAYFILE_TLS_CA_FILE"])
def test_names_in_certificates_that_nobody_asks_for_stop_the_start(tmp_path: Path, missing: str) -> None:
    environ = {
        "RELAYFILE_DATA_DIR": str(tmp_path),
        "RELAYFILE_TLS_SERVICE_NAMES": "store.internal",
        "RELAYFILE_TLS_CERT_FILE": "cert.pem",
        "RELAYFILE_TLS_KEY_FILE": "key.pem",
        "RELAYFILE_TLS_CA_FILE": "ca.pem",
    }
    del environ[missing]
    with pytest.raises(SettingError, match="RELAYFILE_TLS_SERVICE_NAMES"):
        lay("store", load(StoreSettings, environ))


@pytest.mark.parametrize("raw", ["*.internal", "a b", "store.internal/", "-x", "https://a/*"])
def test_what_is_no_name_of_a_certificate_is_refused(raw: str) -> None:
    with pytest.raises(SettingError, match="DNS name nor a URI"):
        load(StoreSettings, {"RELAYFILE_TLS_SERVICE_NAMES": raw})
