"""Reads nested parameters of a connector, as JSON values or as the JSON text that ML Commons stores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from opensearch_batch.core.errors import ConfigError


def nested(parameters: Mapping[str, Any], name: str, *, default: Any = None) -> Any:  # noqa: ANN401 - JSON
    """Return a parameter, decoded if it is JSON text; other text is returned unchanged."""
    value = parameters.get(name, default)
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value


def nested_object(
    parameters: Mapping[str, Any], name: str, *, default: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return a parameter that is an object; raise ConfigError if it is not, or is missing without a default."""
    value = nested(parameters, name, default=default)
    if not isinstance(value, dict):
        raise ConfigError(f"connector parameters.{name} must be an object, as the service's API documents it")
    return value


def need_parameters(parameters: Mapping[str, Any], *names: str, job: str) -> None:
    """Raise ConfigError if a parameter that the service's job needs is missing."""
    for name in names:
        if name not in parameters:
            raise ConfigError(f"connector parameters.{name} is missing; {job} needs it")
