"""Period tables (D16): rows that go by age alone are kept in periods of 7 days, so that expiry empties whole tables.

Period p is in slot p mod 3: two or three slots have rows, and the oldest is emptied before its number comes again.
"""

PERIOD_US = 7 * 86_400 * 1_000_000
"""Length of a period."""
SLOTS = 3


def slot_of(decided_us: int) -> int:
    """The slot that holds what was decided then."""
    return decided_us // PERIOD_US % SLOTS
