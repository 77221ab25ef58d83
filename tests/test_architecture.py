"""The structure of the package stays small enough to see at a glance."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

from tests.package_graph import in_circles, module_imports, node_imports

PACKAGE = Path(__file__).resolve().parent.parent / "plugins" / "opensearch_batch"
MAX_NODES, MAX_EDGES = 26, 147
MAX_FILE_LINES, MAX_FUNCTION_LINES = 350, 60
MAX_ANY = 60
MAX_FILES_OF_ONE_NAME = 4


def test_rooms_and_imports_between_them_are_few() -> None:
    """The counts are those of `python -m tests.package_graph`."""
    nodes = node_imports()
    assert len(nodes) <= MAX_NODES
    assert sum(map(len, nodes.values())) <= MAX_EDGES


def test_neither_rooms_nor_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions count."""
    assert in_circles(node_imports()) == []
    assert in_circles(module_imports()) == []


def test_a_circle_is_found() -> None:
    """What only leads to a circle, or away from it, is no part of it."""
    assert in_circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == ["b", "c"]


def test_files_and_functions_are_short() -> None:
    """A file has one subject, and a function one step."""
    too_long = []
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if (lines := len(text.splitlines())) > MAX_FILE_LINES:
            too_long.append(f"{path.name}: {lines} lines")
        too_long += [
            f"{path.name} {node.name}: {lines} lines"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and (lines := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
        ]
    assert too_long == []


def test_any_is_rare() -> None:
    """`Any` is for values of foreign libraries, not for our own types."""
    found = sum(path.read_text(encoding="utf-8").count("noqa: ANN401") for path in PACKAGE.rglob("*.py"))
    assert found <= MAX_ANY


def test_names_are_not_shared() -> None:
    """No two public classes have one name, and few modules do."""
    classes, modules = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for path in PACKAGE.rglob("*.py"):
        if path.stem != "__init__":
            modules[path.stem].append(str(path.relative_to(PACKAGE)))
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes[node.name].append(path.stem)
    assert {name: found for name, found in classes.items() if len(found) > 1} == {}
    assert {name: found for name, found in modules.items() if len(found) > MAX_FILES_OF_ONE_NAME} == {}
