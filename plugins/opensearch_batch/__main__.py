"""`python -m opensearch_batch`: its exit code is part of its answer."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

from opensearch_batch.cli import main


def run(arguments: Sequence[str]) -> int:
    """Run one command in a process of its own and return its exit code."""
    # What was loaded lives as long as the process: looking at it again with every full collection is work for nothing.
    gc.freeze()
    return main(arguments)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
