"""What may wait while senders stand in line: changes that would only be held."""

from relayfile.ingest.spool.backlog import BURST_BYTES, HELD_PAUSE_S, Patience


async def test_a_burst_whose_changes_are_only_held_waits() -> None:
    patience = Patience()
    patience.came(BURST_BYTES)
    assert patience.pause_s() == 0, "nothing is known of what it brings"
    patience.worked(100, 95)
    assert patience.pause_s() == HELD_PAUSE_S
    patience.worked(0, 95)
    assert patience.pause_s() == HELD_PAUSE_S, "a slice of nothing says nothing"


async def test_what_goes_out_does_not_wait() -> None:
    patience = Patience()
    patience.came(BURST_BYTES)
    patience.worked(100, 0)
    assert patience.pause_s() == 0
    patience.worked(100, 89)
    assert patience.pause_s() == 0, "a tenth of it goes out"


async def test_without_a_burst_nothing_waits() -> None:
    patience = Patience()
    patience.came(BURST_BYTES - 1)
    patience.worked(100, 100)
    assert patience.pause_s() == 0
