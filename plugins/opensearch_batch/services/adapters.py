"""Base class for the adapters of AI services."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from opensearch_batch.core.jobs.contract import RealtimeForm, RequestedInput, RequestLine, RowMatching
from opensearch_batch.core.jobs.line_form import ContentForm, LineForm
from opensearch_batch.core.jobs.poll_policy import JobStatus
from opensearch_batch.core.types.job import State
from opensearch_batch.core.types.record_ids import record_id
from opensearch_batch.services.inputs import inputs_reader, texts_reader

MIB = 1 << 20


class BaseAdapter:
    """Base of a `ServiceAdapter`; by default models read strings, and each row contains the id of its record."""

    model_parameter: ClassVar[str] = "model"
    # Empty accepts a connector with any URL.
    batch_path: str = ""
    name_parameter: str | None = None
    created_member: str = "created_at"
    realtime: RealtimeForm | None = None
    input_members: frozenset[str] = frozenset()
    name: str
    # All states that the service documents.
    states: ClassVar[Mapping[str, State]]

    def line_form(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> LineForm | None:  # noqa: ARG002 - a subclass needs them
        """Return the form of a line; None if only `request_line` can create the line."""
        return None

    def model(self, parameters: Mapping[str, Any]) -> str:
        return str(parameters[self.model_parameter])

    def row_matching(self, parameters: Mapping[str, Any]) -> RowMatching:  # noqa: ARG002 - the same for all parameters
        return "by_id"

    def request_line(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> RequestLine:
        """Return the function that creates a record's line; it rejects records without a string for the model."""
        form = self.line_form(parameters, inputs)
        if form is None:
            raise NotImplementedError
        read = texts_reader(form.paths)
        return lambda record, record_id: form.line(record_id, read(record))

    def content_reader(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> Callable[[bytes], bytes]:
        """Return the function that reads what `content_form` names or, if there is no form, creates the line."""
        form, fixed_id = self.content_form(parameters, inputs), record_id(0)
        if form is None:
            line = self.request_line(parameters, inputs)
            return lambda record: line(record, fixed_id)
        read = texts_reader(form.paths) if form.texts else inputs_reader(form.paths)
        before, after = form.before, form.after
        return lambda record: b"".join((before, b",".join(read(record)), after))

    def content_form(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> ContentForm | None:
        """Return the form of a line with a fixed id; a line usually has nothing but what the model reads.

        An adapter whose lines have more of a record overrides this method, and `line_bytes`. Without that, an edit of
        any field is paid for.
        """
        form = self.line_form(parameters, inputs)
        return None if form is None else form.content_form()

    def line_bytes(
        self,
        parameters: Mapping[str, Any],  # noqa: ARG002 - a subclass needs them
        inputs: Sequence[str] = (),  # noqa: ARG002 - as above
    ) -> Callable[[bytes, bytes], int]:
        """Return the size of the content: it is the line with a fixed id, and all ids have one length."""
        return lambda record, content: len(content)  # noqa: ARG005 - the signature of all

    def requested_input(self, parameters: Mapping[str, Any]) -> RequestedInput:  # noqa: ARG002 - a subclass needs them
        """Return the input that a user's parameters name; by default unknown."""
        return RequestedInput()

    def status_of(self, status: object, reason: str = "") -> JobStatus:
        """Map a service's status to a job status; None counts as running: ML Commons has not polled the job yet."""
        if status is None:
            return JobStatus("RUNNING", reason)
        if (state := self.states.get(str(status))) is None:
            return JobStatus("UNKNOWN", f"{self.name} reports the state {status!r}, which this version does not know")
        return JobStatus(state, reason)
