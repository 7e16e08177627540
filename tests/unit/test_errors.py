import pytest

from relayfile import errors
from relayfile.errors import ERRORS, VIOLATIONS_MAX, FieldViolation, InvalidArgument, RelayfileError


def filled(kind: type[RelayfileError]) -> RelayfileError:
    """One error of ``kind`` with recognisable values in its fields."""
    if kind is InvalidArgument:
        return InvalidArgument.of("path", "has an empty segment")
    values = {str: "text", int: "7", float: "2.5"}
    return kind.from_metadata({name: values[form] for name, form in kind._field_types().items()})


def test_the_list_of_errors_is_complete_and_reasons_are_unique() -> None:
    defined = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, RelayfileError) and value is not RelayfileError
    }
    assert defined == set(ERRORS)
    reasons = [kind.reason for kind in ERRORS]
    assert len(set(reasons)) == len(reasons)
    assert all(reason == reason.upper() for reason in reasons)


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_explains_itself_in_one_line(kind: type[RelayfileError]) -> None:
    message = str(filled(kind))
    assert message
    assert "\n" not in message
    assert "{" not in message


@pytest.mark.parametrize("kind", [kind for kind in ERRORS if kind is not InvalidArgument])
def test_metadata_is_enough_to_make_the_same_error_again(kind: type[RelayfileError]) -> None:
    original = filled(kind)
    again = kind.from_metadata(original.metadata())
    assert again.metadata() == original.metadata()
    assert str(again) == str(original)


def test_unreadable_metadata_of_a_peer_becomes_zero() -> None:
    conflict = errors.RevisionConflict.from_metadata({"expected": "many"})
    assert (conflict.expected, conflict.current) == (0, 0)


def test_fields_fill_the_message() -> None:
    assert str(errors.WorkspaceNotFound(workspace="acme")) == "There is no workspace 'acme'."
    assert str(errors.Overloaded(what="spool", retry_after_s=2.0)) == "The spool is full; try again after 2 s."


def test_braces_in_values_are_only_text() -> None:
    assert "{0}" in str(errors.FileNotFound(path="/{0}{path}"))


def test_invalid_argument_keeps_the_first_violations_and_the_total() -> None:
    refused = InvalidArgument([FieldViolation(f"paths[{n}]", "is empty") for n in range(50)])
    assert len(refused.violations) == VIOLATIONS_MAX
    assert refused.total == 50
    assert str(refused) == "paths[0]: is empty (and 49 more)"
    assert InvalidArgument(refused.violations, total=50).total == 50
    assert str(InvalidArgument.of("path", "is empty")) == "path: is empty"
