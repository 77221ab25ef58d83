"""Makes the certificates of the node and of the proxy to the AI services: `python -m include.compose.certificates DIR`.

Both authorities forget their keys. A second start keeps certificates that are valid for a while.
"""

from __future__ import annotations

import sys
from pathlib import Path

from include.local_stack import egress_certificates
from include.local_stack.opensearch_security import ensure_certificates

# The name of the node's service in docker-compose.yaml.
NODE = "opensearch"


def main(folder: Path) -> None:
    """Make both in one folder; their files have different names."""
    ensure_certificates(folder, names=(NODE, "localhost"))
    egress_certificates.ensure(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
