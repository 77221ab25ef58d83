"""Local copies of pipeline files that are in S3, which the connection `aws_default` reads.

Every process that needs such a file reads it from S3 again, so machines share no disk. A local file is its own copy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.hooks.stored_connections import stored_connection

AWS_CONN_ID = "aws_default"
# Other names are not read, so no key leads out of the copy.
_FILES = re.compile(r"pipelines/[^/]+\.ya?ml|(?:connectors|indexes)/[^/]+\.json")
# Larger ones are no pipeline files; their reader refuses what is read of them.
MAX_FILE_BYTES = 2_000_000
MAX_CONCURRENT_READS = 10


@contextmanager
def local_folder(location: str) -> Iterator[Path]:
    """Yield a copy of the pipeline files, connectors and index bodies below a folder or an S3 prefix.

    Raise ConfigError if it has no `pipelines/`.
    """
    if "://" not in location:
        yield _with_pipelines(Path(location), location)
        return
    prefix = location.rstrip("/") + "/"
    objects = _objects()
    with TemporaryDirectory(prefix="opensearch-batch-") as folder:

        def copy(name: str) -> None:
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            with objects.open(f"{prefix}{name}", compression="none") as content:
                path.write_bytes(content.read(MAX_FILE_BYTES))

        names = [item.uri.removeprefix(prefix) for item in objects.list(prefix)]
        with ThreadPoolExecutor(MAX_CONCURRENT_READS) as pool:
            list(pool.map(copy, filter(_FILES.fullmatch, names)))
        yield _with_pipelines(Path(folder), location)


@contextmanager
def local_file(location: str) -> Iterator[Path]:
    """Yield a copy of a pipeline file; a ConfigError about the copy names the location instead.

    Raise ConfigError if there is no such object.
    """
    if "://" not in location:
        yield Path(location)
        return
    with TemporaryDirectory(prefix="opensearch-batch-") as folder:
        path = Path(folder, location.rpartition("/")[2])
        with _objects().open(location, compression="none") as content:
            path.write_bytes(content.read(MAX_FILE_BYTES))
        try:
            yield path
        except ConfigError as error:
            raise relocated(error, path, location) from error


def relocated(error: ConfigError, copy: Path, location: str) -> ConfigError:
    """Return the error about a copy as one about the location that was copied."""
    return ConfigError(str(error).replace(str(copy), location.rstrip("/")))


def _objects() -> S3Objects:
    """Return the store; `hooks.aws` would resolve connections of such files, too, which needs their content."""
    from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

    stored_connection(AWS_CONN_ID, "aws")
    return S3Objects(AwsBaseHook(aws_conn_id=AWS_CONN_ID, client_type="s3").get_conn())


def _with_pipelines(folder: Path, location: str) -> Path:
    if not (folder / "pipelines").is_dir():
        raise ConfigError(f"{location}: no folder pipelines/; name the folder that contains pipelines/")
    return folder
