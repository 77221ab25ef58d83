"""Another api-server of the lab's Airflow, behind a reverse proxy that gives it a path and hides the browser's host."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import requests

from include.local_stack import processes
from include.local_stack.airflow import Airflow
from include.local_stack.settings import LOOPBACK, StackOptions
from include.local_stack.state import StateFile
from tests.lab import Lab
from tests.stored import present
from tests.waiting import WAIT_S, eventually

PATH = "/team/airflow"
# Headers that are between two neighbours, and those that this proxy writes itself.
OF_A_HOP = {"connection", "keep-alive", "transfer-encoding", "host"}
BLOCK = 65_536


@contextmanager
def proxied(lab: Lab) -> Iterator[str]:
    """Give the address of an Airflow behind a proxy."""
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        port = free.getsockname()[1]
    proxy = ThreadingHTTPServer((LOOPBACK, 0), _handler(port))
    url = f"http://{LOOPBACK}:{proxy.server_port}{PATH}"
    ports = present(StateFile(lab.stack.home).read()).ports
    airflow = Airflow(StackOptions(home=lab.stack.home), ports)
    (command, *_) = airflow.commands()
    settings = {"AIRFLOW__API__BASE_URL": url, "AIRFLOW__API__PORT": str(port)}
    process = processes.start(
        processes.Command(
            name="airflow-behind-a-proxy",
            argv=command.argv,
            env={**command.env, **settings},
            cwd=command.cwd,
            log=lab.stack.home / "logs" / "airflow-behind-a-proxy.log",
            is_healthy=lambda: True,
        )
    )
    serving = Thread(target=proxy.serve_forever, daemon=True)
    serving.start()
    try:
        eventually(lambda: _is_up(url), "the api-server behind the proxy")
        yield url
    finally:
        proxy.shutdown()
        proxy.server_close()
        processes.stop(process)


def _is_up(url: str) -> bool:
    answer = requests.get(f"{url}/api/v2/version", timeout=WAIT_S, proxies={"http": ""})
    return answer.ok


def _handler(port: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def forward(self) -> None:
            """Pass a request on, and the answer back as it comes."""
            upstream = HTTPConnection(LOOPBACK, port, timeout=WAIT_S)
            try:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                sent = {name: value for name, value in self.headers.items() if name.lower() not in OF_A_HOP}
                upstream.request(self.command, self.path, body or None, sent)
                answer = upstream.getresponse()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in OF_A_HOP:
                        self.send_header(name, value)
                self.end_headers()
                while block := answer.read1(BLOCK):
                    self.wfile.write(block)
                    self.wfile.flush()
            except ConnectionRefusedError:
                self.send_error(502)
            except OSError:
                # The browser has left.
                self.close_connection = True
            finally:
                upstream.close()

        def log_message(self, *_: object) -> None:
            """Do not log requests."""

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = forward  # noqa: N815 - names of the base class

    return Handler
