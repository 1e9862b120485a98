"""The text of a sample: paraphrases drawn by its position, an instruction a row; and which episodes are read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_lab import ingest_lab, make_lab, schema_text
from torch.utils.data import DataLoader

import vlapipe
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.dataset_group import Sources
from vlapipe.train.data.frame_index import BatchPlan
from vlapipe.train.data.instructions import Instructions
from vlapipe.train.data.loader import Loader
from vlapipe.train.data.rows import shard_table

PARAPHRASES = ["pick", "take", "grab"]


def dataset(
    tmp_path: Path, told: dict[str, Any], *, name: str = "data", shard_bytes: int = 1, **schema: Any
) -> Dataset:
    steps = schema.pop("texts", None)
    options = {key: schema.pop(key) for key in ("shard_format", "codec") if key in schema}
    raw = make_lab(tmp_path / f"raw_{name}", told, steps=steps)
    ingest_lab(raw, tmp_path / name, schema_text(**schema, steps=steps is not None), shard_bytes=shard_bytes, **options)
    return vlapipe.open_dataset(tmp_path / name)


def texts(data: Dataset | list[Dataset], **options: Any) -> dict[int, list[str]]:
    """The texts of two epochs by position, put together from all ranks."""
    world_size = options.pop("world_size", 1)
    found: dict[int, list[str]] = {}
    for rank in range(world_size):
        loader = Loader(data, num_workers=0, rank=rank, world_size=world_size, **options)
        for epoch in range(2):
            for step, batch in enumerate(loader):
                size = len(batch["task"])
                first = step * options["batch_size"] * world_size + rank * size
                for i, text in enumerate(batch["task"]):
                    found.setdefault(epoch, []).append(f"{first + i}:{batch['index'][i]}:{text}")
    return {epoch: sorted(of_epoch) for epoch, of_epoch in found.items()}


@pytest.fixture
def told() -> dict[str, Any]:
    return {"ep0": {"instruction": PARAPHRASES}, "ep1": {"instruction": "put"}, "ep2": {"instruction": PARAPHRASES[:2]}}


def test_paraphrases_are_drawn_alike_by_all_and_the_same_for_any_ranks_and_batches(
    tmp_path: Path, told: dict[str, Any]
) -> None:
    data = dataset(tmp_path, told)
    one = texts(data, batch_size=1, seed=3)
    assert one == texts(data, batch_size=1, seed=3, world_size=3)
    assert one == texts(data, batch_size=11, seed=3)
    by_frame = [{text.split(":")[1]: text.split(":")[2] for text in one[epoch]} for epoch in (0, 1)]
    assert by_frame[0] != by_frame[1]
    sources, nothing = Sources([data]), np.zeros(8, dtype=np.int64)
    plan = BatchPlan(position=np.arange(8), index=nothing, episode=nothing, row=nothing, shard=nothing)
    drawn = [Instructions(sources, None, "position", seed).of(plan) for seed in (3, 3, 4)]  # type: ignore[arg-type]
    assert drawn[0] == drawn[1] != drawn[2]
    loader = Loader(data, batch_size=33, num_workers=0)
    counts: Counter[tuple[int, str]] = Counter()
    for _ in range(60):
        for batch in loader:
            counts.update(zip(batch["episode_index"].tolist(), batch["task"], strict=True))
    assert counts[1, "put"] == 660
    for episode, count in ((0, 3), (2, 2)):
        for text in PARAPHRASES[:count]:
            assert abs(counts[episode, text] - 660 / count) < 4 * (660 / count) ** 0.5


def test_paraphrase_is_the_first_without_shuffling_and_the_frames_own_in_a_map_style_dataset(
    tmp_path: Path, told: dict[str, Any]
) -> None:
    data = dataset(tmp_path, told)
    assert {text for batch in Loader(data, batch_size=5, shuffle=False) for text in batch["task"]} == {"pick", "put"}
    frames = vlapipe.torch_dataset(data)
    first, again = ([frames[i]["task"] for i in range(len(frames))] for _ in range(2))
    assert first == again
    assert set(first) == {*PARAPHRASES, "put"}
    fixed = vlapipe.torch_dataset(data, split=None)
    assert {fixed[i]["task"] for i in range(len(fixed))} == {"pick", "put"}


def test_dataset_without_paraphrases_beside_one_with_them(tmp_path: Path, told: dict[str, Any]) -> None:
    both = [dataset(tmp_path, told), dataset(tmp_path, {"ep0": {"instruction": "lift"}}, name="other")]
    loader = Loader(both, batch_size=44, num_workers=0)
    seen = {
        (e, t) for _ in range(20) for b in loader for e, t in zip(b["episode_index"].tolist(), b["task"], strict=True)
    }
    assert {text for episode, text in seen if episode == 3} == {"lift"}
    assert {text for episode, text in seen if episode == 0} == set(PARAPHRASES)
    assert loader.instructions == ["pick", "put", "lift", "take", "grab"]


STEPS = ["reach", "", "grasp the grün cup", "Ω"]


@pytest.mark.parametrize(
    ("shard_format", "codec"), [("zarr", "zstd"), ("zarr", "none"), ("npz", "deflate"), ("npz", "none")]
)
@pytest.mark.parametrize("packed", [False, True])
def test_text_of_the_row_comes_before_that_of_the_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_format: str, codec: str, packed: bool
) -> None:
    if packed:
        monkeypatch.setattr(shard_table, "WAIT_BYTES", -1)
    told = {f"ep{i}": {"instruction": f"whole {i}"} for i in range(4)}
    data = dataset(
        tmp_path,
        told,
        texts=STEPS,
        instruction='column = "robot/step"',
        shard_format=shard_format,
        codec=codec,
        shard_bytes=100,
    )
    assert len(data.manifest.shards) == 2
    for batch in (batch for size in (7, 44) for batch in Loader(data, batch_size=size, num_workers=0)):
        frames = zip(batch["episode_index"].tolist(), batch["frame_index"].tolist(), batch["task"], strict=True)
        for episode, row, text in frames:
            assert text == (STEPS[row % 4] or f"whole {episode}")
    frames_dataset = vlapipe.torch_dataset(data)
    loaded = DataLoader(frames_dataset, batch_size=4, collate_fn=frames_dataset.collate)  # type: ignore[attr-defined]
    assert {text for batch in loaded for text in batch["task"]} >= {"reach", "whole 1", "Ω"}


def test_rows_texts_of_datasets_with_other_widths_or_without_any(tmp_path: Path) -> None:
    made = [
        dataset(tmp_path, {"ep0": {"instruction": "a"}}, name="a", texts=["left"], instruction='column = "robot/step"'),
        dataset(tmp_path, {"ep0": {"instruction": "b"}}, name="b"),
        dataset(
            tmp_path,
            {"ep0": {"instruction": "c"}},
            name="c",
            texts=["right", ""],
            instruction='column = "robot/step"',
            width=7,
        ),
    ]
    seen = {
        (e, t) for b in Loader(made, batch_size=8) for e, t in zip(b["episode_index"].tolist(), b["task"], strict=True)
    }
    assert seen == {(0, "left"), (1, "b"), (2, "right"), (2, "c")}


MANY: dict[str, Any] = {
    f"t{i % 2}/ep{i}": {"operator": ("ann", "bob", "test")[i % 3], "success": i % 4 != 0} for i in range(12)
}
NO_ONE = 'operator == "test" and operator == "ann"'


def test_where_chooses_episodes_within_the_split(tmp_path: Path) -> None:
    data = dataset(tmp_path, MANY, val=0.4)
    every = set(range(12))
    operator = data.episodes["metadata/operator"].to_pylist()
    success = data.episodes["metadata/success"].to_pylist()
    wanted = {i for i in every if success[i] and operator[i] != "test"}
    seen = {}
    for split in ("train", "val"):
        loader = Loader(data, batch_size=4, split=split, where='success and operator != "test"', num_workers=0)
        seen[split] = {episode for batch in loader for episode in batch["episode_index"].tolist()}
        of_split = {i for i in wanted if data.column("split")[i] == split}
        assert seen[split] == of_split
        assert loader.num_frames == 11 * len(of_split)
        assert loader.num_left_out == 0
        frames = vlapipe.torch_dataset(data, split=split, where='success and operator != "test"')
        assert len(frames) == loader.num_frames
    assert seen["train"]
    assert seen["val"]
    stream = vlapipe.torch_dataset(data, iterable=True, batch_size=4, where="success")
    assert {e for batch in stream for e in batch["episode_index"].tolist()} <= {i for i in every if success[i]}


def test_where_over_several_datasets_and_what_cannot_be_meant(tmp_path: Path) -> None:
    both = [dataset(tmp_path, MANY), dataset(tmp_path, {"ep0": {"robot": "left"}, "ep1": None}, name="other")]
    loader = Loader(both, batch_size=8, where='operator == "ann" or robot == "left"')
    seen = {episode for batch in loader for episode in batch["episode_index"].tolist()}
    assert len(seen & set(range(12))) == 4
    assert seen - set(range(12)) == {12}
    for where, told in (
        ("operater == 'ann'", r"Loader where: no metadata key or column 'operater' \(did you mean 'operator'\?\)"),
        (NO_ONE, "fits none of 14 episodes .operator is "),
        ("sources == 3", "no metadata key or column 'sources'"),
    ):
        with pytest.raises(UsageError, match=told):
            Loader(both, where=where)


def test_state_of_another_where_is_refused(tmp_path: Path) -> None:
    data = dataset(tmp_path, MANY)
    state = Loader(data, where='operator == "ann"').state_dict()
    again = Loader(data, where='operator == "ann"')
    again.load_state_dict(state)
    with pytest.raises(UsageError, match="loader state: where was"):
        Loader(data, where='operator == "bob"').load_state_dict(state)
    with pytest.raises(UsageError, match=r"num_frames was|where was"):
        Loader(data).load_state_dict(state)
    plain = Loader(data).state_dict()
    assert "where" not in plain  # as in earlier versions, whose states are read too
    Loader(data).load_state_dict(plain)


@pytest.mark.parametrize("nested", [False, True])
def test_weights_by_metadata_are_exact(tmp_path: Path, nested: bool) -> None:
    data = dataset(tmp_path, MANY)
    of_operator, of_success = {"ann": 2.0, "test": 0.0}, {"false": 0.5}
    weights: dict[str, Any] = {"metadata.operator": of_operator, "metadata.success": of_success}
    if nested:
        weights = {"metadata": {"operator": of_operator, "success": of_success}}
    loader = Loader(data, batch_size=4, weights=weights, num_workers=0)
    counts: Counter[int] = Counter()
    for _ in range(8):
        for batch in loader:
            counts.update(batch["episode_index"].tolist())
    operator = data.episodes["metadata/operator"].to_pylist()
    success = data.episodes["metadata/success"].to_pylist()
    factor = np.array([of_operator.get(o, 1.0) * (1.0 if s else 0.5) for o, s in zip(operator, success, strict=True)])
    drawn = np.array([counts[i] for i in range(12)])
    assert np.abs(drawn - factor / factor.sum() * drawn.sum()).max() < 4
    for wrong, told in (
        ({"metadata.operater": {"ann": 1}}, r"no metadata key 'operater' .*did you mean 'operator'"),
        ({"metadata.operator": {"anne": 1}}, "no metadata.operator 'anne' .*did you mean 'ann'"),
        ({"operator": {"ann": 1}}, "unknown kind 'operator'"),
        ({"metadata.operator": 2}, "metadata.operator: expected a table"),
    ):
        with pytest.raises(UsageError, match=told):
            Loader(data, weights=wrong)
