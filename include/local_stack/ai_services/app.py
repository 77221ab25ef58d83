"""The app. Every service is one entry here; none knows of another."""

import os
from pathlib import Path

from fastapi import Depends, FastAPI

from include.local_stack.ai_services import (
    bedrock,
    cohere,
    cohere_api,
    cohere_datasets,
    openai_api,
    openai_batches,
    openai_files,
    openai_online,
    sagemaker,
)
from include.local_stack.ai_services.aws import AwsError, error_response
from include.local_stack.ai_services.control import control_router
from include.local_stack.ai_services.jobs import JobStore
from include.local_stack.ai_services.service import Context, Service, answers_to
from include.local_stack.ai_services.sigv4 import KeyPair


def keys_from_environment() -> KeyPair:
    """The key pair clients must sign with."""
    try:
        return KeyPair(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    except KeyError as error:
        raise SystemExit(
            f"ai_services: {error.args[0]} is not set. Set the key pair that clients sign with."
        ) from error


def build(*, state_dir: Path, model_dir: Path, keys: KeyPair) -> FastAPI:
    """All services over one state folder."""
    context = Context(state_dir=state_dir, model_dir=model_dir, keys=keys, jobs=JobStore(state_dir))
    services = _services(context)
    app = FastAPI(title="Local AI services", openapi_url=None)
    app.add_exception_handler(AwsError, error_response)
    app.add_exception_handler(openai_api.OpenAIError, openai_api.error_response)
    app.add_exception_handler(cohere_api.CohereError, cohere_api.error_response)
    app.include_router(control_router(context, services), dependencies=[Depends(answers_to(None))])
    for service in services:
        for router in service.routers:
            app.include_router(router, dependencies=[Depends(answers_to(service.hosts))])
    return app


def _services(context: Context) -> list[Service]:
    openai_routers = [part.router(context) for part in (openai_files, openai_batches, openai_online)]
    cohere_routers = [cohere_datasets.router(context), cohere.router(context)]
    return [
        sagemaker.service(context),
        Service(openai_api.NAME, openai_api.HOSTS, openai_routers),
        bedrock.service(context),
        Service(cohere_api.NAME, cohere_api.HOSTS, cohere_routers, cohere_api.FAULTS),
    ]
