"""search: sends a question to a pipeline's index, as a neural, a text and a hybrid query."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.console import Console

from opensearch_batch.cli.clients import ClientCommand, ClientFactory
from opensearch_batch.cli.command import Account
from opensearch_batch.cli.pipeline_argument import PipelineArgument, pipeline_file
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.opensearch.ml_commons import MLCommons, fill
from opensearch_batch.core.opensearch.questions import Answer, Question, ask, fields_to_ask
from opensearch_batch.core.pipeline.file import PipelineFile
from opensearch_batch.core.types.counts import DONE

SHOWN_CHARS = 100


class SearchAccount(Account, frozen=True, kw_only=True):
    """Result of a search; `answers` has one answer for each kind of query."""

    index: str = ""
    model_id: str = ""
    answers: list[Answer] = msgspec.field(default_factory=list)


class Search(ClientCommand[SearchAccount]):
    """Search a pipeline's index for a question, with a neural, a text and a hybrid query.

    Example: opensearch-batch search books "who rules the waves" --opensearch-url http://127.0.0.1:9200
    """

    when_stopped = "nothing was changed"

    def __init__(
        self,
        *,
        pipeline: PipelineArgument,
        question: Annotated[str, typer.Argument(metavar="QUESTION", help="Text to search for.")],
        index: Annotated[str | None, typer.Option(help="Index to search. Default: the pipeline's.")] = None,
        size: Annotated[int, typer.Option(min=1, max=1000, help="Number of documents that each query returns.")] = 3,
        clients: ClientFactory,
    ) -> None:
        super().__init__(SearchAccount(), clients)
        self._pipeline = pipeline
        self._question = question
        self._index = index
        self._size = size

    def execute(self) -> None:
        file = pipeline_file(self._pipeline)
        spec, cluster = file.spec, self._cluster()
        index = self._index or spec.ingest.index
        vector, text, _ = fields_to_ask(cluster, index, spec.field_map, next(iter(spec.batch_predict.inputs), None))
        model_id = spec.batch_predict.model_id or self._model_of(file, MLCommons(cluster))
        answers = ask(cluster, Question(index, self._question, vector, text, model_id), size=self._size)
        self.update(state=DONE, index=index, model_id=model_id, answers=answers)
        if failed := [answer.error for answer in answers if answer.error]:
            raise ConfigError("; ".join(dict.fromkeys(failed)))

    def _model_of(self, file: PipelineFile, ml_commons: MLCommons) -> str:
        """Return the id of the model that `prepare` created from the pipeline's connector."""
        connector = file.body("batch_predict", "connector")
        if connector is None:
            raise ConfigError(
                "the pipeline names its model by a CloudFormation stack; set batch_predict.model_id to search"
            )
        name = str(fill({"name": connector["name"]}, file.spec.batch_predict.values, "connector")["name"])
        return ml_commons.deployed_model(name)

    def show(self, console: Console) -> None:
        for answer in self.account.answers:
            console.print(f"{answer.kind}: {self._question}")
            for hit in answer.hits:
                text = " ".join(hit.text.split())[:SHOWN_CHARS]
                console.print(f"  {hit.score:.3f}  {hit.id}  {text}")
            if not answer.hits:
                console.print("  nothing found")
