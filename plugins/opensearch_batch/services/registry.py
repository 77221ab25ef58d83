"""Finds AI services by name: built-in ones, and those that other distributions register.

A distribution registers an `AiService` as an entry point of the group ``opensearch_batch.services``, under the
service's name. Entry points are read only to find a name that is not built in and to list all services, so that
parsing DAG files does not read them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

from opensearch_batch.core.errors import ConfigError, did_you_mean
from opensearch_batch.core.jobs.contract import ServiceAdapter
from opensearch_batch.core.storage.by_uri import Scheme, Stores
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.row_errors import RowErrors
from opensearch_batch.services.entry import AiService, Api, Storage

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "opensearch_batch.services"
# Each name is that of a sibling module or package that defines SERVICE. These services are not entry points, because a
# copy of the package in Airflow's plugins folder has no entry points.
BUILT_IN = ("sagemaker", "bedrock", "openai", "cohere")


def service_of(name: str) -> AiService:
    """Return the entry of an AI service; raise ConfigError if it is unknown or cannot be loaded."""
    if name in BUILT_IN:
        built_in: AiService = import_module(f"{__package__}.{name}").SERVICE
        return built_in
    if name in _registered():
        return _loaded(name)
    known = names()
    raise ConfigError(f"no AI service {name!r}; known: {', '.join(known)}.{did_you_mean(name, known)}")


def adapter_of(name: str) -> ServiceAdapter:
    """Return the adapter of an AI service; raise ConfigError as `service_of` does."""
    return service_of(name).adapter


def names() -> list[str]:
    """Return the names of all AI services, built-in ones first."""
    return [*BUILT_IN, *_registered()]


def row_errors() -> RowErrors:
    """Return one `RowErrors` for all AI services: it finds the error of any of them in a row."""
    distinct = list(dict.fromkeys(each for name in names() if (each := service_of(name).row_errors)))
    if len(distinct) == 1:
        return distinct[0]
    return RowErrors(
        lambda row: next((reason for each in distinct if (reason := each.find(row))), None),
        frozenset().union(*(each.members for each in distinct)),
    )


def stores(
    schemes: dict[str, Scheme],
    api_of: Callable[[AiService], Api],
    *,
    services: Iterable[str],
    below: Mapping[str, Callable[[], Objects]] = MappingProxyType({}),
) -> Stores:
    """Return a store for these schemes, for the files at these AI services, and for the prefixes of `below`.

    `api_of` creates a service's API client; it is called on the first access to the service's files.
    """

    def scheme(entry: AiService, storage: Storage) -> Scheme:
        return Scheme(lambda: storage.open(api_of(entry)), bare_id=storage.bare_id)

    entries = [service_of(name) for name in services]
    at_services = {each.storage.scheme: scheme(each, each.storage) for each in entries if each.storage}
    return Stores(schemes | at_services, below=below)


@cache
def _registered() -> dict[str, list[EntryPoint]]:
    """Return the entry points of other distributions, by the service's name; those with a built-in name are ignored."""
    from importlib.metadata import entry_points

    by_name: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        if point.name not in BUILT_IN:
            by_name.setdefault(point.name, []).append(point)
    return by_name


@cache
def _loaded(name: str) -> AiService:
    point, *others = _registered()[name]
    subject = f"AI service {name} (entry point {point.value})"
    if other := next((each.value for each in others if each.value != point.value), None):
        raise ConfigError(f"{subject}: {other} registers the same name; uninstall one of the two distributions")
    try:
        entry = point.load()
    except Exception as error:
        raise ConfigError(f"{subject} cannot be loaded: {error!r}; fix or uninstall its distribution") from error
    if not isinstance(entry, AiService) or entry.name != name:
        raise ConfigError(f"{subject} is not an AiService of this name; fix or uninstall its distribution")
    return entry
