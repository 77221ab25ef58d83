"""Runs the command line: `opensearch-batch`, or `python -m opensearch_batch`."""

from __future__ import annotations

import gc
import sys

from opensearch_batch.cli import main


def run() -> int:
    """Run the command in this process's arguments and return its exit code."""
    # Loaded modules live as long as the process, so full collections need not traverse them.
    gc.freeze()
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
