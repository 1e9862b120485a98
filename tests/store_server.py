"""A real S3 server on loopback, and a proxy before it that lets chosen requests fail."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from free_ports import free_port

__all__ = ["BUCKET", "FAILURES", "FailingProxy", "environment", "make_bucket", "serve", "use"]

BUCKET = "robots"
FAILURES = ("503", "half a body", "no answer")
_HOST = "127.0.0.1"


def environment(port: int) -> dict[str, str]:
    """The variables by which a program finds the server."""
    return {
        "AWS_ENDPOINT_URL": f"http://{_HOST}:{port}",
        "AWS_ACCESS_KEY_ID": "key-of-the-tests",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@contextlib.contextmanager
def serve(log: Path) -> Iterator[int]:
    """Start a server with one empty bucket, and yield its port."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", _HOST, "-p", str(port)]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as server:
        try:
            make_bucket(port)
            yield port
        finally:
            server.terminate()


def make_bucket(port: int, name: str = BUCKET) -> None:
    """Make a bucket, as soon as the server answers."""
    deadline = time.monotonic() + 60
    while True:
        try:
            connection = http.client.HTTPConnection(_HOST, port, timeout=10)
            connection.request("PUT", f"/{name}")
            assert connection.getresponse().status == 200
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


class FailingProxy:
    """Passes requests on to a server, except those whose numbers are to fail. Use it as a context manager."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._lock = threading.Lock()
        self.num_requests = 0
        self.requests: list[str] = []  # such as "GET /robots/x/manifest.json"
        self.first_failed, self.last_failed, self.failure = 0, -1, ""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                proxy._answer(self)

            do_PUT = do_POST = do_HEAD = do_DELETE = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((_HOST, 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> FailingProxy:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fail(self, first: int, failure: str, count: int = 1) -> None:
        """Let ``count`` requests fail, the first of which is request ``first`` from now, counted from 1."""
        with self._lock:
            self.num_requests, self.failure = 0, failure
            self.requests.clear()
            self.first_failed, self.last_failed = first, first + count - 1

    def pass_all(self) -> None:
        """Let every request pass, and count from 1 again."""
        self.fail(1, "", 0)

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        with self._lock:
            self.num_requests += 1
            self.requests.append(f"{handler.command} {handler.path}")
            fails = self.first_failed <= self.num_requests <= self.last_failed
            failure = self.failure
        if fails and failure == "503":
            handler.send_response(503)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        if fails and failure == "no answer":
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        connection = http.client.HTTPConnection(_HOST, self._server_port, timeout=60)
        connection.request(handler.command, handler.path, body, dict(handler.headers))
        answer = connection.getresponse()
        data = answer.read()
        handler.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                handler.send_header(name, value)
        length = answer.getheader("Content-Length") if handler.command == "HEAD" else str(len(data))
        handler.send_header("Content-Length", length or "0")
        handler.end_headers()
        if fails:  # half a body: the request was carried out, and its answer is lost on the way
            handler.wfile.write(data[: len(data) // 2])
            handler.wfile.flush()
            handler.close_connection = True
            with contextlib.suppress(OSError):
                handler.connection.shutdown(socket.SHUT_RDWR)
            return
        handler.wfile.write(data)


def use(port: int) -> None:
    """Let this process find the server."""
    os.environ.update(environment(port))
