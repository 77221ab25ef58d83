"""The stack's own routes: is it up, how many jobs were ever accepted, and what shall go wrong next."""

import msgspec
from fastapi import APIRouter, HTTPException, Request, Response

from include.local_stack.ai_services.faults import Fault
from include.local_stack.ai_services.service import Context


def control_router(context: Context, service_names: list[str]) -> APIRouter:
    """Unsigned routes for tests and health checks; only loopback reaches them."""
    router = APIRouter()

    @router.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/jobs/count")
    def jobs_count() -> dict[str, int]:
        return {name: context.jobs.count(name) for name in service_names}

    @router.post("/faults")
    async def add_fault(request: Request) -> Response:
        fault = _decoded(await request.body())
        if fault.service not in service_names:
            raise HTTPException(400, f"/faults: no service {fault.service!r}; there is {', '.join(service_names)}")
        context.faults.add(fault)
        return Response(msgspec.json.encode({"faults": context.faults.pending()}), media_type="application/json")

    @router.delete("/faults")
    async def clear_faults() -> dict[str, list[str]]:
        context.faults.clear()
        return {"faults": []}

    return router


def _decoded(body: bytes) -> Fault:
    try:
        return msgspec.json.decode(body, type=Fault)
    except msgspec.MsgspecError as error:
        raise HTTPException(400, f"/faults: {error}") from error
