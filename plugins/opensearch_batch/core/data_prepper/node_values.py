"""What a node of a YAML file says: its text as it stands there, or what JSON would have in its place.

So an account's leading zeros stay, and no date or octal number of YAML's comes in, as in the original's reader.
"""

from __future__ import annotations

import re
from typing import Any

from opensearch_batch.core.yaml_file import Keys, Node

_NULL = "tag:yaml.org,2002:null"
_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,30})", re.ASCII)
_FLOAT = re.compile(r"[-+]?[0-9]{1,300}\.[0-9]*([eE][-+]?[0-9]{1,3})?", re.ASCII)


def is_null(node: Node) -> bool:
    """Say whether nothing is said."""
    return node is None or (node.id == "scalar" and node.tag == _NULL)


def texts_of(node: Node) -> Any:  # noqa: ANN401 - nested texts
    """Return a value's texts as they stand in the file."""
    if node.id == "mapping":
        return {name.value: texts_of(value) for name, value in node.value}
    if node.id == "sequence":
        return [texts_of(each) for each in node.value]
    return None if is_null(node) else node.value


def json_of(node: Node) -> Any:  # noqa: ANN401 - any JSON
    """Return a value as JSON would have it."""
    if is_null(node):
        return None
    if node.id == "mapping":
        return {name.value: json_of(value) for name, value in node.value}
    if node.id == "sequence":
        return [json_of(each) for each in node.value]
    return _scalar(node.tag.rpartition(":")[2], node.value)


def stands_at(node: Node, path: Keys) -> bool:
    """Say whether an option stands in a node."""
    for key in path:
        if node.id == "mapping":
            node = next((value for name, value in node.value if name.value == key), None)
        elif node.id == "sequence" and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
        else:
            return False
        if node is None:
            return False
    return True


def _scalar(tag: str, text: str) -> Any:  # noqa: ANN401 - any JSON
    if tag == "bool" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if tag == "int" and _INT.fullmatch(text):
        return int(text)
    if tag == "float" and _FLOAT.fullmatch(text):
        return float(text)
    return text
