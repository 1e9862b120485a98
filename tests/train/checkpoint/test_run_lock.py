"""A run's folder is locked even where the kernel's lock has no effect, and a dead run's lock ends soon."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vlapipe.schemas.errors import UsageError
from vlapipe.train.checkpoint import run_lock
from vlapipe.train.checkpoint.run_lock import LOCK_FILE, held_by_this_run


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run shows its life often; one that shows none for seconds, on a busy machine, is no dead one."""
    monkeypatch.setattr(run_lock, "_BEAT_S", 0.1)
    monkeypatch.setattr(run_lock, "_SILENT_S", 1000.0)


@pytest.fixture
def on_host(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make this process seem to run on another machine, as far as the file tells."""

    def move(name: str) -> None:
        monkeypatch.setattr(run_lock, "_kernel", lambda: name)
        monkeypatch.setattr(run_lock.socket, "gethostname", lambda: name)

    return move


def hold(folder: Path, *, alone_here: bool = True) -> None:
    with held_by_this_run(folder, print, alone_here=alone_here):
        assert (folder / LOCK_FILE).exists()


def leave_as_killed(folder: Path) -> None:
    """The file of a run that could not take it away."""
    with held_by_this_run(folder, print, alone_here=True):
        text = (folder / LOCK_FILE).read_text()
    (folder / LOCK_FILE).write_text(text)


def test_folder_is_held_against_a_run_on_another_host(tmp_path: Path, on_host: Callable[[str], None]) -> None:
    on_host("node1")
    with held_by_this_run(tmp_path, print, alone_here=True):
        on_host("node2")
        with pytest.raises(
            UsageError, match=rf"another run is writing there: host node1, process {os.getpid()}, since "
        ):
            hold(tmp_path)
        assert (tmp_path / LOCK_FILE).exists()
    hold(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_run_killed_on_this_host_is_followed_at_once(tmp_path: Path) -> None:
    def fail(line: str) -> None:
        raise AssertionError(line)  # what a run says that waits

    leave_as_killed(tmp_path)
    with held_by_this_run(tmp_path, fail, alone_here=True):
        pass
    assert list(tmp_path.iterdir()) == []


def test_run_killed_on_another_host_is_followed_when_it_was_silent(
    tmp_path: Path,
    on_host: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_lock, "_SILENT_S", 1.5)
    on_host("node1")
    began = time.monotonic()  # before its last sign of life
    leave_as_killed(tmp_path)
    on_host("node2")
    hold(tmp_path)
    assert time.monotonic() - began > 1.0
    assert "was held by host node1, process" in capsys.readouterr().out
    leave_as_killed(tmp_path)
    os.utime(tmp_path / LOCK_FILE, (1, 1))
    on_host("node3")
    hold(tmp_path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_torn_file_is_taken_over_too(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK_FILE).write_text(text)
    os.utime(tmp_path / LOCK_FILE, (1, 1))
    hold(tmp_path)


def test_one_of_many_takes_over_from_the_dead(tmp_path: Path) -> None:
    leave_as_killed(tmp_path)
    os.utime(tmp_path / LOCK_FILE, (1, 1))
    held, refused = [], []
    all_others_are_refused = threading.Event()

    def contend(number: int) -> None:
        try:
            with held_by_this_run(tmp_path, print, alone_here=False):
                held.append(number)
                assert all_others_are_refused.wait(60)
        except UsageError:
            refused.append(number)
            if len(refused) == 5:
                all_others_are_refused.set()

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1
    assert sorted(held + refused) == list(range(6))
