"""Runs the command line: `python -m opensearch_batch`."""

from __future__ import annotations

import gc
import sys

from opensearch_batch.cli import main

if __name__ == "__main__":
    # Loaded modules live as long as the process, so full collections need not traverse them.
    gc.freeze()
    sys.exit(main(sys.argv[1:]))
