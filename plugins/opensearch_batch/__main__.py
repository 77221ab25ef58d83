"""`python -m opensearch_batch`: its exit code is part of its answer."""

from __future__ import annotations

import gc
import sys

from opensearch_batch.cli import main

if __name__ == "__main__":
    # What was loaded lives as long as the process: looking at it again with every full collection is work for nothing.
    gc.freeze()
    sys.exit(main(sys.argv[1:]))
