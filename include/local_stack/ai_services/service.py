"""What a service is to the app. A production host reaches its own service and no other."""

import functools
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request

from include.local_stack.ai_services.faults import Faults
from include.local_stack.ai_services.jobs import JobStore
from include.local_stack.ai_services.model import MiniLM
from include.local_stack.ai_services.sigv4 import KeyPair

_LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost)(:\d+)?")


@dataclass(frozen=True)
class Context:
    """What the services share: one of each."""

    state_dir: Path
    model_dir: Path
    keys: KeyPair
    jobs: JobStore
    faults: Faults = field(default_factory=Faults)

    @functools.cached_property
    def model(self) -> MiniLM:
        """Loaded when the first request needs it: batch jobs use the worker's."""
        return MiniLM(self.model_dir)


@dataclass(frozen=True)
class Service:
    """One AI service: its name, the production hosts it stands in for, and its routes."""

    name: str
    hosts: re.Pattern[str]
    router: APIRouter


def answers_to(hosts: re.Pattern[str] | None) -> Callable[[Request], Awaitable[None]]:
    """A route dependency: 404 unless the Host is loopback or one of `hosts`."""

    async def check_host(request: Request) -> None:
        host = request.headers.get("host", "")
        if not _LOOPBACK.fullmatch(host) and not (hosts and hosts.fullmatch(host)):
            raise HTTPException(404, f"{request.method} {request.url.path}: nothing here answers for host {host}")

    return check_host
