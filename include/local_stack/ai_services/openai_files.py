"""OpenAI's Files API. A file never changes under its id, and is gone only when it is deleted."""

import secrets
import shutil
import tempfile
import time
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile as Uploaded

from include.local_stack.ai_services.faults import FaultKind
from include.local_stack.ai_services.files import File, UnknownFileError, streamed
from include.local_stack.ai_services.openai_api import NAME, OpenAIError, admit, answer, lose_response, no_such_file
from include.local_stack.ai_services.service import Context, files_of

PURPOSES = frozenset({"assistants", "batch", "batch_output", "evals", "fine-tune", "user_data", "vision"})


def router(context: Context) -> APIRouter:
    """The Files API as a part of the app."""
    api = OpenAIFiles(context)
    routes = APIRouter(prefix="/v1/files")
    routes.add_api_route("", api.upload, methods=["POST"])
    routes.add_api_route("", api.listed, methods=["GET"])
    routes.add_api_route("/{file_id}", api.retrieve, methods=["GET"])
    routes.add_api_route("/{file_id}", api.delete, methods=["DELETE"])
    routes.add_api_route("/{file_id}/content", api.content, methods=["GET"])
    return routes


class OpenAIFiles:
    """The operations on files."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._files = files_of(context.state_dir)

    async def upload(self, request: Request) -> Response:
        """Keep an uploaded file."""
        admit(self._context, request, "CreateFile")
        async with request.form() as form:
            purpose, upload = str(form.get("purpose", "")), form.get("file")
            if purpose not in PURPOSES:
                raise OpenAIError(400, f"'{purpose}' is not one of {sorted(PURPOSES)} - 'purpose'", param="purpose")
            if not isinstance(upload, Uploaded):
                raise OpenAIError(400, "'file' is a required property", param="file")
            file = await run_in_threadpool(self._kept, upload, purpose)
        lose_response(self._context, "CreateFile")
        return answer(file)

    async def listed(self, request: Request) -> Response:
        """List the files of a purpose, the newest first."""
        admit(self._context, request, "ListFiles")
        purpose = request.query_params.get("purpose")
        found = [file for file in await run_in_threadpool(self._files.all) if purpose in (None, file.purpose)]
        newest_first = sorted(found, key=lambda file: (file.created_at, file.id), reverse=True)
        return answer({"object": "list", "data": newest_first, "has_more": False})

    async def retrieve(self, request: Request, file_id: str) -> Response:
        """Show one file."""
        admit(self._context, request, "RetrieveFile")
        return answer(self._known(file_id))

    async def delete(self, request: Request, file_id: str) -> Response:
        """Remove one file."""
        admit(self._context, request, "DeleteFile")
        self._known(file_id)
        self._files.delete(file_id)
        return answer({"id": file_id, "object": "file", "deleted": True})

    async def content(self, request: Request, file_id: str) -> Response:
        """Stream a file's bytes; the fault `truncate` closes the connection in the middle."""
        admit(self._context, request, "DownloadFile")
        self._known(file_id)
        cut = self._context.faults.take(FaultKind.TRUNCATE, NAME, "DownloadFile")
        return streamed(self._files.path(file_id), cut=cut is not None)

    def _kept(self, upload: Uploaded, purpose: str) -> File:
        with tempfile.TemporaryDirectory(dir=self._context.state_dir) as folder:
            path = Path(folder, "upload")
            with path.open("wb") as target:
                shutil.copyfileobj(upload.file, target)
            file = File(
                id=f"file-{secrets.token_hex(12)}",
                bytes=path.stat().st_size,
                created_at=int(time.time()),
                filename=upload.filename or "file",
                purpose=purpose,
            )
            return self._files.add(file, [path])

    def _known(self, file_id: str) -> File:
        try:
            return self._files.get(file_id)
        except UnknownFileError as error:
            raise no_such_file(error) from None
