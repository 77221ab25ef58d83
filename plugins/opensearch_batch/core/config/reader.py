"""Reads plugin options from YAML nodes.

Every error contains the line and a remedy, and no option is ignored silently. An option whose value is null counts as
absent, as in Data Prepper.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar, get_args, get_origin

import msgspec

from opensearch_batch.core.config.annotations import (
    Annotation,
    accepts_any,
    accepts_null,
    bare_type,
    choices,
    example_of,
    has_options,
    is_list_of_strings,
    missing_key,
    names_below,
    normalized,
    not_one_of,
    plugin_of,
    sized_list,
    unknown_key,
)
from opensearch_batch.core.config.node_values import is_bool, is_null, json_of, strings_of
from opensearch_batch.core.config.option_types import (
    CheckedOptions,
    Plugin,
    Secret,
    ValueCheck,
    cause_of,
    decode,
    is_variable,
)
from opensearch_batch.core.config.yaml_file import NOT_ONE_OF, Keys, Node, YamlFile, dotted, node_at, split_message
from opensearch_batch.core.errors import ConfigError, did_you_mean

S = TypeVar("S", bound=msgspec.Struct)
_OPTION_PREFIX = re.compile(r"(?P<path>[a-z_]+(?:\[\d+\])?(?:\.[a-z_]+(?:\[\d+\])?)*):? ")
_PATH_STEP = re.compile(r"([a-z_]+)|\[(\d+)\]")
_BOOLEANS = {"true": ("yes", "y", "on", "1"), "false": ("no", "n", "off", "0")}
# Strings that need no quotes in a YAML list.
_NEEDS_NO_QUOTES = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*", re.ASCII)
# The maximum length of a value that a remedy repeats.
_MAX_REPEATED_CHARS = 80
# Messages of msgspec after which the error quotes the value.
_QUOTABLE = re.compile(r"Expected `(int|float|bool|datetime)`|Invalid RFC3339")


class Reader:
    """Reads the options in one file. `remarks` has the line and the text of each remark on a valid option."""

    def __init__(self, file: YamlFile) -> None:
        self._file = file
        self.remarks: list[tuple[int, str]] = []

    def remark(self, keys: Keys, text: str) -> None:
        """Add a remark on the option at a path of keys."""
        self.remarks.append((self._file.line(keys), f"{dotted(keys)}: {text}"))

    def members(self, node: Node, keys: Keys) -> dict[str, Node]:
        """Return the nodes of a mapping by key; an empty dict for null."""
        if is_null(node) or (node.id == "scalar" and not node.value):
            return {}
        if node.id != "mapping":
            raise self._file.error(keys, "expected a YAML mapping (`name: value`)")
        return {name.value: value for name, value in node.value}

    def elements(self, node: Node, keys: Keys) -> list[Node]:
        """Return the nodes of a list; an empty list for null."""
        if is_null(node):
            return []
        if node.id != "sequence":
            raise self._file.error(keys, "expected a YAML list (`- item`)")
        return list(node.value)

    def options(self, node: Node, kind: type[S], keys: Keys) -> S:
        """Read the options of a plugin, or a group of options inside them."""
        nodes = self.option_nodes(node, kind, keys)
        values = {}
        for field in msgspec.structs.fields(kind):
            if field.encode_name in nodes:
                name, value = nodes[field.encode_name]
                values[field.name] = self.value(value, field.type, (*keys, name))
            elif field.required:
                raise self._file.error(keys, missing_key(field))
        options = kind(**values)
        if isinstance(options, CheckedOptions):
            self._check(options, keys)
        return options

    def option_nodes(self, node: Node, kind: type[msgspec.Struct], keys: Keys) -> dict[str, tuple[str, Node]]:
        """Return the name in the file and the node of each option, by the current name of the option."""
        refused, no_effect, aliases = (getattr(kind, name, {}) for name in ("REFUSED", "NO_EFFECT", "ALIASES"))
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        nodes: dict[str, tuple[str, Node]] = {}
        members = self.members(node, keys)
        for name, value in members.items():
            option_keys = (*keys, name)
            current = aliases.get(name, name)
            if current not in fields and name not in refused and name not in no_effect:
                known = [*fields, *aliases, *no_effect, *refused]
                raise self._file.error(option_keys, _misplaced(name, kind, members) or unknown_key(name, known))
            if is_null(value) and not (current in fields and accepts_null(fields[current].type)):
                continue
            if name in refused:
                raise self._file.error(option_keys, f"this option is not supported: {refused[name]}")
            if name in no_effect:
                self.remark(option_keys, f"has no effect: {no_effect[name]}")
            if current in nodes:
                raise self._file.error(option_keys, f"{nodes[current][0]} sets the same option; keep one of them")
            if current in fields:
                nodes[current] = (name, value)
        return nodes

    def value(self, node: Node, annotation: Annotation, keys: Keys) -> Any:  # noqa: ANN401 - of the annotated type
        """Read a value of an annotated type."""
        if is_null(node) and accepts_null(annotation):
            return None
        plain, metas = bare_type(annotation)
        plugin = plugin_of(annotation)
        if plugin is not None:
            return self.plugin(node, plugin, keys)[1]
        if isinstance(plain, type) and issubclass(plain, msgspec.Struct):
            return self.options(node, plain, keys)
        origin: Any = get_origin(plain)
        if origin in (list, tuple) and has_options(inner := get_args(plain)[0]):
            elements = self.elements(node, keys)
            values = [self.value(element, inner, (*keys, number)) for number, element in enumerate(elements)]
            self._convert(node, [""] * len(values), sized_list(metas), keys)
            return origin(values)
        if origin in (dict, Mapping) and has_options(inner := get_args(plain)[1]):
            members = self.members(node, keys)
            return {name: self.value(member, inner, (*keys, name)) for name, member in members.items()}
        as_json = accepts_any(plain) or (plain is bool and is_bool(node))
        value = self._convert(node, json_of(node) if as_json else strings_of(node), annotation, keys)
        self._check_value(value, annotation, keys)
        return value

    def plugin(self, node: Node, plugin: Plugin, keys: Keys) -> tuple[Keys, Any]:
        """Read a plugin; return the keys of its options, which end with the name of the plugin, and the options."""
        members: list[tuple[Node, Node]] = node.value if node.id == "mapping" else []
        if len(members) != 1:
            raise self._not_one_plugin(node, [name.value for name, _ in members], plugin, keys)
        name, inner = members[0][0].value, members[0][1]
        plugin_keys = (*keys, name)
        if name in plugin.refused:
            raise self._file.error(plugin_keys, f"this {plugin.kind} is not supported: {plugin.refused[name]}")
        if name not in plugin.known:
            known = ", ".join(plugin.known)
            raise self._file.error(
                plugin_keys, f"unknown {plugin.kind}; known: {known}.{did_you_mean(name, plugin.known)}"
            )
        return plugin_keys, self.options(inner, plugin.known[name], plugin_keys)

    def _not_one_plugin(self, node: Node, names: list[str], plugin: Plugin, keys: Keys) -> ConfigError:
        """Return the error for a node that is not one plugin, often because options are not indented below it."""
        plugins = [name for name in names if name in plugin.known or name in plugin.refused]
        if len(plugins) == 1:
            name = next(name for name in names if name != plugins[0])
            cause = f"{name!r} is at the same level as {plugins[0]}; indent it below {plugins[0]}"
            return self._file.error((*keys, name), cause)
        if plugins and isinstance(keys[-1], int):
            cause = f"{plugins[1]!r} is in the list item of {plugins[0]}; write a hyphen before it"
            return self._file.error((*keys, plugins[1]), cause)
        name = node.value if node.id == "scalar" and node.value in plugin.known else next(iter(plugin.known))
        return self._file.error(keys, f"expected one {plugin.kind} with its options, like {name}: {{}}")

    def located(self, node: Node, keys: Keys, error: ConfigError) -> ConfigError:
        """Return an error with the location of the option that its message begins with, or else with that of `keys`."""
        text = str(error)
        if match := _OPTION_PREFIX.match(text):
            path: Keys = tuple(name or int(number) for name, number in _PATH_STEP.findall(match["path"]))
            if node_at(node, path) is not None:
                # The location replaces an `option: ` prefix; otherwise the name is part of the sentence.
                cause = text[match.end() :] if match[0].endswith(": ") else text
                return self._file.error((*keys, *path), cause)
        return self._file.error(keys, text)

    def check_compiles(self, node: Node, keys: Keys, options: object) -> None:
        """Raise ConfigError, with the location of the invalid option, if the options of a processor do not compile."""
        if hasattr(options, "compile"):
            try:
                options.compile()
            except ConfigError as error:
                raise self.located(node, keys, error) from error

    def _check(self, options: CheckedOptions, keys: Keys) -> None:
        for inner, check in options.rules():
            self._run_check((*keys, *inner), check)
        for inner, text in options.remarks():
            self.remark((*keys, *inner), text)

    def _check_value(self, value: Any, annotation: Annotation, keys: Keys) -> None:  # noqa: ANN401 - of the annotated type
        """Run the checks of a type on a value and on its elements."""
        plain, metas = bare_type(annotation)
        for meta in metas:
            if isinstance(meta, ValueCheck):
                self._run_check(keys, partial(meta.check, value))
                if meta.remark is not None and (text := meta.remark(value)) is not None:
                    self.remark(keys, text)
        inner = get_args(plain)
        origin: Any = get_origin(plain)
        if origin in (list, tuple):
            for number, element in enumerate(value):
                self._check_value(element, inner[0], (*keys, number))
        elif origin in (dict, Mapping):
            for name, member in value.items():
                self._check_value(member, inner[1], (*keys, name))

    def _run_check(self, keys: Keys, check: Callable[[], object] | str) -> None:
        if (cause := cause_of(check)) is not None:
            raise self._file.error(keys, cause)

    def _convert(self, node: Node, value: object, annotation: Annotation, keys: Keys) -> object:
        if is_variable(value) and Secret not in get_args(annotation):
            raise self._file.error(keys, "variables like ${{env:NAME}} are not resolved here; write the value itself")
        if isinstance(value, str):
            value = normalized(value, annotation)
        try:
            converted: object = msgspec.convert(value, annotation, strict=False, dec_hook=decode)
        except msgspec.ValidationError as error:
            raise self._conversion_error(node, annotation, keys, str(error)) from None
        except (ValueError, OverflowError) as error:
            raise self._file.error(keys, f"cannot be read: {error}") from None
        return converted

    def _conversion_error(self, node: Node, annotation: Annotation, keys: Keys, message: str) -> ConfigError:
        """Convert a message of msgspec to an error with location and remedy."""
        cause, inner = split_message(message)
        if wrong := NOT_ONE_OF.search(cause):
            cause = not_one_of(wrong["value"], choices(annotation))
        else:
            # Values of other types are not quoted, because they may be secrets.
            quoted = f": {node.value!r}" if node.id == "scalar" and _QUOTABLE.match(cause) else ""
            cause = f"{cause}{quoted}{_remedy(node, annotation, keys, cause)}"
        return self._file.error((*keys, *inner), cause)


def _misplaced(name: str, kind: type[msgspec.Struct], members: Mapping[str, Node]) -> str:
    """Return the message for an option that belongs below another option, or an empty string for any other option.

    The most likely parent is an option that the file contains without a value.
    """
    parents = dict[str, str]()
    for field in msgspec.structs.fields(kind):
        names, in_list = names_below(field.type)
        if name in names:
            parents[field.encode_name] = in_list
    empty = next((each for each in parents if each in members and is_null(members[each])), None)
    if empty is not None:
        return f"unknown key here; indent it below {empty}{parents[empty]}"
    return next((f"unknown key here; write it below {each}{in_list}" for each, in_list in parents.items()), "")


def _remedy(node: Node, annotation: Annotation, keys: Keys, cause: str) -> str:
    """Return the end of a message, which shows a valid value; empty if no valid value is known."""
    text = node.value if node.id == "scalar" else ""
    if cause.startswith("Expected `bool"):
        correct = next((correct for correct, words in _BOOLEANS.items() if text.lower() in words), "true or false")
        return f"; write {correct}"
    # A URL may contain a password before its @.
    is_short = 0 < len(text) <= _MAX_REPEATED_CHARS and "@" not in text
    if cause.startswith("Expected `array") and is_list_of_strings(annotation) and is_short:
        parts = (part.strip() for part in text.split(",") if part.strip())
        texts = ", ".join(each if _NEEDS_NO_QUOTES.fullmatch(each) else json.dumps(each) for each in parts)
        return f"; write {keys[-1]}: [{texts}]"
    example = example_of(annotation)
    return "" if example is None else f"; write {keys[-1]}: {json.dumps(example)}"
