"""Finds AI services by name: the package's own, and those that other distributions register.

A distribution registers an `AiService` by an entry point of the group ``opensearch_batch.services``; the entry point's
name is the service's. Entry points are read only where a name is none of the package's own, or where all services are
listed: the parser of DAG files needs neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from opensearch_batch.core.errors import ConfigError, did_you_mean
from opensearch_batch.core.jobs.contract import ServiceAdapter
from opensearch_batch.core.storage.by_uri import Scheme, Stores
from opensearch_batch.core.types.row_errors import RowErrors
from opensearch_batch.services.entry import AiService, Api

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "opensearch_batch.services"
# Each is a module or package beside this one with its entry as SERVICE. A copy of the package in Airflow's plugins
# folder has no entry points.
BUILT_IN = ("sagemaker", "bedrock", "openai", "cohere")


def service_of(name: str) -> AiService:
    """Return the entry of an AI service.

    Raises:
        ConfigError: there is no such service, or it cannot be loaded.
    """
    if name in BUILT_IN:
        built_in: AiService = import_module(f"{__package__}.{name}").SERVICE
        return built_in
    if name in _registered():
        return _loaded(name)
    known = names()
    raise ConfigError(f"no AI service {name!r}; known: {', '.join(known)}.{did_you_mean(name, known)}")


def adapter_of(name: str) -> ServiceAdapter:
    """Return the adapter of an AI service.

    Raises:
        ConfigError: as in `service_of`.
    """
    return service_of(name).adapter


def names() -> list[str]:
    """Return the names of all AI services, the package's own first."""
    return [*BUILT_IN, *_registered()]


def row_errors() -> RowErrors:
    """Return what finds the errors of all AI services in rows whose service is not known."""
    found = list(dict.fromkeys(each for name in names() if (each := service_of(name).row_errors)))
    if len(found) == 1:
        return found[0]
    return RowErrors(
        lambda row: next((reason for each in found if (reason := each.find(row))), None),
        frozenset().union(*(each.members for each in found)),
    )


def stores(schemes: dict[str, Scheme], api_of: Callable[[AiService], Api], *, services: Iterable[str]) -> Stores:
    """Return the store of these schemes, and of the files at AI services.

    Args:
        schemes: stores that belong to no service.
        api_of: makes a service's API client, when its files are first asked for.
        services: the names of the services.
    """

    def scheme(entry: AiService) -> dict[str, Scheme]:
        if (storage := entry.storage) is None:
            return {}
        return {storage.scheme: Scheme(lambda: storage.open(api_of(entry)), bare_id=storage.bare_id)}

    found = dict(schemes)
    for name in services:
        found |= scheme(service_of(name))
    return Stores(found)


@cache
def _registered() -> dict[str, list[EntryPoint]]:
    """Return the entry points of other distributions, by the service's name; a name of ours is not theirs to take."""
    from importlib.metadata import entry_points

    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        if point.name not in BUILT_IN:
            found.setdefault(point.name, []).append(point)
    return found


@cache
def _loaded(name: str) -> AiService:
    point, *others = _registered()[name]
    where = f"AI service {name} (entry point {point.value})"
    if other := next((each.value for each in others if each.value != point.value), None):
        raise ConfigError(f"{where}: {other} registers the same name; uninstall one of the two distributions")
    try:
        entry = point.load()
    except Exception as error:
        raise ConfigError(f"{where} cannot be loaded: {error!r}; mend or uninstall its distribution") from error
    if not isinstance(entry, AiService) or entry.name != name:
        raise ConfigError(f"{where} is no AiService of this name; mend or uninstall its distribution")
    return entry
