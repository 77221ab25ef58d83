"""Runs every benchmark and prints one table."""

from __future__ import annotations

import os

from rich.console import Console
from rich.table import Table

from benchmarks import field_map


def main() -> None:
    """Print medians of 5 alternating runs and the ratio to the rival."""
    table = Table("what", "rival", "ours", "rival's", "ratio", title=f"make bench, {os.cpu_count()} cores")
    result = field_map.run()
    table.add_row(
        result.name,
        "json + jsonpath-ng + json",
        f"{result.ours:.0f} {result.unit}",
        f"{result.rival:.0f} {result.unit}",
        f"{result.ratio:.1f} x",
    )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
