"""Prints how the package's rooms import each other: `python -m tests.package_graph`.

A node is a package or module directly below `opensearch_batch` or `opensearch_batch.core`. An edge counts once however
many imports it stands for. Imports inside functions count as well. An `__init__` module of a parent counts as no node.
"""

from __future__ import annotations

from collections import defaultdict

import grimp

PACKAGE = "opensearch_batch"


def node_of(module: str) -> str | None:
    """Return the node of a module: the first name below the package, or the first two below its `core`."""
    names = module.split(".")[1:]
    if names[:1] == ["core"]:
        return ".".join(names[:2]) if len(names) > 1 else None
    return names[0] if names else None


def module_imports() -> dict[str, set[str]]:
    """Return what each module of the package imports of it, inside functions and for type checking too."""
    graph = grimp.build_graph(PACKAGE, exclude_type_checking_imports=False)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def node_imports() -> dict[str, set[str]]:
    """Return what each node imports."""
    found = defaultdict[str, set[str]](set)
    for module, imported in module_imports().items():
        if node := node_of(module):
            found[node] |= {target for name in imported if (target := node_of(name)) and target != node}
    return dict(found)


def in_circles(imports: dict[str, set[str]]) -> list[str]:
    """Return what is part of a circle, or on a way from one circle to another; nothing where there is no circle."""
    while leaves := {name for name, imported in imports.items() if not imported & imports.keys()}:
        imports = {name: imported for name, imported in imports.items() if name not in leaves}
    while roots := imports.keys() - {name for imported in imports.values() for name in imported}:
        imports = {name: imported for name, imported in imports.items() if name not in roots}
    return sorted(imports)


def main() -> None:
    """Print nodes, edges and circles."""
    nodes = node_imports()
    for node, imported in sorted(nodes.items()):
        print(f"{node:20} -> {', '.join(sorted(imported))}")
    circles = in_circles(nodes) + in_circles(module_imports())
    print(f"{len(nodes)} nodes, {sum(map(len, nodes.values()))} edges, in circles: {', '.join(circles) or 'none'}")


if __name__ == "__main__":
    main()
