import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2

from relayfile import errors, status
from relayfile.errors import ERRORS, FieldViolation, InvalidArgument, RelayfileError
from tests.unit.test_errors import filled


def detail(error: RelayfileError, message: error_details_pb2.ErrorInfo) -> bool:
    return any(each.Unpack(message) for each in status.to_status(error).details)


def test_every_error_has_a_code() -> None:
    assert set(status.CODES) == set(ERRORS)
    assert all(code is not grpc.StatusCode.OK for code in status.CODES.values())


@pytest.mark.parametrize("kind", ERRORS)
def test_every_status_carries_reason_domain_and_metadata(kind: type[RelayfileError]) -> None:
    error = filled(kind)
    info = error_details_pb2.ErrorInfo()
    assert detail(error, info)
    assert (info.domain, info.reason) == ("relayfile.dev", kind.reason)
    assert dict(info.metadata) == error.metadata()


@pytest.mark.parametrize("kind", ERRORS)
def test_what_may_be_tried_again_says_when(kind: type[RelayfileError]) -> None:
    error = filled(kind)
    retry = [each for each in status.to_status(error).details if each.TypeName() == "google.rpc.RetryInfo"]
    assert len(retry) == (1 if status.code_of(error) in status.RETRYABLE else 0)


def test_the_delay_is_the_errors_own() -> None:
    retry = error_details_pb2.RetryInfo()
    rich = status.to_status(errors.Overloaded(what="spool", retry_after_s=2.5))
    assert any(each.Unpack(retry) for each in rich.details)
    assert retry.retry_delay.ToMilliseconds() == 2500


def test_a_status_stays_small_whatever_it_says() -> None:
    long = "ä" * 4096
    worst: list[RelayfileError] = [
        InvalidArgument([FieldViolation(f"changes[{n}].path", long) for n in range(1000)]),
        errors.InvalidPath(path=long, why=long),
        errors.NotOwner(shard=1, epoch=2, address=long),
        errors.FileNotFound(path="\ud800" * 3000),
    ]
    assert all(status.to_status(error).ByteSize() <= status.STATUS_BYTES_MAX for error in worst)


def test_a_subclass_outside_the_table_has_its_parents_code() -> None:
    class ShelfFull(errors.QuotaExceeded):
        """No."""

    assert status.code_of(ShelfFull(what="files", limit=1)) is grpc.StatusCode.RESOURCE_EXHAUSTED

    class Strange(RelayfileError):
        """Strange."""

    assert status.code_of(Strange()) is grpc.StatusCode.INTERNAL


def test_the_first_error_of_a_group_is_found() -> None:
    conflict = errors.RevisionConflict(expected=1, current=2)
    group = BaseExceptionGroup("g", [ValueError("x"), ExceptionGroup("h", [conflict])])
    assert status.leading_error(group) is conflict
    assert status.leading_error(ValueError("x")) is None


def test_a_peers_answer_that_grpc_lost_is_worth_another_try() -> None:
    def told(details: str) -> RelayfileError:
        no = grpc.aio.Metadata()
        return status.from_rpc_error(grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, no, no, details))

    assert isinstance(told(status.ANSWER_LOST), errors.Unavailable)
    assert isinstance(told("a fault"), errors.PeerFailed)
