"""Reads options from YAML nodes: a mistake is reported with its line, an unsupported option by its name.

Nothing said and null are the same, as in the original.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin

import msgspec

from opensearch_batch.core.config.annotations import (
    Kind,
    as_said,
    bare_type,
    below,
    counted,
    example_in,
    has_struct,
    is_any,
    is_list_of_texts,
    look_of,
    takes_null,
)
from opensearch_batch.core.config.node_values import is_bool, is_null, json_of, stands_at, texts_of
from opensearch_batch.core.config.option_types import CheckedOptions, Plugin, Secret, decode, is_variable
from opensearch_batch.core.config.type_info import choices
from opensearch_batch.core.config.yaml_file import Keys, Node, YamlFile, dotted, place_in
from opensearch_batch.core.errors import ConfigError, did_you_mean

S = TypeVar("S", bound=msgspec.Struct)
_ENUM = re.compile(r"Invalid enum value '(?P<value>.*)'", re.DOTALL)
_OPTION = re.compile(r"(?P<path>[a-z_]+(?:\[\d+\])?(?:\.[a-z_]+(?:\[\d+\])?)*):? ")
_STEP = re.compile(r"([a-z_]+)|\[(\d+)\]")
_BOOLEANS = {"true": ("yes", "y", "on", "1"), "false": ("no", "n", "off", "0")}
# What YAML reads as a text in a list, without quotes around it.
_PLAIN, _SHORT = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*", re.ASCII), 80
_SHOWN = re.compile(r"Expected `(int|float|bool|datetime)`|Invalid RFC3339")


class Reader:
    """Reads the parts of one file; `remarks` are what it says without effect, by line."""

    def __init__(self, file: YamlFile) -> None:
        self._file = file
        self.remarks: list[tuple[int, str]] = []

    def remark(self, keys: Keys, text: str) -> None:
        """Keep what the user should know of a key."""
        self.remarks.append((self._file.line(keys), f"{dotted(keys)}: {text}"))

    def members(self, node: Node, keys: Keys) -> dict[str, Node]:
        """Return the values of a mapping by name; nothing is an empty one."""
        if is_null(node) or (node.id == "scalar" and not node.value):
            return {}
        if node.id != "mapping":
            raise self._file.error(keys, "options are to stand here, each with its name: 'name: value'")
        return {name.value: value for name, value in node.value}

    def elements(self, node: Node, keys: Keys) -> list[Node]:
        """Return the values of a list; nothing is an empty one."""
        if is_null(node):
            return []
        if node.id != "sequence":
            raise self._file.error(keys, "a list is to stand here, each of it after a hyphen")
        return list(node.value)

    def options(self, node: Node, kind: type[S], keys: Keys) -> S:
        """Return the options of one plugin, or of a part of it."""
        said = self.said(node, kind, keys)
        values = {}
        for field in msgspec.structs.fields(kind):
            if field.encode_name in said:
                name, value = said[field.encode_name]
                values[field.name] = self.value(value, field.type, (*keys, name))
            elif field.required:
                raise self._file.error(keys, f"{field.name} is missing; write {look_of(field)}")
        made = kind(**values)
        if isinstance(made, CheckedOptions):
            self._check(made, keys)
        return made

    def said(self, node: Node, kind: type[msgspec.Struct], keys: Keys) -> dict[str, tuple[str, Node]]:
        """Return what is said of each option, under the name it has now, with the name it was said by."""
        refused, no_effect, aliases = (_told(kind, name) for name in ("REFUSED", "NO_EFFECT", "ALIASES"))
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        said: dict[str, tuple[str, Node]] = {}
        members = self.members(node, keys)
        for name, value in members.items():
            here = (*keys, name)
            now = aliases.get(name, name)
            if now not in fields and name not in refused and name not in no_effect:
                place = _place_of(name, kind, members)
                raise self._unknown(here, name, [*fields, *aliases, *no_effect, *refused], place)
            if is_null(value) and not (now in fields and takes_null(fields[now].type)):
                continue
            if name in refused:
                raise self._file.error(here, f"this option is not supported: {refused[name]}")
            if name in no_effect:
                self.remark(here, f"has no effect: {no_effect[name]}")
            if now in said:
                raise self._file.error(here, f"{said[now][0]} says the same; keep one of them")
            if now in fields:
                said[now] = (name, value)
        return said

    def value(self, node: Node, kind: Kind, keys: Keys) -> Any:  # noqa: ANN401 - of that type
        """Return a value as its type wants it."""
        if is_null(node) and takes_null(kind):
            return None
        plain, metas = bare_type(kind)
        plugin = next((meta for meta in metas if isinstance(meta, Plugin)), None)
        if plugin is not None:
            return self.plugin(node, plugin, keys)[1]
        if isinstance(plain, type) and issubclass(plain, msgspec.Struct):
            return self.options(node, plain, keys)
        origin: Any = get_origin(plain)
        if origin in (list, tuple) and has_struct(inner := get_args(plain)[0]):
            made = [self.value(each, inner, (*keys, at)) for at, each in enumerate(self.elements(node, keys))]
            self._convert(node, [""] * len(made), counted(metas), keys)
            return origin(made)
        if origin in (dict, Mapping) and has_struct(inner := get_args(plain)[1]):
            members = self.members(node, keys)
            return {name: self.value(each, inner, (*keys, name)) for name, each in members.items()}
        as_json = is_any(plain) or (plain is bool and is_bool(node))
        return self._convert(node, json_of(node) if as_json else texts_of(node), kind, keys)

    def plugin(self, node: Node, plugin: Plugin, keys: Keys) -> tuple[Keys, Any]:
        """Return the place of a plugin's options and the options; the name is the place's last key."""
        members: list[tuple[Node, Node]] = node.value if node.id == "mapping" else []
        if len(members) != 1:
            raise self._no_plugin(node, [name.value for name, _ in members], plugin, keys)
        name, inner = members[0][0].value, members[0][1]
        here = (*keys, name)
        if name in plugin.refused:
            raise self._file.error(here, f"this {plugin.kind} is not supported: {plugin.refused[name]}")
        if name not in plugin.known:
            known = ", ".join(plugin.known)
            hint = did_you_mean(name, plugin.known)
            raise self._file.error(here, f"there is no {plugin.kind} of this name; known: {known}.{hint}")
        return here, self.options(inner, plugin.known[name], here)

    def _no_plugin(self, node: Node, names: list[str], plugin: Plugin, keys: Keys) -> ConfigError:
        """Return the error of what is not one plugin: often its options stand beside it, not below."""
        plugins = [name for name in names if name in plugin.known or name in plugin.refused]
        if len(plugins) == 1:
            name = next(name for name in names if name != plugins[0])
            return self._file.error((*keys, name), f"{name!r} stands beside {plugins[0]}; indent it, to stand below it")
        if plugins and isinstance(keys[-1], int):
            name = plugins[1]
            return self._file.error((*keys, name), f"{name!r} stands beside {plugins[0]}; write a hyphen before it")
        name = node.value if node.id == "scalar" and node.value in plugin.known else next(iter(plugin.known))
        return self._file.error(keys, f"one {plugin.kind} with its options is to stand here, like {name}: {{}}")

    def placed(self, node: Node, keys: Keys, error: ConfigError) -> ConfigError:
        """Return an error at the option its text starts with, at `keys` if it starts with none."""
        text = str(error)
        if found := _OPTION.match(text):
            path: Keys = tuple(name or int(number) for name, number in _STEP.findall(found["path"]))
            if stands_at(node, path):
                # Told with its place already, unless it is a part of the sentence.
                cause = text[found.end() :] if found[0].endswith(": ") else text
                return self._file.error((*keys, *path), cause)
        return self._file.error(keys, text)

    def check_compiles(self, node: Node, keys: Keys, options: Any) -> None:  # noqa: ANN401 - of any plugin
        """Raise ConfigError, at the option it is about, where options that become a function cannot."""
        if hasattr(options, "compile"):
            try:
                options.compile()
            except ConfigError as error:
                raise self.placed(node, keys, error) from error

    def _check(self, made: CheckedOptions, keys: Keys) -> None:
        for inner, check in made.rules():
            try:
                check()
            except ConfigError as error:
                raise self._file.error((*keys, *inner), str(error)) from error
        for inner, note in made.notes():
            self.remark((*keys, *inner), note)

    def _convert(self, node: Node, value: Any, kind: Kind, keys: Keys) -> Any:  # noqa: ANN401 - YAML, and of that type
        if is_variable(value) and Secret not in get_args(kind):
            raise self._file.error(keys, "a variable like ${{env:NAME}} is not filled in here; write the value itself")
        if isinstance(value, str):
            value = as_said(value, kind)
        try:
            return msgspec.convert(value, kind, strict=False, dec_hook=decode)
        except msgspec.ValidationError as error:
            raise self._wrong(node, kind, keys, str(error)) from None
        except (ValueError, OverflowError) as error:
            raise self._file.error(keys, f"cannot be read: {error}") from None

    def _wrong(self, node: Node, kind: Kind, keys: Keys, message: str) -> ConfigError:
        """Turn msgspec's message into one that says what to write."""
        cause, inner = place_in(message)
        here = (*keys, *inner)
        if found := _ENUM.search(cause):
            known = list(choices(kind))
            hint = did_you_mean(found["value"], known)
            return self._file.error(here, f"{found['value']!r} is none of {', '.join(known)}.{hint}")
        # Only what should have been a number or the like is shown: any other text may be a secret.
        stands = f"; {node.value!r} stands there" if node.id == "scalar" and _SHOWN.match(cause) else ""
        return self._file.error(here, f"{cause}{stands}{_remedy(node, kind, keys, cause)}")

    def _unknown(self, keys: Keys, name: str, known: list[str], place: str) -> ConfigError:
        if place:
            return self._file.error(keys, f"there is no option of this name here; {place}")
        hint = did_you_mean(name, known) or (f" The options are {', '.join(known)}." if known else " It has none.")
        return self._file.error(keys, f"there is no option of this name.{hint}")


def _place_of(name: str, kind: type[msgspec.Struct], members: Mapping[str, Node]) -> str:
    """Return where to write an option that belongs below another one, empty for none.

    Best below one that stands there with nothing below it.
    """
    found = dict[str, str]()
    for field in msgspec.structs.fields(kind):
        names, before = below(field.type)
        if name in names:
            found[field.encode_name] = f"{field.encode_name}{before}"
    bare = next((each for each in found if each in members and is_null(members[each])), None)
    if bare is not None:
        return f"indent it, to stand below {found[bare]}"
    return next((f"write it below {place}" for place in found.values()), "")


def _remedy(node: Node, kind: Kind, keys: Keys, cause: str) -> str:
    """Return what to write, where it is known."""
    said = node.value if node.id == "scalar" else ""
    if cause.startswith("Expected `bool"):
        right = next((right for right, words in _BOOLEANS.items() if said.lower() in words), "true or false")
        return f"; write {right}"
    # A host may have a password before its @.
    if cause.startswith("Expected `array") and is_list_of_texts(kind) and 0 < len(said) <= _SHORT and "@" not in said:
        listed = (part.strip() for part in said.split(",") if part.strip())
        texts = ", ".join(each if _PLAIN.fullmatch(each) else json.dumps(each) for each in listed)
        return f"; write {keys[-1]}: [{texts}]"
    example = example_in(kind)
    return "" if example is None else f"; write {keys[-1]}: {json.dumps(example)}"


def _told(kind: type[msgspec.Struct], name: str) -> Mapping[str, str]:
    told: Mapping[str, str] = getattr(kind, name, {})
    return told
