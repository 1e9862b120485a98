"""Runs one piece of work at a time in a thread. Its error is raised later, in the thread that asks for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

__all__ = ["BackgroundWork"]

Work = Callable[[threading.Event], object]  # ends soon, with any error, once the event is set


class BackgroundWork:
    """Context manager of a worker thread. The end of the block waits for the work; after an error it cancels the work.

    The thread never outlives the block. A thread that takes the GIL while Python ends would kill the process.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._cancelled = threading.Event()
        self._error: BaseException | None = None

    def start(self, work: Work, name: str) -> None:
        """Start ``work`` in a thread called ``name``, after the work before it has ended."""
        self.finish()
        self._thread = threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise the error of the work, if it has failed already."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def finish(self) -> None:
        """Wait for the work to end, and raise its error."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def _run(self, work: Work) -> None:
        try:
            work(self._cancelled)
        except BaseException as error:  # noqa: BLE001 - raised in the thread that asks
            self._error = error

    def __enter__(self) -> BackgroundWork:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
            return
        self._cancelled.set()
        if self._thread is not None:
            self._thread.join()
