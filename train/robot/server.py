"""Offers a policy's runner over HTTP on this machine: each connection is a robot with a history of its own.

Bodies are msgpack, with arrays as ``client.py`` writes them; nothing is unpickled. A web page cannot ask: its requests
would need the content type, which a browser does not send to another origin unasked, and the name of this machine.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from vlapipe.schemas.errors import UsageError, VlapipeError
from vlapipe.train.data.named_object import one_line, place_of
from vlapipe.train.robot.client import pack, unpack
from vlapipe.train.robot.runner import Runner

__all__ = ["PolicyServer"]

_HOST = "127.0.0.1"
_TYPE = "application/msgpack"
_MOST_BYTES = 256_000_000  # of one observation


class PolicyServer(ThreadingHTTPServer):
    """Answers ``GET /spec``, ``POST /step`` and ``POST /reset``, until ``shutdown`` or Ctrl-C."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, make_runner: Callable[..., Runner], *, port: int, say: Callable[[str], None]) -> None:
        """Listen on the loopback interface; port 0 takes a free one.

        Args:
            make_runner: makes the runner of one connection; is called with ``say``.
            port: where to listen.
            say: is called with a sentence for each thing that happens.

        Raises:
            UsageError: the port is in use, or the runner's options cannot be used.
        """
        self.spec = make_runner(say=lambda _: None).spec  # a wrong option is told now
        self.make_runner, self.say = make_runner, say
        self.lock = threading.Lock()  # one policy for all
        self.num_steps = 0
        try:
            super().__init__((_HOST, port), _Connection)
        except (OSError, OverflowError) as error:
            cure = "another --port, or 0 for a free one"
            raise UsageError(f"port {port}: {getattr(error, 'strerror', None) or error}", cure) from None

    @property
    def port(self) -> int:
        """Where the server listens."""
        return int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that hangs up is no fault."""


class _Connection(BaseHTTPRequestHandler):
    """One connection, which may ask many times."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: PolicyServer

    def setup(self) -> None:
        super().setup()
        self._told = list[str]()

    @cached_property
    def _runner(self) -> Runner:
        self.server.say(f"client {self.client_address[1]} begins")
        return self.server.make_runner(say=self._told.append)

    def do_GET(self) -> None:
        """Answer with what the policy takes and gives, as JSON."""
        if not self._is_for_here():
            return
        if self.path != "/spec":
            self._refuse(HTTPStatus.NOT_FOUND, f"{self.path}: unknown (GET /spec, POST /step, POST /reset)")
            return
        spec = self.server.spec
        found = {"text": repr(spec), "state_names": spec.state_names, "action_names": spec.action_names}
        self._answer(HTTPStatus.OK, json.dumps(found | spec.to_json()).encode(), "application/json")

    def do_POST(self) -> None:
        """Make a step, or begin an episode."""
        body = self._body()
        if body is None or not self._is_for_here():
            return
        if self.path not in ("/step", "/reset"):
            self._refuse(HTTPStatus.NOT_FOUND, f"{self.path}: unknown (GET /spec, POST /step, POST /reset)")
        elif self.headers.get("Content-Type") != _TYPE:
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"expected Content-Type {_TYPE}")
        elif self.path == "/reset":
            self._runner.reset()
            self._answer(HTTPStatus.OK, b"", _TYPE)
        else:
            self._step(body)

    def _step(self, body: bytes) -> None:
        try:
            observation = unpack(body)
        except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, f"the body is no observation: {one_line(error)}")
            return
        try:
            with self.server.lock:
                action = self._runner.step(observation)
                self.server.num_steps += 1
        except VlapipeError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
            return
        except Exception as error:  # noqa: BLE001 - of the policy; one robot's error ends no other one's connection
            line = f"the policy failed: {one_line(error)}{place_of(error)}"
            self.server.say(line)
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, line)
            return
        told, self._told[:] = [*self._told], []
        self._answer(HTTPStatus.OK, pack({"action": action, "told": told}), _TYPE)

    def _body(self) -> bytes | None:
        """Returns the body; None if the request was refused."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _MOST_BYTES:
            self.close_connection = True  # what follows cannot be told from a next request
            self._refuse(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {_MOST_BYTES:,} bytes and their number"
            )
            return None
        return self.rfile.read(int(length))

    def _is_for_here(self) -> bool:
        """Whether the request names this machine; refuse it otherwise."""
        host = self.headers.get("Host", "").partition(":")[0]
        if host in (_HOST, "localhost"):
            return True
        self._refuse(HTTPStatus.FORBIDDEN, f"expected Host {_HOST} or localhost")
        return False

    def _refuse(self, status: HTTPStatus, line: str) -> None:
        self._answer(status, line.encode("utf-8", "backslashreplace"), "text/plain; charset=utf-8")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Print no line a request: there are 50 a second."""
