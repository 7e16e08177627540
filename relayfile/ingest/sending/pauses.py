"""What is paused, as far as this process knows. Pure.

Each node tells all pauses of its shards when a stream to it begins, and again after each change. A process remembers
what it was told last, so that it sends nothing of a paused provider after a restart either, before it heard anything.
"""

from collections.abc import Callable, Iterable, Mapping

WHOLE_WORKSPACE = ""
"""Stands for all providers of a workspace."""

Told = Iterable[tuple[str, frozenset[str]]]
"""Workspaces and their paused providers."""
PauseTable = Mapping[str, frozenset[str]]
"""Workspace to paused providers."""


class Pauses:
    """The pauses of all workspaces."""

    def __init__(self, remembered: Iterable[tuple[str, str]] = ()) -> None:
        """`remembered`: (workspace, provider), as `rows` gave them before the restart."""
        table: dict[str, frozenset[str]] = {}
        for workspace_id, provider in remembered:
            table[workspace_id] = table.get(workspace_id, frozenset()) | {provider}
        self.table: PauseTable = table
        """Replaced when something changes, never changed itself."""
        self._telling: dict[str, dict[str, frozenset[str]]] = {}
        """By address, what was told of a list that is not complete yet."""

    def is_paused(self, workspace_id: str, provider: str) -> bool:
        """Whether nothing of the provider may be sent."""
        providers = self.table.get(workspace_id)
        return providers is not None and (provider in providers or WHOLE_WORKSPACE in providers)

    def begin(self, address: str) -> None:
        """A stream to a node begins: a list of which it told a part comes again."""
        self._telling.pop(address, None)

    def told(self, address: str, states: Told, complete: bool, is_its: Callable[[str], bool]) -> list[str]:
        """A node told a part of its list, with `complete` the last one. Returns the workspaces whose pauses changed.

        What the whole list does not name is not paused, of the workspaces that are the node's (`is_its`).
        """
        telling = self._telling.setdefault(address, {})
        telling.update(states)
        if not complete:
            return []
        del self._telling[address]
        table = {workspace_id: known for workspace_id, known in self.table.items() if not is_its(workspace_id)}
        table.update({workspace_id: providers for workspace_id, providers in telling.items() if providers})
        before, self.table = self.table, table
        return [
            workspace_id
            for workspace_id in before.keys() | table.keys()
            if before.get(workspace_id) != table.get(workspace_id)
        ]

    def rows(self) -> list[tuple[str, str]]:
        """(workspace, provider) of every pause, to be remembered."""
        return [(workspace_id, provider) for workspace_id, providers in self.table.items() for provider in providers]
