"""The app. Every service is one router and one line here; none knows of another."""

import os
from pathlib import Path

from fastapi import Depends, FastAPI

from include.local_stack.ai_services import openai_files, sagemaker
from include.local_stack.ai_services.aws import AwsError, error_response
from include.local_stack.ai_services.control import control_router
from include.local_stack.ai_services.jobs import JobStore
from include.local_stack.ai_services.service import Context, answers_to
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
    services = [sagemaker.service(context), openai_files.service(context)]
    app = FastAPI(title="Local AI services", openapi_url=None)
    app.add_exception_handler(AwsError, error_response)
    app.add_exception_handler(openai_files.OpenAIError, openai_files.error_response)
    names = [service.name for service in services]
    app.include_router(control_router(context, names), dependencies=[Depends(answers_to(None))])
    for service in services:
        app.include_router(service.router, dependencies=[Depends(answers_to(service.hosts))])
    return app
