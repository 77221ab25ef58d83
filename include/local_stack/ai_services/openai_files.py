"""OpenAI's Files API. A file never changes under its id, and is gone only when it is deleted.

The API key is the secret of the stack's key pair.
"""

import hmac
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from include.local_stack.ai_services.faults import FaultKind
from include.local_stack.ai_services.service import Context, Service

NAME = "openai"
HOSTS = re.compile(r"api\.openai\.com(:443)?")
CHUNK_BYTES = 1 << 16
PURPOSES = frozenset({"assistants", "batch", "batch_output", "evals", "fine-tune", "user_data", "vision"})


def service(context: Context) -> Service:
    """The Files API as a part of the app."""
    api = OpenAIFiles(context)
    router = APIRouter(prefix="/v1/files")
    router.add_api_route("", api.upload, methods=["POST"])
    router.add_api_route("", api.list, methods=["GET"])
    router.add_api_route("/{file_id}", api.retrieve, methods=["GET"])
    router.add_api_route("/{file_id}", api.delete, methods=["DELETE"])
    router.add_api_route("/{file_id}/content", api.content, methods=["GET"])
    return Service(NAME, HOSTS, router)


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file as the API shows it; `created_at` is in seconds since the epoch."""

    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    object: str = "file"
    status: str = "processed"


class OpenAIError(Exception):
    """An answer that is an error, in the API's own form."""

    def __init__(
        self, status: int, message: str, *, kind: str = "invalid_request_error", code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": None, "code": code}}


class FileStore:
    """The files below one folder: the bytes, and beside them what is known of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, content: bytes, *, filename: str, purpose: str) -> File:
        """Keep a new file."""
        file = File(
            id=f"file-{secrets.token_hex(12)}",
            bytes=len(content),
            created_at=int(time.time()),
            filename=filename,
            purpose=purpose,
        )
        self.path(file.id).write_bytes(content)
        self._about(file.id).write_bytes(msgspec.json.encode(file))
        return file

    def get(self, file_id: str) -> File:
        """Return what is known of a file."""
        try:
            return msgspec.json.decode(self._about(file_id).read_bytes(), type=File)
        except FileNotFoundError:
            raise OpenAIError(404, f"No such File object: {file_id}") from None

    def all(self) -> list[File]:
        """Return all files, the newest first."""
        found = [msgspec.json.decode(path.read_bytes(), type=File) for path in self._folder.glob("*.json")]
        return sorted(found, key=lambda file: (file.created_at, file.id), reverse=True)

    def delete(self, file_id: str) -> None:
        """Remove a file."""
        self.get(file_id)
        self._about(file_id).unlink()
        self.path(file_id).unlink()

    def path(self, file_id: str) -> Path:
        """Where the bytes lie."""
        return self._folder / _checked(file_id)

    def _about(self, file_id: str) -> Path:
        return self._folder / f"{_checked(file_id)}.json"


class OpenAIFiles:
    """The operations on files."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.files = FileStore(context.state_dir / "openai_files")

    async def upload(self, request: Request) -> Response:
        """Keep an uploaded file."""
        self._admit(request, "CreateFile")
        async with request.form() as form:
            purpose, upload = str(form.get("purpose", "")), form.get("file")
            if purpose not in PURPOSES:
                raise OpenAIError(400, f"'{purpose}' is not one of {sorted(PURPOSES)} - 'purpose'")
            if upload is None or isinstance(upload, str):
                raise OpenAIError(400, "'file' is a required property")
            content = await upload.read()
            file = await run_in_threadpool(self.files.add, content, filename=upload.filename or "file", purpose=purpose)
        return _json(file)

    async def list(self, request: Request) -> Response:
        """List the files of a purpose."""
        self._admit(request, "ListFiles")
        purpose = request.query_params.get("purpose")
        found = [file for file in await run_in_threadpool(self.files.all) if purpose in (None, file.purpose)]
        return _json({"object": "list", "data": found, "has_more": False})

    async def retrieve(self, request: Request, file_id: str) -> Response:
        """Show one file."""
        self._admit(request, "RetrieveFile")
        return _json(self.files.get(file_id))

    async def delete(self, request: Request, file_id: str) -> Response:
        """Remove one file."""
        self._admit(request, "DeleteFile")
        self.files.delete(file_id)
        return _json({"id": file_id, "object": "file", "deleted": True})

    async def content(self, request: Request, file_id: str) -> Response:
        """Stream a file's bytes; the fault `truncate` closes the connection in the middle."""
        self._admit(request, "DownloadFile")
        file = self.files.get(file_id)
        cut = self._context.faults.take(FaultKind.TRUNCATE, NAME, "DownloadFile")
        return StreamingResponse(
            _chunks(self.files.path(file_id), stop_at=file.bytes // 2 if cut else None),
            media_type="application/octet-stream",
            headers={"content-length": str(file.bytes)},
        )

    def _admit(self, request: Request, operation: str) -> None:
        """Check the key, then strike with a fault that was asked for."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not key:
            raise OpenAIError(401, "You didn't provide an API key.")
        if not hmac.compare_digest(key, self._context.keys.secret_access_key):
            shown = f"{key[:3]}***{key[-4:]}"
            raise OpenAIError(401, f"Incorrect API key provided: {shown}.", code="invalid_api_key")
        if self._context.faults.take(FaultKind.THROTTLE, NAME, operation):
            raise OpenAIError(429, "Rate limit reached", kind="requests", code="rate_limit_exceeded")
        if self._context.faults.take(FaultKind.ERROR, NAME, operation):
            raise OpenAIError(500, "The server had an error while processing your request.", kind="server_error")


async def error_response(_: Request, error: Exception) -> Response:
    """Answer an error in the API's form."""
    if not isinstance(error, OpenAIError):
        raise error
    return JSONResponse(error.body, status_code=error.status)


class TransferBrokenError(RuntimeError):
    """Raised in the middle of an answer, so that the server closes the connection."""


def _chunks(path: Path, *, stop_at: int | None) -> Iterator[bytes]:
    sent = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            if stop_at is not None and sent + len(chunk) > stop_at:
                yield chunk[: stop_at - sent]
                raise TransferBrokenError
            sent += len(chunk)
            yield chunk


def _checked(file_id: str) -> str:
    if not re.fullmatch(r"file-[A-Za-z0-9]+", file_id):
        raise OpenAIError(404, f"No such File object: {file_id}")
    return file_id


def _json(content: Any) -> Response:  # noqa: ANN401 - typed values and plain ones
    return Response(msgspec.json.encode(content), media_type="application/json")
