"""The `predict` action of a connector: which `parameters` make ML Commons send a given body to the model.

ML Commons inserts parameters into the text of `request_body`, so a text can be inserted wrongly: ML Commons
does not escape a text that looks like JSON, and substitutes again in one that contains ``${parameters.``. Also, the
action of a user's connector may send something else than a batch job does; its prediction must not be stored under the
content key of the job's. So this module computes the body as ML Commons does, and refuses one that differs.

Source: ML Commons' HttpConnector.createPayload and ConnectorUtils.escapeRemoteInferenceInputData, 2.17 to 3.6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

import msgspec

from opensearch_batch.core.errors import ConfigError, RecordRejected
from opensearch_batch.core.jobs.contract import RealtimeForm, ServiceAdapter
from opensearch_batch.core.transform.json_path import PlainPath, Step
from opensearch_batch.core.types.record_ids import record_id

_PLACEHOLDER = re.compile(r"\$\{parameters\.([^}:]+)(?::-([^}]*))?\}")
# A placeholder `realtime_<name>` is filled as `<name>`, but may have another default for searches.
REALTIME_PREFIX = "realtime_"
# ML Commons inserts these into a text that it would otherwise take for JSON or for a placeholder. A run of dollar signs
# is one parameter, because a dollar sign before a placeholder escapes it.
_GUARD = re.compile(rf"\$\{{parameters\.({REALTIME_PREFIX}dollars_(\d+)|{REALTIME_PREFIX}empty)\}}")
_DOLLARS = re.compile(r"\$+(?=\{)")
_SHOWN_CHARS = 200


class PredictAction(msgspec.Struct, frozen=True):
    """The `predict` action of a connector, whose placeholders are filled from its `defaults`.

    Attributes:
        url: the URL that it calls, without placeholders.
        template: its `request_body`.
        defaults: the parameters of the connector, overridden by those of the pipeline.
        assumed: the members of a body that the service assumes if they are absent.
    """

    url: str
    template: str
    defaults: dict[str, str]
    assumed: dict[str, Any] = {}

    @classmethod
    def of(
        cls, actions: Sequence[Mapping[str, Any]], form: RealtimeForm, parameters: Mapping[str, Any]
    ) -> PredictAction:
        """Return the action of a connector; raise ConfigError if it has none, or one that calls another URL."""
        action = next((each for each in actions if str(each.get("action_type", "")).lower() == "predict"), None)
        if action is None:
            raise ConfigError("the connector has no predict action; add one, as in the connectors of this package")
        defaults = {name: value if isinstance(value, str) else _json(value) for name, value in parameters.items()}
        url = unquote(_filled(str(action.get("url", "")), defaults)).partition("?")[0]
        ends = form.url_ends(parameters)
        if not url.endswith(tuple(ends)):
            raise ConfigError(f"the connector's predict action calls {url}, which must end with {' or '.join(ends)}")
        return cls(url, str(action.get("request_body") or ""), defaults, dict(form.assumed(parameters)))

    def parameters(self, body: object) -> dict[str, str]:
        """Return the ``parameters`` of a ``_predict`` request that sends this body.

        Raises:
            ConfigError: the action sends another body.
        """
        whole = _PLACEHOLDER.fullmatch(self.template)
        members: Any = {whole[1]: body} if whole else body
        values = dict[str, str]()
        for placeholder in _PLACEHOLDER.finditer(self.template):
            name = placeholder[1]
            member = name if name in members else name.removeprefix(REALTIME_PREFIX)
            if member in members:
                values[name] = _parameter(members[member])
                values |= {guard[1]: "$" * int(guard[2] or 0) for guard in _GUARD.finditer(values[name])}
        sent = self._sent(values)
        if not self._is_same(sent, body):
            text = "text that is not JSON" if sent is None else _json(sent)[:_SHOWN_CHARS]
            raise ConfigError(
                f"the connector's predict action sends {text}, but a batch job sends "
                f"{_json(body)[:_SHOWN_CHARS]}; correct the action"
            )
        return values

    def _sent(self, values: Mapping[str, str]) -> object:
        """Return the body that ML Commons sends, None if it is no JSON."""
        escaped = {name: _escaped(value) for name, value in values.items()}
        try:
            return msgspec.json.decode(_filled(self.template, {**self.defaults, **escaped}))
        except msgspec.DecodeError:
            return None

    def _is_same(self, sent: object, body: object) -> bool:
        if isinstance(sent, dict) and isinstance(body, dict):
            return {**self.assumed, **sent} == {**self.assumed, **body}
        return sent is not None and sent == body


class RealtimeLimit(msgspec.Struct, frozen=True):
    """Fewer records to predict than `below` are predicted in real time (0: never).

    `problem` is why the default of a service does not apply.
    """

    below: int = 0
    problem: str = ""


def realtime_limit(
    configured: int | None,
    adapter: ServiceAdapter,
    actions: Sequence[Mapping[str, Any]],
    parameters: Mapping[str, Any],
    inputs: Sequence[str],
) -> RealtimeLimit:
    """Return how few records are predicted in real time: `configured`, by default fewer than a job needs.

    Raises:
        ConfigError: a number is `configured`, but the connector cannot predict in real time what a job predicts.
    """
    least = adapter.limits.min_records
    below = (least if least > 1 else 0) if configured is None else configured
    if below == 0:
        return RealtimeLimit()
    try:
        check_realtime(adapter, actions, parameters, inputs)
    except ConfigError as error:
        if configured is None:
            return RealtimeLimit(problem=str(error))
        remedy = "or write realtime_below: 0, so that such records wait for a batch job"
        raise ConfigError(f"batch_predict.realtime_below is {configured}, but {error}; {remedy}") from error
    return RealtimeLimit(below)


def realtime_form(adapter: ServiceAdapter) -> RealtimeForm:
    """Return how lines are sent in real time; raise ConfigError if the service cannot do that."""
    if adapter.realtime is None:
        raise ConfigError(f"this version sends no real-time requests to {adapter.name}")
    return adapter.realtime


def check_realtime(
    adapter: ServiceAdapter,
    actions: Sequence[Mapping[str, Any]],
    parameters: Mapping[str, Any],
    inputs: Sequence[str] = (),
) -> None:
    """Raise ConfigError unless the connector can predict in real time what a job predicts."""
    form = realtime_form(adapter)
    action = PredictAction.of(actions, form, parameters)
    # Without such a sample, only the first request shows what the action sends.
    with suppress(RecordRejected):
        line = adapter.request_line(parameters, inputs)(_sample(inputs), record_id(0))
        action.parameters(form.body(line, parameters, inputs))


def _sample(inputs: Sequence[str]) -> bytes:
    """Return a record with a text at each of these paths."""
    record: object = {}
    for path in inputs:
        record = _with(record, PlainPath.parse(path).steps)
    return msgspec.json.encode(record)


def _with(value: object, steps: tuple[Step, ...]) -> object:
    if not steps:
        return "a text"
    first, rest = steps[0], steps[1:]
    if isinstance(first, int):
        return [_with(None, rest)] * (max(first, 0) + 1)
    members = value if isinstance(value, dict) else {}
    return {**members, first: _with(members.get(first), rest)}


def _parameter(value: object) -> str:
    """Return a value as a parameter that ML Commons inserts unchanged."""
    if not isinstance(value, str):
        return _json(value).replace("$", "\\u0024")
    text = _DOLLARS.sub(lambda run: f"${{parameters.{REALTIME_PREFIX}dollars_{len(run[0])}}}", value)
    return f"${{parameters.{REALTIME_PREFIX}empty}}{text}" if text.lstrip()[:1] in {"{", "["} else text


def _escaped(value: str) -> str:
    """Return a parameter as ML Commons escapes it: JSON objects and arrays are not escaped."""
    try:
        if isinstance(msgspec.json.decode(value), dict | list):
            return value
    except (msgspec.DecodeError, RecursionError):
        pass
    return msgspec.json.encode(value).decode()[1:-1]


def _filled(text: str, values: Mapping[str, str]) -> str:
    """Return a text with values for its placeholders, and for the placeholders in these values."""

    def fill(match: re.Match[str]) -> str:
        name, default = match.groups()
        if name in values:
            return _filled(values[name], {other: value for other, value in values.items() if other != name})
        return match[0] if default is None else str(default)

    return _PLACEHOLDER.sub(fill, text)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
