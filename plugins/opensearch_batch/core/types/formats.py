"""Names of the source formats: four that users choose, and `dead_letters`, this package's own."""

from __future__ import annotations

from typing import Literal

Format = Literal["jsonl", "json", "csv", "parquet", "dead_letters"]
