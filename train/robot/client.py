"""The client of ``vlapipe serve``. It needs numpy and msgpack alone: this file is enough on a robot's computer."""

import http.client
import json
import warnings
from functools import partial
from typing import Any

import msgpack
import numpy as np


def _encoded(value: Any) -> Any:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"expected numbers, found {type(value).__name__}")
    return {"dtype": array.dtype.str, "shape": array.shape, "data": array.tobytes()}


def _decoded(found: dict[str, Any]) -> Any:
    if "dtype" in found and (len(found["dtype"]) != 3 or found["dtype"][1] not in "biuf"):  # such as <f4
        raise ValueError(f"expected an array of numbers, found dtype {found['dtype']!r:.40}")
    return np.frombuffer(found["data"], found["dtype"]).reshape(found["shape"]) if "dtype" in found else found


pack, unpack = partial(msgpack.packb, default=_encoded), partial(msgpack.unpackb, object_hook=_decoded)


class PolicyClient:
    """One robot, whose history lives as long as the connection. A refused observation is a ValueError of one line."""

    def __init__(self, port: int = 8765, host: str = "127.0.0.1", timeout_s: float = 10.0) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
        self._connection.connect()
        self._connection.auto_open, self.close = 0, self._connection.close  # a new one would begin without a history
        self.reset = partial(self._ask, "POST", "/reset", b"")
        self.spec = json.loads(self._ask("GET", "/spec"))

    def step(self, observation: dict[str, Any]) -> Any:
        answer = unpack(self._ask("POST", "/step", pack(observation)))
        [warnings.warn(sentence, stacklevel=2) for sentence in answer["told"]]
        return answer["action"].copy()

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        self._connection.request(method, path, body, {"Content-Type": "application/msgpack"})
        response = self._connection.getresponse()
        data = response.read()
        if response.status != 200:
            raise (ValueError if response.status == 400 else RuntimeError)(data.decode())
        return data
