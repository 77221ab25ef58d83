"""Names of the supported source formats."""

from __future__ import annotations

from typing import Literal

Format = Literal["jsonl", "json", "csv", "parquet", "dead_letters"]
