"""`python -m opensearch_batch`: its exit code is part of its answer."""

from __future__ import annotations

import sys

from opensearch_batch.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
