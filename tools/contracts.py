"""The import contract of pure modules, for import-linter."""

from grimp import ImportGraph
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.domain.contract import ContractCheck


class PureContract(ForbiddenContract):
    """A forbidden contract whose source modules may not exist yet: each binds from the day it does.

    So the list can name the whole design, and nobody can land a pure module and forget its contract.
    """

    type_name = "pure"

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        self.source_modules = {one for one in self.source_modules if one.expression in graph.modules}  # type: ignore[assignment, attr-defined]
        return super().check(graph, verbose)
