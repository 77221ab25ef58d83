"""Manifests of runs."""

from __future__ import annotations

from typing import Any

from opensearch_batch.core.types.manifest import Manifest


def manifest_of(**members: Any) -> Manifest:
    """Return the manifest of run `r` of pipeline `p`, with these members."""
    usual = {"scope": "s", "service": "openai", "model_id": "m", "index": "i"}
    return Manifest(pipeline="p", run_key="r", source="s3://d/", **usual | members)
