"""Content keys: the identity of a prediction.

A content key is a hash of the service, the model, the parameters that affect predictions, and what the model reads of
a record. Ids, names and locations are not part of it, so a record that moves, or changes in a field that the model does
not read, keeps its key. Tenants may share a store, so the hash is cryptographic.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.formats.json_text import encode_number_text, number_text_decoder
from opensearch_batch.core.jobs.contract import ServiceAdapter

KEY_BYTES = 16
# Changes when content keys are computed in another way: the answers in existing stores are then paid for again.
_VERSION = 1


def content_key(
    adapter: ServiceAdapter, parameters: Mapping[str, Any], inputs: Sequence[str] = ()
) -> Callable[[bytes], bytes]:
    """Return the function from a record's bytes to its content key.

    The function raises RecordRejected for a record that `request_line` rejects. It ignores which characters of a text
    are escaped.
    """
    read, key_of = adapter.content_reader(parameters, inputs), key_of_content(adapter, parameters)
    return lambda record: key_of(read(record))


def key_of_content(adapter: ServiceAdapter, parameters: Mapping[str, Any]) -> Callable[[bytes], bytes]:
    """Return the function from what the model reads, as `content_reader` returns it, to the content key.

    The function raises RecordRejected for text that is not JSON.
    """
    identity = [_VERSION, adapter.name, adapter.model(parameters), adapter.identity(parameters)]
    # As the key of a keyed hash, the identity is hashed once, and never runs into the content.
    prefix = hashlib.blake2b(msgspec.json.encode(identity, order="deterministic"), digest_size=32).digest()
    blake2b = hashlib.blake2b

    def key(content: bytes) -> bytes:
        if b"\\" in content:
            content = _unescaped(content)
        return blake2b(content, digest_size=KEY_BYTES, key=prefix).digest()

    return key


def _unescaped(content: bytes) -> bytes:
    r"""Return JSON text with as few escapes as possible, so that ``"\u00e9"`` and ``"é"`` are the same content."""
    try:
        return encode_number_text(_decode(content))
    except (msgspec.DecodeError, RecursionError) as error:
        raise RecordRejected(f"the model's input is not JSON: {error}") from None


_decode = number_text_decoder().decode
