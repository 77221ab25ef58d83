"""The stack's own routes: is it up, what was ever paid for, what shall go wrong next, the limits."""

from collections.abc import Sequence
from typing import TypeVar

import msgspec
from fastapi import APIRouter, HTTPException, Request, Response

from include.local_stack.ai_services.faults import Fault
from include.local_stack.ai_services.quotas import Quotas
from include.local_stack.ai_services.service import Context, Service, datasets_of

Body = TypeVar("Body")


def control_router(context: Context, services: Sequence[Service]) -> APIRouter:
    """Unsigned routes for tests and health checks; only loopback reaches them."""
    router = APIRouter()

    @router.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    _add_counts(router, context, services)

    @router.post("/faults")
    async def add_fault(request: Request) -> Response:
        fault = _decoded(request, await request.body(), Fault)
        _check(fault, services)
        context.faults.add(fault)
        return _json({"faults": context.faults.pending()})

    @router.delete("/faults")
    async def clear_faults() -> dict[str, list[str]]:
        context.faults.clear()
        return {"faults": []}

    @router.delete("/delays")
    def end_delays() -> dict[str, str]:
        # So that a test decides when a job goes on, not the speed of the machine.
        context.jobs.end_delays()
        datasets = datasets_of(context.state_dir)
        for dataset in datasets.all():
            if dataset.valid_from_s > dataset.created_at_s:
                datasets.add(msgspec.structs.replace(dataset, valid_from_s=dataset.created_at_s), [])
        return {"delays": "ended"}

    @router.get("/quotas")
    async def quotas() -> Response:
        return _json(context.quotas)

    @router.put("/quotas")
    async def set_quotas(request: Request) -> Response:
        context.quotas = _decoded(request, await request.body(), Quotas)
        return _json(context.quotas)

    return router


def _add_counts(router: APIRouter, context: Context, services: Sequence[Service]) -> None:
    @router.get("/jobs/count")
    def jobs_count() -> dict[str, int]:
        return {service.name: context.jobs.count(service.name) for service in services}

    @router.get("/invocations/count")
    def invocations_count() -> dict[str, int]:
        return {service.name: context.invocations[service.name] for service in services}

    @router.get("/texts/count")
    def texts_count() -> dict[str, int]:
        return {service.name: context.jobs.texts(service.name) for service in services}


def _check(fault: Fault, services: Sequence[Service]) -> None:
    known = {service.name: service.faults for service in services}
    if fault.service not in known:
        raise HTTPException(400, f"/faults: no service {fault.service!r}; there is {', '.join(known)}")
    if fault.fault not in known[fault.service]:
        can = ", ".join(sorted(known[fault.service]))
        raise HTTPException(400, f"/faults: {fault.service} has no {fault.fault.value!r}; it has {can}")


def _decoded(request: Request, body: bytes, kind: type[Body]) -> Body:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise HTTPException(400, f"{request.url.path}: {error}") from error


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
