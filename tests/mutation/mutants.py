"""Mutants of a module: the same code with one operator, argument or statement changed, by mutmut's operators.

mutmut's own runner is not used: its trampolines do not fit our layout, and it takes no sample (docs/decisions/018).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.file_mutation import MutationVisitor
from mutmut.mutation.mutators import mutation_operators, operator_string
from mutmut.mutation.pragma_handling import IgnoredCode


class Mutant(NamedTuple):
    """A change of a module: its path in the repository, the changed line, and both nodes."""

    path: str
    line: int
    module: cst.Module
    before: cst.CSTNode
    after: cst.CSTNode

    def code(self) -> str:
        """Return the text of the changed module."""
        changed = self.module.deep_replace(self.before, self.after)
        assert isinstance(changed, cst.Module)
        return changed.code

    def change(self) -> str:
        """Return the changed lines, before and after."""
        lines = difflib.unified_diff(self.module.code.splitlines(), self.code().splitlines(), n=0, lineterm="")
        return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


def _without(node: cst.Raise | cst.Expr) -> Iterable[cst.CSTNode]:
    """Replace a raise, or a call whose result is not used, by nothing."""
    if isinstance(node, cst.Raise) or isinstance(node.value, cst.Call):
        yield cst.Pass()


# The words of a message are no behaviour: that each error is matched by its message, ruff sees to.
OPERATORS = [
    *((kind, operator) for kind, operator in mutation_operators if operator is not operator_string),
    (cst.Raise, _without),
    (cst.Expr, _without),
]


def mutants(root: Path, path: str) -> Iterator[Mutant]:
    """Yield all mutants of a module, in the order of its text."""
    wrapper = MetadataWrapper(cst.parse_module((root / path).read_text(encoding="utf-8")))
    visitor = MutationVisitor(OPERATORS, IgnoredCode(set(), set(), set()))
    wrapper.visit(visitor)
    lines = wrapper.resolve(PositionProvider)
    for each in visitor.mutations:
        yield Mutant(path, lines[each.original_node].start.line, wrapper.module, each.original_node, each.mutated_node)
