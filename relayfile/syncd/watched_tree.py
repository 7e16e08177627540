"""Which watch stands for which directory: a tree of names. A renamed directory takes all below it along. Pure."""

from collections.abc import Iterator


class Node:
    """A watched directory. One without a parent is the root, or out of the tree."""

    __slots__ = ("below", "name", "parent", "walk", "watch")

    def __init__(self, watch: int) -> None:
        self.watch = watch
        self.parent: Node | None = None
        self.name = ""
        self.below: dict[str, Node] | None = None
        self.walk = 0


class WatchedTree:
    """Directories by watch and by place. ``walk`` numbers the walks over the whole tree, one after another."""

    def __init__(self) -> None:
        self._nodes: dict[int, Node] = {}
        self._root: Node | None = None
        self.walk = 0

    def __len__(self) -> int:
        return len(self._nodes)

    def of(self, watch: int) -> Node | None:
        """The directory of a watch."""
        return self._nodes.get(watch)

    def path(self, node: Node) -> str | None:
        """Relative to the root, which is empty; None for what is out of the tree."""
        segments: list[str] = []
        while node.parent is not None:
            segments.append(node.name)
            node = node.parent
        return "/".join(reversed(segments)) if node is self._root else None

    def find(self, path: str) -> Node | None:
        """The directory that has a path, if it is watched."""
        node = self._root
        for name in path.split("/") if path else ():
            if node is None or node.below is None:
                return None
            node = node.below.get(name)
        return node

    def add(self, path: str, watch: int) -> bool:
        """``watch`` stands for ``path`` from now on, wherever it was; False when the directory above is not watched."""
        parent_path, _, name = path.rpartition("/")
        parent = self.find(parent_path) if path else None
        if path and parent is None:
            return False
        node = self._nodes.get(watch)
        if node is None:
            node = self._nodes[watch] = Node(watch)
        node.walk = self.walk
        if parent is None:
            self.detach(node)
            self._root = node
        elif node.parent is not parent or node.name != name:
            self.attach(node, parent, name)
        return True

    def attach(self, node: Node, parent: Node, name: str) -> None:
        """A directory is at ``name`` in ``parent`` now; one that was there before is out of the tree."""
        self.detach(node)
        if parent.below is None:
            parent.below = {}
        replaced = parent.below.get(name)
        if replaced is not None:
            replaced.parent = None
        node.parent, node.name = parent, name
        parent.below[name] = node

    def detach(self, node: Node) -> None:
        """A directory left its place; where to is not known yet."""
        parent = node.parent
        if parent is not None and parent.below is not None and parent.below.get(node.name) is node:
            del parent.below[node.name]
            if not parent.below:
                parent.below = None
        node.parent = None

    def ended(self, watch: int) -> bool:
        """The kernel ended a watch: its directory is gone. True for the root's."""
        node = self._nodes.pop(watch, None)
        if node is None:
            return False
        self.detach(node)
        if node is not self._root:
            return False
        self._root = None
        return True

    def cut(self, node: Node) -> list[int]:
        """Forget a directory and all below it. Returns their watches, to be ended."""
        self.detach(node)
        watches = [each.watch for each in _all(node)]
        for watch in watches:
            self._nodes.pop(watch, None)
        return watches

    def unmet(self) -> list[int]:
        """Forget directories that the present walk did not meet. Returns their watches, to be ended."""
        gone = [node for node in self._nodes.values() if node.walk != self.walk and node is not self._root]
        for node in gone:
            self.detach(node)
            del self._nodes[node.watch]
        return [node.watch for node in gone]


def _all(node: Node) -> Iterator[Node]:
    waiting = [node]
    while waiting:
        here = waiting.pop()
        yield here
        if here.below is not None:
            waiting += here.below.values()
