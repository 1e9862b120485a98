"""The benchmarks run on little data. Their figures then mean nothing and are not checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vlapipe

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.slow
def test_ingest_benchmark_gives_every_case_with_its_target(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "bench_ingest.py"), "--small", "--scratch", str(tmp_path)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    results = [json.loads(line) for line in lines]
    assert {(r["case"], r["target"]) for r in results} == {
        ("command", 5.0),
        ("work", 0.8),
        ("small", 1.0),
        ("images", 0.8),
    }
    assert {(r["format"], r["workers"]) for r in results if r["case"] == "command"} == {
        ("zarr", 1),
        ("zarr", 2),
        ("npz", 1),
        ("npz", 2),
    }
    assert all(r["ratio"] > 0 for r in results)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_stored_images_benchmark_gives_every_case() -> None:
    command = [sys.executable, str(BENCHMARKS / "bench_stored_images.py"), "--episodes", "2"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    results = [json.loads(line) for line in lines]
    sizes = {(r["quality"], r["colorsubsampling"]): r["bytes"] for r in results if r["case"] == "encoding"}
    assert len(sizes) == 8
    assert sizes[85, "420"] < sizes[95, "420"] < sizes[95, "444"]
    stored = {r["way"]: r["stored_bytes"] for r in results if r["case"] == "ingest"}
    assert stored["small"] < stored["as recorded"] < stored["small, raw"] < stored["raw"]


@pytest.mark.slow
def test_images_of_a_long_episode_are_not_held_in_memory_whole() -> None:
    command = [sys.executable, str(BENCHMARKS / "bench_long_episode.py"), "--cases", "files", "--share", "0.25"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    results = [json.loads(line) for line in lines]
    assert [result["frames"] for result in results[:2]] == [5000, 10_000]
    assert results[1]["peak_mb"] < 0.75 * results[1]["stored_mb"]


CHOSEN = ("other fields", "chunk of 50 instead of 8", "relative actions", "windows in seconds")


@pytest.mark.slow
def test_containers_benchmark_gives_every_case_with_its_target(tmp_path: Path) -> None:
    options = ["--size", "0.04", "--repeats", "1", "--scratch", str(tmp_path)]
    command = [sys.executable, str(BENCHMARKS / "bench_containers.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    names = ["aloha, JPEG", "aloha, pixels", "robomimic, gzip", "robomimic, pixels", "diffusion_policy, Blosc"]
    assert [line["case"] for line in lines] == names
    assert all(line["ratio"] > 0 and line["target"] == 0.8 for line in lines)


@pytest.mark.slow
def test_infer_benchmark_gives_every_case_with_its_counts(tmp_path: Path) -> None:
    out = tmp_path / "infer.jsonl"
    command = [sys.executable, str(BENCHMARKS / "bench_infer.py"), "--small", "--out", str(out)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert out.read_text() == lines
    results = [line for line in map(json.loads, lines.splitlines()) if line["case"] != "confusion"]
    assert [(r["case"], r.get("half")) for r in results] == [
        ("corpus", "fit"),
        ("corpus", "kept"),
        ("public", None),
        ("files", None),
    ]
    assert all(r["right"] + r["asked"] + r["wrong"] == r["recordings"] == 3 for r in results[:2])
    assert results[3]["files"] == 63


@pytest.mark.slow
def test_loader_benchmark_gives_every_figure_with_its_target(tmp_path: Path) -> None:
    options = ["--scale", "0.001", "--repeat", "1", "--seconds", "0.02", "--out", str(tmp_path / "results.jsonl")]
    (tmp_path / "data").mkdir()
    lines = subprocess.run(
        [sys.executable, str(BENCHMARKS / "bench_loader.py"), *options],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "data")},
    ).stdout
    results = [json.loads(line) for line in lines.splitlines()]
    assert {(r["case"], r["against"], r["target"]) for r in results} == {
        ("a", "whole samples in RAM, PyTorch's collate", 6.0),
        ("a", "whole samples in RAM, the leanest collate", 6.0),
        ("a", "bare slices in RAM", 6.0),
        ("a", "memcpy", 0.6),
        ("b", "HDF5", 10.0),
        ("c", "the original's np.load", 500.0),
        ("c", "memcpy", 0.7),
        ("d", "simplejpeg alone", 0.95),
        ("d", "HDF5 of JPEG bytes", 1.6),
        ("e", "full-size decode, then resize", 1.25),
        ("e", "full-size decode, then resize", 5.0),
        ("f", "memcpy on 2 threads", 0.6),
        ("f", "HDF5 of raw frames", 2.0),
        ("g", "1 s", 1.0),
        ("g", "300 MB, peak of the whole process", 1.0),
        ("g", "300 MB, peak beyond what imports hold", 1.0),
        ("h", "the least of the settings", 1.1),
        ("i", "unpacking everything first", 10.0),
        ("j", "10 ms", 1.0),
        ("k", "the plain way", 0.95),
        ("k", "the plain way", 1.2),
        ("l", "state and action from one table", 0.9),
        ("l", "the same windows in rows", 0.0),
        *(("l", f"5 s to the first batch, {what}", 1.0) for what in CHOSEN),
    }
    assert all(r["ours"] > 0 and r["baseline"] > 0 and r["ratio"] > 0 for r in results)
    assert (tmp_path / "results.jsonl").read_text() == lines
    assert list((tmp_path / "data").iterdir()) == []


def test_what_the_loader_is_measured_against_reads_the_same_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    data = __import__("loader_data")
    peers = __import__("loader_peers")
    hdf5 = __import__("loader_hdf5")
    episodes = data.make_episodes(data.ROBOT, 2500)
    dataset = vlapipe.open_dataset(data.write_dataset(tmp_path / "data", data.ROBOT, episodes))
    batches = list(vlapipe.Loader(dataset, batch_size=500, num_workers=0, shuffle=False))
    ours: dict[tuple[int, int], list[Any]] = {}
    for batch in batches:
        keys = ("observation.state", "action", "observation.state_is_pad", "action_is_pad")
        samples = zip(*(batch[key].numpy() for key in keys), batch["task"], strict=True)
        places = zip(batch["episode_index"].tolist(), batch["frame_index"].tolist(), strict=True)
        ours |= {place: list(sample) for place, sample in zip(places, samples, strict=True)}
    windows = peers.Windows.of(dataset)
    whole = peers.WholeSamples(windows)
    for i in range(400):  # drawn at random, about a tenth of them at the beginning of an episode
        *arrays, episode, frame, _, task = whole[i]
        for theirs, expected in zip([*arrays, task], ours[episode, frame], strict=True):
            np.testing.assert_array_equal(theirs, expected)

    bare = peers.BareSamples(windows)
    path = hdf5.write_hdf5(tmp_path / "data.h5", windows)
    inside = np.flatnonzero(np.isin(windows.row, windows.whole_rows()))
    for samples, _ in [(bare, None), *hdf5.hdf5_ways(path, windows).values()]:
        for i, of_whole in enumerate(inside[:50].tolist()):
            for theirs, expected in zip(samples[i], whole[of_whole][:2], strict=True):
                np.testing.assert_array_equal(theirs, expected)


def run_small(name: str, tmp_path: Path, *more: str) -> list[dict[str, Any]]:
    """Lines of a benchmark of the trainer that runs on as little as it can."""
    out = tmp_path / f"{name}.jsonl"
    options = ["--small", "--episodes", "3", "--turns", "2", "--folder", str(tmp_path / "data"), "--out", str(out)]
    lines = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), *options, *more],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ).stdout
    assert out.read_text() == lines
    return [json.loads(line) for line in lines.splitlines()]


@pytest.mark.slow
def test_benchmarks_of_the_trainer_give_every_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    results = run_small("bench_train", tmp_path, "--steps", "8", "--cases", "overhead,data,loader")
    assert [r["case"] for r in results] == ["overhead", "data", "loader"]
    assert all(r["ratio"] > 0 for r in results if "ratio" in r)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    claims = __import__("guide_table")
    cases = [case for case, *_ in claims.CLAIMS if case != "compile"]  # minutes where nothing is compiled yet
    results = run_small("bench_guide", tmp_path, "--cases", ",".join([*cases, "batch"]))
    assert {r["case"] for r in results} >= {*cases, "batch"} - claims.ONLY_ON_GPU
    page = claims.with_table(claims.PAGE.read_text(), results)
    assert "activations that backward keeps" in page
    rows = [row.split(" | ") for row in page.splitlines() if row.count(" | ") == 4]
    assert [row[0] for row in rows if row[3] == claims.NOT_YET] == ["| torch.compile"]


@pytest.mark.slow
def test_benchmark_of_vla_gives_samples_a_second_beside_the_published_figure(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    out = tmp_path / "vla.jsonl"
    command = [sys.executable, str(BENCHMARKS / "bench_vla.py"), "--tiny", "--cases", "eager;recompute"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--out", str(out)], check=True, capture_output=True, env=environment)
    results = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["case"] for line in results] == ["eager", "recompute"]
    for line in results:
        assert line["fits"]
        assert line["published_per_gpu"] == pytest.approx(261 / 8, rel=1e-3)
        assert line["ratio"] == pytest.approx(line["samples_per_s"] / line["published_per_gpu"], rel=0.01)
        assert line["forward_TFLOP_a_sample"] > 0


def test_page_about_the_guide_holds_the_newest_figures_and_every_case(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    claims, guide = __import__("guide_table"), __import__("bench_guide")
    assert [case for case, *_ in claims.CLAIMS] + ["batch"] == list(guide.CASES)
    page = claims.PAGE.read_text()
    assert page == claims.with_table(page, claims.read_results()), "python benchmarks/guide_table.py --write"
