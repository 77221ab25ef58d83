"""The AI services, one module each, behind the one contract of `services.base`."""

from __future__ import annotations

from opensearch_batch.core.errors import ConfigError, did_you_mean
from opensearch_batch.services.base import Service
from opensearch_batch.services.sagemaker import SageMaker

SERVICES: dict[str, Service] = {"sagemaker": SageMaker()}


def service(name: str) -> Service:
    """Return the adapter of an AI service by its name.

    Raises:
        ConfigError: there is no such service.
    """
    if name not in SERVICES:
        known = ", ".join(SERVICES)
        raise ConfigError(f"no AI service {name!r}; known: {known}.{did_you_mean(name, SERVICES)}")
    return SERVICES[name]
