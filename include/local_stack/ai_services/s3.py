"""Objects as batch jobs name them: everything below a URI is input, and an output keeps its input's name."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from include.local_stack.ai_services.computing import S3Client


@dataclass(frozen=True)
class Source:
    """One input object, and the part of its key that its output keeps."""

    bucket: str
    key: str
    relative_key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    def download(self, s3: S3Client, path: Path) -> None:
        """Bring the object here."""
        with path.open("wb") as file:
            s3.download_fileobj(self.bucket, self.key, file)


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of an s3:// URI; the key may be empty."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def relative_key(key: str, prefix: str) -> str:
    """The folders below the prefix and the file name; a prefix within a name cuts no name in two."""
    if key.startswith(prefix) and key[len(prefix) :].startswith("/"):
        return key[len(prefix) + 1 :]
    return key[prefix.rfind("/") + 1 :]


def sources_below(s3: S3Client, bucket: str, prefix: str) -> Iterator[Source]:
    """The objects whose keys begin with the prefix."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for found in page.get("Contents", []):
            if not found["Key"].endswith("/"):  # a console's folder marker is no data
                yield Source(bucket, found["Key"], relative_key(found["Key"], prefix))


def store(s3: S3Client, folder_uri: str, name: str, output: Path) -> None:
    """Put an output below a folder."""
    bucket, prefix = split_uri(folder_uri)
    key = "/".join(part for part in (prefix.rstrip("/"), name) if part)
    with output.open("rb") as file:
        s3.put_object(Bucket=bucket, Key=key, Body=file)
