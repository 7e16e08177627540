"""Slack's rules. What is expected is written here by hand, not taken from the adapter."""

from typing import Final

import pytest

from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.ingest.webhooks.signature import SignedRequest, sign
from relayfile.pinned_json import JsonValue
from tests.support.provider_fixtures import (
    DELETE,
    PATCH,
    SIGNAL,
    UPSERT,
    Made,
    Outcome,
    names,
    outcome,
    refusal,
    request,
)

SLACK: Final = ProviderRegistry.load(1_000_000)["slack"]
CHANNEL: Final = "/slack/channels/C123ABC456"
MESSAGE: Final = f"{CHANNEL}/messages/1355517523.000005.json"
MESSAGE_ID: Final = "message/C123ABC456:1355517523.000005"
REACTION: Final = f"{CHANNEL}/messages/1355517523.000005/reactions/thumbsup::skin-tone-2/U123ABC456.json"
REACTION_ID: Final = "reaction/C123ABC456:1355517523.000005:thumbsup%3A%3Askin-tone-2:U123ABC456"
FUN: Final = "/slack/channels/C024BE91L/channel.json"
MEMBER: Final = "/slack/channels/C0698JE0H/members/W06GH7XHN.json"
EDITED: Final[JsonValue] = {
    "channel": "C123ABC456",
    "edited": {"user": "U123ABC456", "ts": "1358878755.000001"},
    "text": "Hello, world!",
    "ts": "1355517523.000005",
    "user": "U123ABC456",
}
USER: Final[JsonValue] = {
    "id": "U1234567",
    "team_id": "T123ABC456",
    "name": "some-user",
    "deleted": False,
    "real_name": "Some User",
    "profile": {"real_name": "Some User", "email": "some@example.com"},
    "is_bot": False,
    "updated": 1648596421,
}


def delivery(number: str) -> str:
    return f"T123ABC456:Ev123ABC45{number}"


EXPECTED: Final = {
    "message": Outcome(
        delivery("0"),
        "message",
        [
            Made(
                UPSERT,
                MESSAGE,
                MESSAGE_ID,
                "2012-12-14T20:38:43.000005Z",
                {"channel": "C123ABC456", "text": "Hello world", "ts": "1355517523.000005", "user": "U123ABC456"},
                {"user": "U123ABC456"},
            )
        ],
    ),
    "message_changed": Outcome(
        delivery("1"),
        "message.message_changed",
        [Made(UPSERT, MESSAGE, MESSAGE_ID, "2013-01-22T18:19:15.000001Z", EDITED, {"user": "U123ABC456"})],
    ),
    "message_deleted": Outcome(
        delivery("2"), "message.message_deleted", [Made(DELETE, MESSAGE, MESSAGE_ID, "2013-01-22T18:19:20.000001Z")]
    ),
    "thread_reply": Outcome(
        delivery("3"),
        "message",
        [
            Made(
                UPSERT,
                f"{CHANNEL}/messages/1355517600.000100.json",
                "message/C123ABC456:1355517600.000100",
                "2012-12-14T20:40:00.000100Z",
                {
                    "channel": "C123ABC456",
                    "text": "Hello back",
                    "thread_ts": "1355517523.000005",
                    "ts": "1355517600.000100",
                    "user": "U222222222",
                },
                {"user": "U222222222", "thread": "1355517523.000005"},
            )
        ],
    ),
    "message_replied": Outcome(
        delivery("4"),
        "message.message_replied",
        [
            Made(
                UPSERT,
                MESSAGE,
                MESSAGE_ID,
                "2012-12-14T20:40:01.000200Z",
                {
                    "channel": "C123ABC456",
                    "text": "Hello, world!",
                    "thread_ts": "1355517523.000005",
                    "ts": "1355517523.000005",
                    "user": "U123ABC456",
                },
                {"user": "U123ABC456", "thread": "1355517523.000005"},
            )
        ],
    ),
    "reaction_added": Outcome(
        delivery("5"),
        "reaction_added",
        [
            Made(
                UPSERT,
                REACTION,
                REACTION_ID,
                "2013-02-13T19:13:24.083113Z",
                {"reaction": "thumbsup::skin-tone-2", "user": "U123ABC456", "item_user": "U222222222"},
            )
        ],
    ),
    "reaction_removed": Outcome(
        delivery("6"), "reaction_removed", [Made(DELETE, REACTION, REACTION_ID, "2013-02-13T19:15:00.083113Z")]
    ),
    "channel_created": Outcome(
        delivery("7"),
        "channel_created",
        [
            Made(
                PATCH,
                FUN,
                "channel/C024BE91L",
                "2013-02-13T19:13:24Z",
                {"id": "C024BE91L", "name": "fun", "created": 1360782804, "creator": "U024BE7LH"},
                {"name": "fun"},
            )
        ],
    ),
    "channel_rename": Outcome(
        delivery("8"),
        "channel_rename",
        [
            Made(
                PATCH,
                FUN,
                "channel/C024BE91L",
                "2013-02-13T19:16:39Z",
                {"id": "C024BE91L", "name": "more-fun", "created": 1360782804},
                {"name": "more-fun"},
            )
        ],
    ),
    "channel_archive": Outcome(
        delivery("9"), "channel_archive", [Made(SIGNAL, FUN, "channel/C024BE91L", "2013-02-21T21:41:56Z")]
    ),
    "channel_deleted": Outcome(
        delivery("a"), "channel_deleted", [Made(DELETE, FUN, "channel/C024BE91L", "2013-02-21T21:43:19Z")]
    ),
    "member_joined": Outcome(
        delivery("b"),
        "member_joined_channel",
        [
            Made(
                UPSERT,
                MEMBER,
                "channel_member/C0698JE0H:W06GH7XHN",
                "2013-02-21T21:41:56Z",
                {"user": "W06GH7XHN", "channel_type": "C", "inviter": "U123456789"},
                {},
                ["/slack/users/W06GH7XHN.json"],
            )
        ],
    ),
    "member_left": Outcome(
        delivery("c"),
        "member_left_channel",
        [Made(DELETE, MEMBER, "channel_member/C0698JE0H:W06GH7XHN", "2013-02-21T21:42:00Z")],
    ),
    "user_change": Outcome(
        delivery("d"),
        "user_change",
        [
            Made(
                UPSERT,
                "/slack/users/U1234567.json",
                "user/U1234567",
                "2022-03-29T23:31:52Z",
                USER,
                {"name": "some-user", "real_name": "Some User"},
            )
        ],
    ),
    "file_shared": Outcome(
        delivery("e"),
        "file_shared",
        [Made(SIGNAL, "/slack/files/F2147483862.json", "file/F2147483862", "2013-02-21T21:41:56Z")],
    ),
    "file_deleted": Outcome(
        delivery("f"),
        "file_deleted",
        [Made(DELETE, "/slack/files/F2147483862.json", "file/F2147483862", "2013-02-21T21:42:10Z")],
    ),
    "app_rate_limited": Outcome("T123456:1518467820", "app_rate_limited", failure="EVENTS_LOST"),
    "url_verification": Outcome("", "url_verification"),
    "unknown": Outcome(delivery("g"), "of_the_future"),
}


def test_every_fixture_has_its_expectation() -> None:
    assert names("slack") == sorted(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_events_become_what_is_written_here(name: str) -> None:
    assert outcome(SLACK, name) == EXPECTED[name]


def test_the_challenge_is_answered_with_its_text() -> None:
    answer = "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"
    assert SLACK.challenge_answer(SLACK.read(request("slack", "url_verification"))) == answer
    assert SLACK.challenge_answer(SLACK.read(request("slack", "message"))) is None


def test_the_signature_is_over_version_time_and_body() -> None:
    # The example of docs.slack.dev/authentication/verifying-requests-from-slack, unverified: from memory.
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
        b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
        b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F"
        b"96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    headers = {
        "x-slack-request-timestamp": "1531420618",
        "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    }
    secret = "8f742231b10e8888abcd99yyyzzz85a5"
    assert refusal(SLACK, headers, body, [secret], 1531420618) == ""
    assert refusal(SLACK, headers, body, [secret], 1531420618 + 301) == "TIMESTAMP_STALE"
    assert refusal(SLACK, headers, body + b"x", [secret], 1531420618) == "SIGNATURE_MISMATCH"
    assert refusal(SLACK, headers | {"x-slack-request-timestamp": "1531420619"}, body, [secret], 1531420618) == (
        "SIGNATURE_MISMATCH"
    )
    scheme = SLACK.scheme
    assert scheme is not None
    assert sign(scheme, SignedRequest({}, body), secret, "1531420618") == headers["x-slack-signature"]
