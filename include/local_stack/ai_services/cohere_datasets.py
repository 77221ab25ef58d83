"""Cohere's Datasets API. A dataset is kept even if it fails its validation: its state says so, not its upload.

Whoever is shown a dataset may read its parts: each url carries a signature in place of the API key.
"""

import hashlib
import hmac
import secrets
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile as Uploaded

from include.local_stack.ai_services.cohere_api import NAME, CohereError, admit, answer, iso, lose_response
from include.local_stack.ai_services.cohere_upload import Upload, ValidationError
from include.local_stack.ai_services.datasets import INPUT, Dataset, as_text, schema_of, write_parts
from include.local_stack.ai_services.faults import Fault, FaultKind
from include.local_stack.ai_services.files import UnknownFileError, streamed
from include.local_stack.ai_services.service import LOOPBACK, Context, datasets_of

DEFAULT_LIMIT = 100


def router(context: Context) -> APIRouter:
    """The Datasets API as a part of the app."""
    api = CohereDatasets(context)
    routes = APIRouter(prefix="/v1/datasets")
    routes.add_api_route("", api.create, methods=["POST"])
    routes.add_api_route("", api.listed, methods=["GET"])
    routes.add_api_route("/{dataset_id}", api.show, methods=["GET"])
    routes.add_api_route("/{dataset_id}", api.delete, methods=["DELETE"])
    routes.add_api_route("/{dataset_id}/parts/{part}", api.download, methods=["GET"])
    return routes


class CohereDatasets:
    """The operations on datasets."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._datasets = datasets_of(context.state_dir)

    async def create(self, request: Request) -> Response:
        """Keep an uploaded file as a dataset, and read it; `delay` and `fail` strike its validation."""
        admit(self._context, request, "CreateDataset")
        name, dataset_type = (request.query_params.get(wanted, "") for wanted in ("name", "type"))
        if not name:
            raise CohereError(400, "invalid request: name is required")
        if dataset_type != INPUT:
            raise CohereError(400, f"invalid request: dataset type {dataset_type!r} is not supported; use {INPUT}")
        async with request.form() as form:
            data = form.get("data")
            if not isinstance(data, Uploaded):
                raise CohereError(400, "invalid request: a file named data is required")
            dataset = await run_in_threadpool(self._kept, data, request, name)
        lose_response(self._context, "CreateDataset")
        return answer({"id": dataset.id})

    async def listed(self, request: Request) -> Response:
        """List datasets, the newest first, without their parts' urls."""
        admit(self._context, request, "ListDatasets")
        query = request.query_params
        found = await run_in_threadpool(self._datasets.all)
        wanted = [
            dataset
            for dataset in found
            if query.get("datasetType") in (None, dataset.dataset_type)
            and query.get("validationStatus") in (None, dataset.status(time.time()))
        ]
        wanted.sort(key=lambda dataset: (dataset.created_at_s, dataset.id), reverse=True)
        first = _number(query.get("offset"), 0)
        page = wanted[first : first + _number(query.get("limit"), DEFAULT_LIMIT)]
        return answer({"datasets": [self._described(dataset, request) for dataset in page]})

    async def show(self, request: Request, dataset_id: str) -> Response:
        """Show one dataset."""
        admit(self._context, request, "GetDataset")
        return answer({"dataset": self._described(self._known(dataset_id), request)})

    async def delete(self, request: Request, dataset_id: str) -> Response:
        """Remove one dataset."""
        admit(self._context, request, "DeleteDataset")
        self._known(dataset_id)
        self._datasets.delete(dataset_id)
        return answer({})

    async def download(self, request: Request, dataset_id: str, part: int) -> Response:
        """Stream a part; the fault `truncate` closes the connection in the middle."""
        if not hmac.compare_digest(request.query_params.get("signature", ""), self._signature(dataset_id, part)):
            raise CohereError(403, "the signature of this url is wrong")
        if part >= len(self._known(dataset_id).parts):
            raise CohereError(404, f"dataset with id {dataset_id} has no part {part}")
        cut = self._context.faults.take(FaultKind.TRUNCATE, NAME, "DownloadDatasetPart")
        return streamed(self._datasets.path(dataset_id, part), cut=cut is not None)

    def _kept(self, data: Uploaded, request: Request, name: str) -> Dataset:
        query, faults = request.query_params, self._context.faults
        delay = faults.take(FaultKind.DELAY, NAME, "CreateDataset")
        fails = faults.take(FaultKind.FAIL, NAME, "CreateDataset")
        with tempfile.TemporaryDirectory(dir=self._context.state_dir) as folder:
            path = Path(folder, "upload")
            with path.open("wb") as target:
                shutil.copyfileobj(data.file, target)
            upload = Upload(
                path,
                data.filename or "",
                tuple(query.getlist("keep_fields")),
                tuple(query.getlist("optional_fields")),
                query.get("skip_malformed_input", "").lower() == "true",
            )
            return self._validated(upload, name, delay, fails=fails is not None)

    def _validated(self, upload: Upload, name: str, delay: Fault | None, *, fails: bool) -> Dataset:
        now_s = time.time()
        known: dict[str, Any] = {
            "id": f"{name.lower().replace('_', '-')[:40]}-{secrets.token_hex(3)}",
            "name": name,
            "dataset_type": INPUT,
            "created_at_s": now_s,
            "valid_from_s": now_s + (delay.seconds if delay else 0.0),
        }
        known["id"] = "".join(char for char in known["id"] if char.isascii() and (char.isalnum() or char == "-"))
        try:
            if fails:
                raise ValidationError("the file could not be read")  # noqa: TRY301 - ends like any other failure
            kept = upload.kept_fields()
            schema = schema_of(kept, embedded=False)
            written = list(write_parts(upload.path.parent, schema, upload.rows()))
        except (ValidationError, UnicodeDecodeError) as error:
            return self._datasets.add(Dataset(**known, validation_error=str(error)), [])
        known |= {"schema": as_text(schema), "preserve_fields": kept, "parts": tuple(part for _, part in written)}
        dataset = Dataset(**known, validation_warnings=tuple(upload.warnings))
        return self._datasets.add(dataset, [path for path, _ in written])

    def _known(self, dataset_id: str) -> Dataset:
        try:
            return self._datasets.get(dataset_id)
        except UnknownFileError:
            raise CohereError(404, f"dataset with id {dataset_id} not found") from None

    def _described(self, dataset: Dataset, request: Request) -> dict[str, Any]:
        status = dataset.status(time.time())
        ready = status == "validated"
        return {
            "id": dataset.id,
            "name": dataset.name,
            "created_at": iso(dataset.created_at_s),
            "updated_at": iso(dataset.valid_from_s),
            "dataset_type": dataset.dataset_type,
            "validation_status": status,
            "validation_error": dataset.validation_error if status == "failed" else "",
            "validation_warnings": list(dataset.validation_warnings),
            "schema": dataset.schema if ready else "",
            "required_fields": ["text"],
            "preserve_fields": list(dataset.preserve_fields),
            "dataset_parts": self._parts(dataset, request) if ready else [],
        }

    def _parts(self, dataset: Dataset, request: Request) -> list[dict[str, Any]]:
        host = request.headers.get("host", "")
        place = f"{'http' if LOOPBACK.fullmatch(host) else 'https'}://{host}/v1/datasets/{dataset.id}/parts"
        return [
            {
                "id": f"{dataset.id}-{number}",
                "name": f"{dataset.name}-{number}.avro",
                "url": f"{place}/{number}?signature={self._signature(dataset.id, number)}",
                "index": number,
                "size_bytes": part.size_bytes,
                "num_rows": part.num_rows,
            }
            for number, part in enumerate(dataset.parts)
        ]

    def _signature(self, dataset_id: str, part: int) -> str:
        secret = self._context.keys.secret_access_key.encode()
        return hmac.new(secret, f"{dataset_id}/{part}".encode(), hashlib.sha256).hexdigest()


def _number(text: str | None, default: int) -> int:
    try:
        return int(float(text)) if text else default  # the `cohere` package sends 10.0
    except ValueError:
        raise CohereError(400, f"invalid request: {text!r} is no number") from None
