"""What a service is to the app. A production host reaches its own service and no other."""

import functools
import hmac
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request

from include.local_stack.ai_services.datasets import Dataset
from include.local_stack.ai_services.faults import FaultKind, Faults
from include.local_stack.ai_services.files import File, FileStore
from include.local_stack.ai_services.jobs import JobStore
from include.local_stack.ai_services.model import MiniLM, vector_cache
from include.local_stack.ai_services.quotas import Quotas
from include.local_stack.ai_services.sigv4 import KeyPair

LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost)(:\d+)?")


@dataclass
class Context:
    """What the services share: one of each."""

    state_dir: Path
    model_dir: Path
    keys: KeyPair
    jobs: JobStore
    faults: Faults = field(default_factory=Faults)
    quotas: Quotas = field(default_factory=Quotas)
    # The real-time requests that each service has answered; each is paid for.
    invocations: Counter[str] = field(default_factory=Counter)

    @functools.cached_property
    def model(self) -> MiniLM:
        """Loaded when the first request needs it: batch jobs use the worker's."""
        return MiniLM(self.model_dir, cache=vector_cache(self.model_dir))

    def knows(self, api_key: str) -> bool:
        """Whether this is the API key of the services that take one: the secret of the key pair."""
        return hmac.compare_digest(api_key.encode(), self.keys.secret_access_key.encode())


@dataclass(frozen=True)
class Service:
    """One AI service: its name, the production hosts it stands in for, its routes, and what can go wrong there."""

    name: str
    hosts: re.Pattern[str]
    routers: Sequence[APIRouter]
    faults: frozenset[FaultKind] = frozenset(FaultKind)


def files_of(state_dir: Path) -> FileStore[File]:
    """OpenAI's files, for the app and the worker."""
    return FileStore(state_dir / "openai_files", File)


def datasets_of(state_dir: Path) -> FileStore[Dataset]:
    """Cohere's datasets, for the app and the worker."""
    return FileStore(state_dir / "cohere_datasets", Dataset)


def bearer_key(request: Request) -> str:
    """The API key a request carries; empty when there is none."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def answers_to(hosts: re.Pattern[str] | None) -> Callable[[Request], Awaitable[None]]:
    """A route dependency: 404 unless the Host is loopback or one of `hosts`."""

    async def check_host(request: Request) -> None:
        host = request.headers.get("host", "")
        if not LOOPBACK.fullmatch(host) and not (hosts and hosts.fullmatch(host)):
            raise HTTPException(404, f"{request.method} {request.url.path}: nothing here answers for host {host}")

    return check_host
