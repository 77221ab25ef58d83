"""Bedrock's batch inference. One output object for each input object, and a manifest with the counts, stored last.

A job that is stopped, or whose worker is killed, leaves no objects.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from include.local_stack.ai_services import bedrock_models
from include.local_stack.ai_services.aws import arn
from include.local_stack.ai_services.bedrock_models import Ask, Model, ModelInputError, model_of, token_count
from include.local_stack.ai_services.computing import JobFailedError, Outcome, Tools, batches
from include.local_stack.ai_services.damage import Damage
from include.local_stack.ai_services.faults import FaultKind
from include.local_stack.ai_services.jobs import Job, State
from include.local_stack.ai_services.s3 import Source, sources_below, split_uri, store

INPUT_SUFFIX, OUTPUT_SUFFIX, MANIFEST = ".jsonl", ".out", "manifest.json.out"


class _Row(msgspec.Struct):
    """One line of an input; `recordId` is given to a record that has none."""

    modelInput: msgspec.Raw  # noqa: N815 - Bedrock's names
    recordId: str = ""  # noqa: N815


def run(job: Job, tools: Tools) -> Outcome:
    """Compute a job to its end; raises JobFailedError, before anything is stored."""
    tools.raise_if_stopped()
    if job.fault(FaultKind.EXPIRE):
        return Outcome(State.EXPIRED, "The job expired before it could be started.")
    tools.enter(State.VALIDATING)
    if job.fault(FaultKind.FAIL):
        raise JobFailedError("The job failed because of an internal service error. Submit the job again.")
    try:
        inputs = _inputs(job, tools)
        total = sum(_count(source, path) for source, path in inputs)
        _check_minimum(job, total)
        tools.enter(State.SCHEDULED)
        tools.report({"totalRecordCount": total})
        tools.enter(State.RUNNING)
        return _computed(job, tools, inputs)
    except (ClientError, BotoCoreError) as error:
        raise JobFailedError(f"Amazon S3 refused the job's role: {error}") from error


def _inputs(job: Job, tools: Tools) -> list[tuple[Source, Path]]:
    uri = job.request["inputDataConfig"]["s3InputDataConfig"]["s3Uri"]
    bucket, prefix = split_uri(uri)
    found = [source for source in sources_below(tools.s3, bucket, prefix) if source.key.endswith(INPUT_SUFFIX)]
    if not found:
        raise JobFailedError(f"No {INPUT_SUFFIX} files were found at {uri}.")
    paths = [tools.work_dir / f"{number}.in" for number in range(len(found))]
    for source, path in zip(found, paths, strict=True):
        source.download(tools.s3, path)
    return list(zip(found, paths, strict=True))


def _count(source: Source, path: Path) -> int:
    number = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                msgspec.json.decode(line, type=_Row)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                message = f"{source} line {number} is no record with recordId and modelInput: {error}"
                raise JobFailedError(message) from error
    return number


def _check_minimum(job: Job, total: int) -> None:
    least = job.result["min_records"]
    if total < least:
        job_arn = arn(job.service, f"model-invocation-job/{job.name}")
        raise JobFailedError(
            f"Batch job {job_arn} contains less records ({total}) than the required minimum of: {least}"
        )


def _computed(job: Job, tools: Tools, inputs: list[tuple[Source, Path]]) -> Outcome:
    model = model_of(job.request["modelId"])
    if model is None:
        raise JobFailedError("The provided model identifier is invalid.")
    damage, counts = Damage(job.faults), Counter[str]()
    outputs = []
    for source, path in inputs:
        output = path.with_suffix(OUTPUT_SUFFIX)
        with path.open("rb") as records, output.open("wb") as file:
            for batch in batches(enumerate(records, 1)):
                tools.raise_if_stopped()
                file.writelines(_rows(model, tools, batch, damage, counts))
                tools.report(_record_counts(counts))
        damage.invalidate_output(output)
        outputs.append((f"{source.relative_key}{OUTPUT_SUFFIX}", output))
    tools.raise_if_stopped()
    _store(job, tools, outputs, counts)
    state = State.PARTIAL if counts["error"] else State.COMPLETED
    return Outcome(state, result=_record_counts(counts))


def _rows(
    model: Model, tools: Tools, batch: list[tuple[int, bytes]], damage: Damage, counts: Counter[str]
) -> Iterator[bytes]:
    rows = [(number, msgspec.json.decode(line, type=_Row)) for number, line in batch]
    read = {number: _read(model, row, number, damage) for number, row in rows}
    answers = model.answer(tools.model, [ask for ask in read.values() if isinstance(ask, Ask)])
    for number, row in rows:
        ask, record_id = read[number], row.recordId or f"CALL{number:07d}"
        counts["processed"] += 1
        if isinstance(ask, Ask):
            output = next(answers)
            counts.update(success=1, **{f"{name}_tokens": token_count(output, name) for name in ("input", "output")})
            members: dict[str, Any] = {"modelInput": row.modelInput, "modelOutput": output, "recordId": record_id}
        else:
            counts["error"] += 1
            members = {"modelInput": row.modelInput, "error": ask, "recordId": record_id}
        yield msgspec.json.encode(members) + b"\n"


def _read(model: Model, row: _Row, number: int, damage: Damage) -> Ask | dict[str, Any]:
    """Return what is asked for, or the error that stands in its place."""
    if damage.fails(number):
        return {"errorCode": 500, "errorMessage": "The model could not compute this record."}
    try:
        return bedrock_models.read(model, json.loads(bytes(row.modelInput)), dropped=damage.dropped(number))
    except ModelInputError as error:
        return {"errorCode": 400, "errorMessage": str(error)}


def _record_counts(counts: Counter[str]) -> dict[str, int]:
    return {f"{name}RecordCount": counts[name] for name in ("processed", "success", "error")}


def _store(job: Job, tools: Tools, outputs: list[tuple[str, Path]], counts: Counter[str]) -> None:
    folder = f"{job.request['outputDataConfig']['s3OutputDataConfig']['s3Uri'].rstrip('/')}/{job.name}"
    manifest = tools.work_dir / MANIFEST
    summary = {
        "totalRecordCount": counts["processed"],
        **_record_counts(counts),
        "inputTokenCount": counts["input_tokens"],
        "outputTokenCount": counts["output_tokens"],
    }
    manifest.write_bytes(msgspec.json.encode(summary))
    for name, output in [*outputs, (MANIFEST, manifest)]:
        store(tools.s3, folder, name, output)
