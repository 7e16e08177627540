import pytest

from relayfile.telemetry import traceparent as w3c

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_context_is_read_and_written() -> None:
    context = w3c.parse(SAMPLED)
    assert context == (0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, True)
    assert w3c.format_context(context.trace_id, context.span_id, sampled=context.sampled) == SAMPLED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        SAMPLED[:-1],
        SAMPLED + "-extra",
        SAMPLED.upper(),
        "ff" + SAMPLED[2:],
        "00-" + "0" * 32 + SAMPLED[35:],
        SAMPLED[:36] + "0" * 16 + "-01",
        "x" * 55,
        SAMPLED[:-1] + "\n",
    ],
)
def test_what_is_no_traceparent(text: str) -> None:
    assert not w3c.is_traceparent(text)


def test_a_later_version_may_say_more() -> None:
    assert w3c.is_traceparent("01" + SAMPLED[2:] + "-more")
    assert not w3c.is_traceparent("01" + SAMPLED[2:] + "more")


def test_the_decision_is_one_bit() -> None:
    assert w3c.is_sampled(SAMPLED)
    assert w3c.is_sampled(SAMPLED[:-1] + "3")
    assert not w3c.is_sampled(SAMPLED[:-1] + "2")
    assert not w3c.is_sampled("")
    declined = w3c.unsampled()
    assert w3c.is_traceparent(declined)
    assert not w3c.is_sampled(declined)


def test_links_are_the_first_the_last_and_some_between() -> None:
    many = [w3c.format_context(number, 1, sampled=number % 2 == 0) for number in range(1, 1_001)]
    many += many  # records of one message share a context
    links = [w3c.parse(link).trace_id for link in w3c.pick_links(many)]
    assert len(links) == w3c.LINKS_MAX
    assert (links[0], links[-1]) == (2, 1_000)
    assert links == sorted(set(links))
    few = many[:10]
    assert w3c.pick_links(few) == [each for each in few if w3c.is_sampled(each)]
    assert w3c.pick_links([w3c.unsampled()]) == []
