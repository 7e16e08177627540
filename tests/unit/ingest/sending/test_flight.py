from relayfile.ingest.sending.flight import STALL_S, Flight, Outbox, SentBatch, Workers
from relayfile.ingest.sending.lane import Lane
from relayfile.ingest.sending.parcel import Parcel


def lane(name: str, shard: int = 1) -> Lane:
    made = Lane(name, shard)
    made.push(Parcel("github", b"r" * 12, b"x" * 100, b"", None, ()))
    return made


def flight_of(workers: Workers, credit_bytes: int = 10_000) -> Flight:
    flight = Flight(1 << 30, workers)
    flight.credit_bytes = credit_bytes
    return flight


def may_depart(flight: Flight) -> bool:
    return flight.may_depart


def any_free(workers: Workers) -> bool:
    return workers.any_free


def depart(flight: Flight, each: Lane, now_s: float = 0.0) -> SentBatch:
    return flight.depart(each, each.take(1_000, 10, lambda fold: []), now_s)


def test_numbers_are_contiguous_for_each_shard() -> None:
    flight = flight_of(Workers(10))
    batches = [depart(flight, lane(f"w{shard}", shard)) for shard in (1, 2, 1, 1, 2)]
    assert [batch.sequence for batch in batches] == [1, 1, 2, 3, 2]
    assert list(flight.since(1, 2)) == [batches[2], batches[3]]
    flight.landed(batches[2], 0.0)
    assert flight.find(1, 2) is None
    assert list(flight.batches()) == [batches[0], batches[1], batches[3], batches[4]]


def test_credit_and_workers_bound_what_leaves() -> None:
    workers = Workers(2)
    flight = flight_of(workers, credit_bytes=250)
    first = depart(flight, lane("a"))
    assert may_depart(flight)
    depart(flight, lane("b"))
    assert not may_depart(flight)
    flight.landed(first, 0.0)
    assert may_depart(flight)
    flight.credit_bytes = 50
    assert not may_depart(flight)


def test_a_node_that_is_away_or_silent_keeps_no_workers() -> None:
    workers = Workers(1)
    flight = flight_of(workers)
    batch = depart(flight, lane("a"), now_s=5.0)
    assert not any_free(workers)
    flight.disconnected()
    assert any_free(workers)
    flight.connected(10.0)
    assert not any_free(workers)
    flight.give_up_stalled(10.0 + STALL_S)
    assert not any_free(workers)
    flight.give_up_stalled(10.1 + STALL_S)
    assert any_free(workers)
    flight.landed(batch, 20.0)
    workers.take()
    assert not any_free(workers), "the worker was given back once"


def test_what_is_refused_for_now_holds_up_nobody() -> None:
    workers = Workers(1)
    flight = flight_of(workers, credit_bytes=150)
    refused = depart(flight, lane("a"))
    assert not may_depart(flight)
    flight.park(refused)
    assert may_depart(flight)
    other = depart(flight, lane("b"))
    flight.unpark(refused)
    assert not may_depart(flight)
    flight.landed(other, 1.0)
    assert not may_depart(flight)
    flight.park(refused)
    flight.disconnected()
    flight.connected(2.0)
    assert not refused.parked
    assert not may_depart(flight)
    flight.park(refused)
    flight.landed(refused, 3.0)
    assert flight.size_bytes == 0
    assert any_free(workers)
    workers.take()
    assert not any_free(workers), "the worker was given back once"


def test_those_that_wait_for_a_worker_are_woken() -> None:
    woken = []
    workers = Workers(1)
    workers.on_free(lambda: woken.append(1))
    workers.take()
    workers.give()
    assert woken == [1]


def test_what_must_be_sent_again_goes_before_new_batches_and_lanes_take_turns() -> None:
    flight = flight_of(Workers(10))
    outbox = Outbox(flight)
    sent = depart(flight, lane("again"))
    answered = depart(flight, lane("answered"))
    flight.landed(answered, 0.0)
    parked = depart(flight, lane("parked"))
    parked.parked = True
    outbox.send_again([sent, answered, parked])
    waiting = [lane("a"), lane("b")]
    for each in (*waiting, *waiting):
        outbox.add(each)
    others = []

    def make(each: Lane, others_wait: bool) -> SentBatch | None:
        others.append(others_wait)
        return depart(flight, each)

    assert [batch.lane.workspace_id for batch in outbox.candidates(make)] == ["again", "a", "b"]
    assert others == [True, False]


def test_the_outbox_remembers_that_a_node_held_it_up() -> None:
    flight = flight_of(Workers(10), credit_bytes=150)
    outbox = Outbox(flight)
    for name in ("a", "b", "c"):
        outbox.add(lane(name))

    def sent() -> list[str]:
        return [batch.lane.workspace_id for batch in outbox.candidates(lambda each, others: depart(flight, each))]

    assert (sent(), outbox.was_held_up) == (["a"], True)
    outbox.was_held_up = False
    flight.credit_bytes = 10_000
    assert (sent(), outbox.was_held_up) == (["b", "c"], False)
