"""Creates the comments in a converted pipeline file, which compare its behaviour with that of Data Prepper."""

from __future__ import annotations

import itertools
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
# The rules of lint findings that are repeated as comments.
UNMATCHED, MANIFESTS, ROLE = 1, 5, 10
_INDEX, _PROCESSORS, _WHEN = ("ingest", "index"), ("ingest", "processors"), ("ingest", "when")
_NOTES: dict[Keys, str] = {
    ("source", "uri"): "From the bucket with data_selection: metadata_only.",
    ("source", "on_empty"): "As in Data Prepper, a scan without objects is not a failure.",
    ("batch_predict", "model_id"): "prepare checks the model's connector before a job is paid for. The "
    "connector needs TransformInput.SplitType Line, TransformOutput.AssembleWith Line, and DataProcessing.JoinSource "
    "Input.",
    _PROCESSORS: "The processors are unchanged. Here they process only output rows of jobs; Data Prepper also sends "
    "bucket, key, time and length of each input through them.",
    (
        "id",
    ): "The document_id of the sink. Here a number keeps its text from the row; Data Prepper formats it as Java does.",
    (
        "ingest",
        "dead_letters",
    ): "The dlq of the sink. Dead letters are written in this package's format, for replay, with the AWS connection.",
    ("retention_days",): "As in Data Prepper, no files are removed. With a number of days, files of older jobs and "
    "runs are removed.",
}
_SCANS = (
    "Data Prepper scans at this interval. Here the source is listed at this interval, and a new or changed object "
    "starts a run. Unchanged objects are not processed again."
)
_MANIFESTS = (
    "Data Prepper writes manifests among the inputs. This pipeline does not; the glob excludes existing manifests."
)
_IDS = (
    "Without document_id Data Prepper duplicates rows that it reads again, and OpenSearch rejects a row with an _id. "
    "Here the _id is the id of the document; without an _id, the id is derived from the location of the record."
)
_ROUTES = "The routes of the sink. A row that matches no route is counted as unrouted; Data Prepper drops it silently."


class ConversionNotes:
    """The comments in the pipeline file of one sink; `names` are the names of the pipelines of all sinks."""

    def __init__(
        self, compiled: CompiledPipeline, ml: MlInference, sink: OpenSearchSink, number: int, names: list[str]
    ) -> None:
        self._compiled, self._ml, self._sink, self._number, self._names = compiled, ml, sink, number, names
        name = compiled.pipeline.name
        this_sink, any_sink = f"{name}.sink[{number}]", f"{name}.sink["
        self._findings: list[Finding] = [
            finding
            for finding in lint(compiled.file)
            if finding.location.startswith(f"{name}.")
            and (finding.location.startswith(this_sink) or not finding.location.startswith(any_sink))
        ]

    def by_key(self) -> dict[Keys, list[str]]:
        """Return the comments by the key to which they belong."""
        notes: dict[Keys, list[str]] = {}
        parts = (self._file_notes(), self._source_notes(), self._job_notes(), _NOTES.items(), self._ingest_notes())
        for keys, text in itertools.chain(*parts):
            notes.setdefault(keys, []).append(text)
        notes["connections",] = [*connection_notes(self._compiled, self._sink), *self._finding_notes(ROLE)]
        return notes

    def omitted_options(self) -> str:
        """Return the remarks on options without effect, as comments."""
        pipelines, name = self._compiled.file.pipelines, self._compiled.pipeline.name
        others = tuple(f"{pipeline.name}." for pipeline in pipelines if pipeline.name != name)
        remarks = [
            f"line {line}, {text.removeprefix(f'{name}.')}"
            for line, text in self._compiled.file.remarks
            if not text.startswith(others)
        ]
        return comment(["Omitted options:", *remarks]) if remarks else ""

    def _finding_notes(self, rule: int) -> list[str]:
        name = self._compiled.file.path.name
        return [f"{name}:{finding.line}: {finding.text}." for finding in self._findings if finding.rule == rule]

    def _file_notes(self) -> Iterator[Note]:
        name, file = self._names[self._number], self._compiled.file
        line = file.line(self._compiled.pipeline.keys)
        text = (
            f"Converted from {self._compiled.pipeline.name} in {file.path.name}:{line}. Save this file as "
            f"include/pipelines/{name}.yaml, because the file name is the DAG id, and remove {file.path.name} "
            "from that folder, because both DAGs would do the same work."
        )
        yield (), text
        if len(self._names) > 1:
            text = (
                f"One of {len(self._names)} files ({', '.join(self._names)}), because a pipeline file writes to one "
                "index. The pipelines share the jobs below their common work prefix, so each job is paid for once."
            )
            yield (), text

    def _source_notes(self) -> Iterator[Note]:
        scheduling = self._compiled.source.scheduling
        if scheduling is None:
            yield ("source",), "Data Prepper scans once. This pipeline runs when a user triggers it."
        else:
            yield ("schedule",), _SCANS
            if scheduling.count is not None:
                yield ("schedule",), f"Data Prepper stops after {scheduling.count} scans; here a user pauses the DAG."
        if any(finding.rule == MANIFESTS for finding in self._findings):
            yield ("source", "exclude"), _MANIFESTS
        text = (
            f"Each object is submitted unchanged as the input of one job. Data Prepper submits up to "
            f"{self._ml.max_batch_size} objects in one job and does not read them. Here the lines are checked first, "
            "because a line that is not a JSON object fails the whole job."
        )
        yield ("source", "prepare"), text
        text = (
            f"This package's files, and the outputs of jobs, which Data Prepper writes to {self._ml.output_path}. An "
            "output is read only after its job has ended; other objects below that prefix are not read."
        )
        yield ("work_prefix",), text

    def _job_notes(self) -> Iterator[Note]:
        ml = self._ml
        if ml.ml_when is not None:
            yield ("batch_predict",), f"ml_when ({ml.ml_when}) holds for all objects of the source, so it is omitted."
        if ml.dlq is not None:
            text = "dlq of ml_inference: omitted, because the task of a rejected or failed job fails with the reason."
            yield ("batch_predict",), text

    def _ingest_notes(self) -> Iterator[Note]:
        yield from ((_INDEX, text) for text in self._index_notes())
        if self._sink.document_id is None:
            yield _PROCESSORS, _IDS
        yield from ((_WHEN, text) for text in self._finding_notes(UNMATCHED) or [_ROUTES])
        prefix = (self._sink.dlq and self._sink.dlq.key_path_prefix) or ""
        if "{" in prefix:
            text = (
                f"The dlq of the sink has a placeholder in its prefix ({prefix}), so it is omitted: dead letters are "
                "written below the work prefix. To change the prefix, set ingest.dead_letters."
            )
            yield ("ingest",), text

    def _index_notes(self) -> Iterator[str]:
        fields, sink = self._compiled.prediction_fields(), self._sink
        vectors = f", with {', '.join(fields)} as knn_vector" if fields else ""
        yield (
            f"The index must exist{vectors}, unless index_body names a file in include/indexes/ with which the first "
            "run creates it. Data Prepper creates a missing index; without a template, its vectors are not searchable."
        )
        if sink.template_content:
            yield "Put the template_content in that file:"
            yield COMMAND + json.dumps(json.loads(sink.template_content), ensure_ascii=False)
        for name in ("template_file", "number_of_shards", "number_of_replicas"):
            if value := getattr(sink, name):
                yield f"Put {name}: {value} in that file."
