from relayfile.ingest.sending.router import Router
from relayfile.placement import shard_of


def test_shards_are_spread_over_the_list() -> None:
    router = Router(("a:1", "b:2"), 256)
    assert [router.address_of(shard) for shard in range(4)] == ["a:1", "b:2", "a:1", "b:2"]
    assert router.shard_of("acme") == shard_of("acme")
    assert router.epoch_of(3) == 0


def test_a_moved_shard_is_followed_and_older_news_ignored() -> None:
    router = Router(("a:1", "b:2"), 256)
    assert router.learn(2, 5, "c:3")
    assert (router.address_of(2), router.epoch_of(2)) == ("c:3", 5)
    assert not router.learn(2, 4, "d:4"), "older"
    assert not router.learn(2, 6, ""), "nobody knows"
    assert not router.learn(2, 6, "c:3"), "no news"
    assert router.learn(2, 6, "a:1")
    assert router.address_of(2) == "a:1"
    assert router.address_of(0) == "a:1"
