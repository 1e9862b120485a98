"""Runs a loader that may be killed at any moment: commits its ranks' frames together with the loader's state.

``python ledger_main.py DATA LEDGER WORLD_SIZE BATCH_SIZE NUM_WORKERS EPOCHS OPTIONS`` continues where the ledger ends.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import vlapipe


def commit(ledger: Path, frames: list[int], state: dict[str, int]) -> None:
    temporary = ledger.with_suffix(".new")
    temporary.write_text(json.dumps({"frames": frames, "state": state}))
    temporary.replace(ledger)


def main() -> None:
    data, ledger = sys.argv[1], Path(sys.argv[2])
    world_size, batch_size, num_workers, epochs = map(int, sys.argv[3:7])
    saved = json.loads(ledger.read_text()) if ledger.exists() else {"frames": [], "state": None}
    frames = saved["frames"]
    loaders = [
        vlapipe.Loader(
            vlapipe.open_dataset(data), batch_size=batch_size, rank=rank, world_size=world_size, endless=True,
            num_workers=num_workers, prefetch_factor=3, seed=11,
            window=vlapipe.Window(state_rows=1, sensor_rows=1, action_rows=1), **json.loads(sys.argv[7]),
        )
        for rank in range(world_size)
    ]  # fmt: skip
    if saved["state"] is not None:
        for loader in loaders:
            loader.load_state_dict(saved["state"])
    wanted = epochs * loaders[0].num_frames
    for batches in zip(*loaders, strict=True):
        frames += [index for batch in batches for index in batch["index"].tolist()]
        commit(ledger, frames, loaders[-1].state_dict())
        print(len(frames), flush=True)  # noqa: T201 - whoever kills it waits for this
        if len(frames) >= wanted:
            return


if __name__ == "__main__":
    main()
