"""Makes one golden dataset: ``PYTHONPATH=OLD/src python tests/golden_dataset.py NAME OUT``, by the old vlapipe there.

``OUT.json`` gets every array of every episode as that vlapipe reads it; bytes are given by their digest.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "golden"
OPTIONS: dict[str, dict[str, Any]] = {"2": {"image_storage": "raw"}}


def main(name: str, out: Path) -> None:
    """Ingest the first two recordings; for the names that begin with 5 more happens."""
    from vlapipe import open_dataset
    from vlapipe.pipeline.ingest import IngestConfig, ingest

    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "lab"
        for episode in ("ep00", "ep01"):
            shutil.copytree(HERE / "recordings" / episode, raw / episode)
        schema = Path(folder) / "golden.toml"
        schema.write_text(schema_of(name))
        shard_bytes = 20 if name == "5-parts" else 1_000_000  # in parts each episode is a shard
        options = {"schema": str(schema), "workers": 1, "shard_bytes": shard_bytes, **OPTIONS.get(name, {})}
        if name == "5-parts":
            from vlapipe.pipeline.shards.manifest import parts

            parts.MOST_EPISODES = 1
        ingest(IngestConfig(source=raw, out=out, **options))
        if name == "5-changed":
            table = raw / "ep01" / "robot.csv"
            table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
            ingest(IngestConfig(source=raw, out=out, **options))
        with tempfile.TemporaryDirectory() as cache:
            dataset = open_dataset(out, cache_dir=cache)
            (out.parent / f"{out.name}.json").write_text(json.dumps(values_of(dataset), indent=0) + "\n")


def schema_of(name: str) -> str:
    """Return the schema of a golden dataset."""
    text = (HERE / "golden.toml").read_text()
    if name == "3":
        text = text.replace('kind = "images"', 'kind = "images"\nchannels = "bgr"')
    return text.replace("*.jpg", "*.png") if name == "4" else text


def values_of(dataset: Any) -> dict[str, dict[str, Any]]:
    """Return every array of every episode, by the episode's id and the array's name."""
    return {dataset.episode(i).id: arrays_of(dataset.episode(i)) for i in range(len(dataset))}


def arrays_of(episode: Any) -> dict[str, Any]:
    """Return the arrays of an episode: dtype, and numbers, or the digest of images."""
    found: dict[str, Any] = {}
    for name in sorted(episode):
        array = episode[name]
        is_image = name.endswith(("/bytes", "/pixels"))
        value = hashlib.sha256(array.tobytes()).hexdigest() if is_image else array.tolist()
        found[name] = [str(array.dtype), list(array.shape), value]
    return found


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).absolute())
