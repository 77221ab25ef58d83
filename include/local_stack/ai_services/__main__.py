"""`python -m include.local_stack.ai_services`: the services' APIs, on loopback unless a host is given.

Jobs are computed by the worker, a process of its own, so that a busy model never delays an answer.
"""

import argparse
from pathlib import Path

import uvicorn

from include.local_stack.ai_services.app import build, keys_from_environment


def main() -> None:
    """Serve until killed; nothing is lost by a kill, all state is on disk."""
    parser = argparse.ArgumentParser(prog="ai_services", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--state", type=Path, required=True, help="folder of the job files, shared with the worker")
    parser.add_argument("--s3-endpoint", required=True, help="where the services read and write objects")
    parser.add_argument("--model", type=Path, required=True, help="folder that model.fetch() completed")
    arguments = parser.parse_args()
    app = build(state_dir=arguments.state, model_dir=arguments.model, keys=keys_from_environment())
    uvicorn.run(app, host=arguments.host, port=arguments.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
