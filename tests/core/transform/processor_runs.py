"""Helpers that run one processor on one event."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import msgspec
import pytest

from opensearch_batch.core.config.options import dec_hook
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.transform.events.event import Event, EventError
from opensearch_batch.core.transform.processors import PROCESSORS
from opensearch_batch.core.transform.processors.base import Processor, ProcessorOptions

Fields = dict[str, Any]


class Done(NamedTuple):
    """Result of a processor: the fields of the event, and the cause of a failure."""

    fields: Any
    failure: str
    event: Event
    passed: bool


def options_of(name: str, options: Fields) -> ProcessorOptions:
    """Read a processor's options."""
    return msgspec.convert(options, PROCESSORS[name], strict=False, dec_hook=dec_hook)


def compiled(name: str, options: Fields) -> Processor:
    """Compile a processor."""
    return options_of(name, options).compile()


def done(name: str, options: Fields, fields: Fields | str, metadata: Fields | None = None) -> Done:
    """Run a processor on an event, given as fields or as the text of a row."""
    event = Event.of(fields.encode() if isinstance(fields, str) else json.dumps(fields).encode())
    event.metadata.update(metadata or {})
    passed, failure = True, ""
    try:
        passed = compiled(name, options)(event)
    except EventError as error:
        failure = str(error)
    return Done(json.loads(event.to_json()), failure, event, passed)


def refused(name: str, options: Fields, part: str) -> None:
    """Assert that options raise ConfigError with a message that contains `part`."""
    with pytest.raises(ConfigError, match=re.escape(part)):
        compiled(name, options)
