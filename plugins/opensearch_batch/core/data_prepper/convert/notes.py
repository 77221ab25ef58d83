"""Above each line of a converted pipeline stands what the original does there, and what happens here instead."""

from __future__ import annotations

import json
from collections.abc import Iterator

from opensearch_batch.core.config.yaml_file import Keys
from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline
from opensearch_batch.core.data_prepper.convert.commented_yaml import COMMAND, comment
from opensearch_batch.core.data_prepper.convert.connections import connection_notes
from opensearch_batch.core.data_prepper.file.ml_inference import MlInference
from opensearch_batch.core.data_prepper.file.sinks import OpenSearchSink
from opensearch_batch.core.data_prepper.lint import lint
from opensearch_batch.core.pipeline.check import Finding

Note = tuple[Keys, str]
# The traps of findings that are told here too.
UNMATCHED, MANIFESTS, ROLE = 1, 5, 10
_INDEX, _PROCESSORS, _WHEN = ("ingest", "index"), ("ingest", "processors"), ("ingest", "when")
_NOTES: tuple[Note, ...] = (
    (("source", "uri"), "The bucket with data_selection: metadata_only."),
    (("source", "on_empty"), "As in the original, a scan that finds nothing is no failure."),
    (
        ("batch_predict", "model_id"),
        (
            "prepare looks at its connector before anything is paid: it needs TransformInput.SplitType Line, "
            "TransformOutput.AssembleWith Line, and DataProcessing.JoinSource Input."
        ),
    ),
    (
        ("batch_predict", "repair_rounds"),
        "As in the original, a record that the model failed at is not sent again. Without this line it is, and paid.",
    ),
    (
        _PROCESSORS,
        (
            "As they stand in the file. They see the rows of the jobs, and never bucket, key, time and length of an "
            "input, which the original sends through them too."
        ),
    ),
    (
        ("id",),
        "The sink's document_id. A number is taken as the row writes it, where the original has Java's text of it.",
    ),
    (
        ("ingest", "dead_letters"),
        "The sink's dlq. Dead letters have a form of our own, which replay reads; the AWS connection writes them.",
    ),
    (("retention_days",), "As in the original nothing is removed. A number of days lets the outputs of jobs go."),
)
_SCANS = (
    "The original scans so often. Here the source is listed so often, and a run starts when the listing has changed: "
    "an object that is as it was costs nothing, one that changed under its key is done again."
)
_MANIFESTS = "The original writes manifests among the inputs. Here are none; the glob is for those that it left."
_IDS = (
    "Without document_id the original doubles what it reads again, and OpenSearch refuses a row with an _id. Here that "
    "is the document's id; without it, the id is made of the place of the row's record."
)
_ROUTES = (
    "The routes of the sink. A row that they do not take is counted as unrouted; the original loses it without a word."
)


class ConversionNotes:
    """The notes on one converted pipeline.

    Args:
        road: the pipeline.
        sink: the sink it is converted for.
        number: its number.
        names: the names of all pipelines that are made of it, one for each sink.
    """

    def __init__(self, compiled: CompiledPipeline, sink: OpenSearchSink, number: int, names: list[str]) -> None:
        self._compiled, self._sink, self._number, self._names = compiled, sink, number, names
        name = compiled.pipeline.name
        own, sinks = f"{name}.sink[{number}]", f"{name}.sink["
        self._found: list[Finding] = [
            found
            for found in lint(compiled.file)
            if found.location.startswith(f"{name}.")
            and (found.location.startswith(own) or not found.location.startswith(sinks))
        ]

    def by_key(self) -> dict[Keys, list[str]]:
        """Return the notes by the keys that they are on."""
        found: dict[Keys, list[str]] = {}
        said = (self._of_file, self._of_source, self._of_jobs, lambda: _NOTES, self._of_ingest)
        for keys, text in (note for notes in said for note in notes()):
            found.setdefault(keys, []).append(text)
        found["connections",] = [*connection_notes(self._compiled, self._sink), *self._told(ROLE)]
        return found

    def at_the_end(self) -> str:
        """Return, as comments, what the file says without effect."""
        pipelines, own = self._compiled.file.pipelines, self._compiled.pipeline
        others = tuple(f"{pipeline.name}." for pipeline in pipelines if pipeline.name != own.name)
        remarks = [
            f"line {line}, {text.removeprefix(f'{own.name}.')}"
            for line, text in self._compiled.file.remarks
            if not text.startswith(others)
        ]
        return comment(["Said in the file, and left out here:", *remarks]) if remarks else ""

    def _told(self, *traps: int) -> list[str]:
        name = self._compiled.file.path.name
        return [f"{name}:{found.line}: {found.text}." for found in self._found if found.rule in traps]

    def _of_file(self) -> Iterator[Note]:
        name, file = self._names[self._number], self._compiled.file
        line = file.line(self._compiled.pipeline.keys)
        yield (
            (),
            (
                f"{self._compiled.pipeline.name} of {file.path.name}:{line}, said as a pipeline of our own. Save it as "
                f"include/pipelines/{name}.yaml, because the file's name is the DAG's id, and take {file.path.name} "
                "away there: both would do the same work."
            ),
        )
        if len(self._names) > 1:
            yield (
                (),
                (
                    f"One of {len(self._names)} ({', '.join(self._names)}), because ours write to one index each. "
                    "Jobs are known by their inputs below the same work, so each is paid once."
                ),
            )

    def _of_source(self) -> Iterator[Note]:
        scheduling = self._compiled.source.scheduling
        if scheduling is None:
            yield ("source",), "The original scans once. This one waits for a person, who starts it as often as needed."
        else:
            yield ("schedule",), _SCANS
            if scheduling.count is not None:
                yield ("schedule",), f"It ends after {scheduling.count} scans; here somebody switches the DAG off."
        if any(found.rule == MANIFESTS for found in self._found):
            yield ("source", "exclude"), _MANIFESTS
        yield (
            ("source", "prepare"),
            (
                "Each object is a job of its own, sent where it is. The original never reads it, and puts up to "
                f"{self._ml.max_batch_size} of them into one job. Here its lines are looked at before, because one "
                "that is no JSON object fails the whole job."
            ),
        )
        yield (
            ("work_prefix",),
            (
                f"Our own files, and the jobs' outputs, which the original writes to {self._ml.output_path}. An output "
                "is read when its job has ended, and nothing else that lies there: no half, no row of another job."
            ),
        )

    def _of_jobs(self) -> Iterator[Note]:
        ml = self._ml
        if ml.ml_when is not None:
            yield ("batch_predict",), f"ml_when ({ml.ml_when}) holds for all objects of the source, so it is left out."
        if ml.dlq is not None:
            yield (
                ("batch_predict",),
                (
                    "dlq of ml_inference: a job that is refused or fails ends its task, which says why, so nothing is "
                    "written for it."
                ),
            )

    def _of_ingest(self) -> Iterator[Note]:
        yield from ((_INDEX, text) for text in self._of_index())
        if self._sink.document_id is None:
            yield _PROCESSORS, _IDS
        yield from ((_WHEN, text) for text in self._told(UNMATCHED) or [_ROUTES])
        prefix = (self._sink.dlq and self._sink.dlq.key_path_prefix) or ""
        if "{" in prefix:
            yield (
                ("ingest",),
                (
                    f"The sink's dlq has a date in its prefix ({prefix}). Dead letters lie below work, or where "
                    "dead_letters says."
                ),
            )

    def _of_index(self) -> Iterator[str]:
        fields, sink = self._compiled.prediction_fields(), self._sink
        vectors = f", with {', '.join(fields)} as knn_vector" if fields else ""
        yield (
            f"It has to be there{vectors}; or write index_body, the name of a file of include/indexes/ that makes it. "
            "The original makes an index by itself, a plain one without a template, where no search finds vectors."
        )
        if sink.template_content:
            yield "What template_content says belongs into that file:"
            yield COMMAND + json.dumps(json.loads(sink.template_content), ensure_ascii=False)
        for name in ("template_file", "number_of_shards", "number_of_replicas"):
            if value := getattr(sink, name):
                yield f"{name}: {value} belongs into that file."

    @property
    def _ml(self) -> MlInference:
        assert self._compiled.ml is not None  # noqa: S101 - any other pipeline is refused before
        return self._compiled.ml
