"""How a change that ended as `duplicate` is known again, so that its resend counts nothing."""

from relayfile.model import MemberKind, Outcome
from relayfile.store.plan.rows import DeliveryKey, DuplicateKey, duplicate_key
from tests.fakes.model_store import Deliveries, ModelStore


def test_changes_of_one_envelope_have_numbers_of_their_own() -> None:
    changes = [("d", "o:issue/1"), ("d", "o:issue/2"), ("d#2", "o:issue/1"), ("d#", "2o:issue/1"), ("", "n:0")]
    numbers = {duplicate_key("e", DeliveryKey("github", *change)).change_number for change in changes}
    assert len(numbers) == len(changes)
    assert all(-(2**63) <= number < 0 for number in numbers), "places are from 0, and the column has 64 bits"


def test_the_number_stays() -> None:
    """It is in the files of those who use this."""
    assert duplicate_key("e", DeliveryKey("github", "d", "o:issue/1")) == ("e", -5_319_107_148_013_139_813)


def test_a_duplicate_of_an_earlier_release_is_known_by_its_place() -> None:
    store, make = ModelStore(), Deliveries()
    fold = make.fold("issue/1", [make.member(MemberKind.UPSERT, "/a", b"1", delivery_id="d")])
    store.apply(fold)
    store.duplicates.add(DuplicateKey("other", 0))
    store.outcomes["github", Outcome.DUPLICATE] += 1
    ((result,),) = store.apply(fold._replace(members=(fold.members[0]._replace(envelope_id="other"),)))
    assert (result.outcome, result.counted) == (Outcome.DUPLICATE, False)
    store.check()
