"""Manifests of runs."""

from __future__ import annotations

from typing import Any

from opensearch_batch.core.types.manifest import Manifest


def manifest_of(**members: Any) -> Manifest:
    """Return the manifest of run `r` of pipeline `p`, with these members."""
    usual = {"run_key": "r", "scope": "s", "service": "openai", "model_id": "m", "index": "i"}
    return Manifest(pipeline="p", source="s3://d/", **usual | members)
