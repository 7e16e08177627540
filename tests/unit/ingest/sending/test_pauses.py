"""What a process knows of pauses: told by each node in whole lists, remembered over a restart."""

from relayfile.ingest.sending.pauses import Pauses

NODE, OTHER = "node:1", "other:1"


def is_its(workspace_id: str) -> bool:
    """Whether `NODE` owns it."""
    return workspace_id.startswith("a")


def told(pauses: Pauses, paused: dict[str, set[str]], *, complete: bool = True) -> set[str]:
    states = [(workspace_id, frozenset(providers)) for workspace_id, providers in paused.items()]
    return set(pauses.told(NODE, states, complete, is_its))


def test_nothing_is_paused_at_first() -> None:
    assert not Pauses().is_paused("acme", "github")


def test_a_provider_or_a_whole_workspace() -> None:
    pauses = Pauses()
    assert told(pauses, {"acme": {"github"}, "apex": {""}}) == {"acme", "apex"}
    assert pauses.is_paused("acme", "github")
    assert not pauses.is_paused("acme", "linear")
    assert pauses.is_paused("apex", "whatever")


def test_what_the_whole_list_does_not_name_has_ended() -> None:
    pauses = Pauses()
    told(pauses, {"acme": {"github", "linear"}, "apex": {""}})
    assert told(pauses, {"acme": {"linear"}}) == {"acme", "apex"}
    assert pauses.table == {"acme": {"linear"}}
    assert told(pauses, {"acme": {"linear"}}) == set()


def test_a_part_of_a_list_ends_nothing() -> None:
    pauses = Pauses([("apex", "github")])
    assert told(pauses, {"acme": {"github"}}, complete=False) == set()
    assert pauses.is_paused("apex", "github")
    assert told(pauses, {"apex": {"github"}}) == {"acme"}
    assert pauses.is_paused("acme", "github")


def test_a_part_that_was_told_before_the_stream_was_cut_is_forgotten() -> None:
    pauses = Pauses()
    told(pauses, {"acme": {"github"}}, complete=False)
    pauses.begin(NODE)
    assert told(pauses, {}) == set()
    assert not pauses.is_paused("acme", "github")


def test_a_node_says_nothing_about_the_workspaces_of_another() -> None:
    pauses = Pauses([("acme", "github"), ("umbrella", "github")])
    assert told(pauses, {}) == {"acme"}
    assert pauses.is_paused("umbrella", "github")
    assert set(pauses.told(OTHER, [], True, lambda workspace_id: not is_its(workspace_id))) == {"umbrella"}


def test_what_is_remembered_is_what_was_told() -> None:
    pauses = Pauses()
    told(pauses, {"acme": {"github", "linear"}, "apex": {""}})
    assert Pauses(pauses.rows()).table == pauses.table


def test_a_table_that_was_looked_at_does_not_change() -> None:
    pauses = Pauses([("acme", "github")])
    before = pauses.table
    told(pauses, {})
    assert before == {"acme": {"github"}}
