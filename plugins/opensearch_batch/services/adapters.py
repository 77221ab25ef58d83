"""What the adapters of AI services share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from opensearch_batch.core.jobs.contract import Answers, RequestLine
from opensearch_batch.core.sharding.line_form import LineForm
from opensearch_batch.core.types.job import State
from opensearch_batch.services.inputs import texts_line

MIB = 1 << 20


class TextAdapter(ABC):
    """A service whose models read texts and whose rows name their record. Base of a `ServiceAdapter`."""

    model_parameter: ClassVar[str] = "model"
    # Any other state is a job that runs.
    states: ClassVar[Mapping[str, State]]

    @abstractmethod
    def line_form(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> LineForm | None:
        """Return the form of a line."""

    def model(self, parameters: Mapping[str, Any]) -> str:
        """Return the model's name."""
        return str(parameters[self.model_parameter])

    def answers(self, parameters: Mapping[str, Any]) -> Answers:  # noqa: ARG002 - whatever the parameters
        """Return ``by_id``."""
        return "by_id"

    def request_line(self, parameters: Mapping[str, Any], inputs: Sequence[str] = ()) -> RequestLine:
        """Return the function that makes a line by its form."""
        form = self.line_form(parameters, inputs)
        if form is None:
            raise NotImplementedError
        return texts_line(form)

    def state_of(self, status: object) -> State:
        """Return the state that a service's own name of it means."""
        return self.states.get(str(status), "RUNNING")
