"""The ``vlapipe`` command: maps options to a config, calls the room that does the work, and prints the result."""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import json
import re
import signal
import sys
import tomllib
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import click

import vlapipe
from vlapipe.commands.compact import compact
from vlapipe.commands.diff import diff
from vlapipe.commands.generations import edit, log, merge
from vlapipe.commands.generations import gc as remove_old
from vlapipe.commands.inspect import inspect
from vlapipe.commands.options import BYTES, DATASET, FOLDER, PATH
from vlapipe.commands.verify import repair, verify
from vlapipe.schemas.errors import UsageError, VlapipeError
from vlapipe.schemas.output_file import require_folder_of, write_text
from vlapipe.schemas.paths import local_path
from vlapipe.schemas.registry import built_in_schemas, load_schema
from vlapipe.schemas.renamed import RenamedWarning
from vlapipe.schemas.surroundings import stopped_by

__all__ = ["main"]


class _NumberOrAuto(click.ParamType[int | str]):
    """A whole number, or the word auto."""

    name = "number or auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        return "auto" if value == "auto" else click.INT.convert(value, param, ctx)


class _ImageSize(click.ParamType[tuple[int, int]]):
    """Width and height in pixels, such as 224x224."""

    name = "image size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", str(value).strip())
        if match is None:
            self.fail(f"{value!r} is not a size in pixels; write for example 224x224 (width, height)", param, ctx)
        return int(match[1]), int(match[2])


_ABOUT_PATHS = {
    errno.EEXIST,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ENOTEMPTY,
}
_OBJECTS_BETWEEN_COLLECTIONS = 50_000


@click.group(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda token: token.replace("_", "-"),  # --batch_size works as --batch-size
        "max_content_width": 110,
    }
)
@click.version_option(vlapipe.__version__, prog_name="vlapipe")
def cli() -> None:
    """Folders of robot demonstrations in, validated shards and a trained policy out.

    \b
    vlapipe demo raw/                              make a small raw dataset to play with
    vlapipe ingest --dataset raw/ --dry-run        check it, write nothing
    vlapipe ingest --dataset raw/ --out data/      write shards and a manifest; later, add what is new
    vlapipe inspect data/                          look at what came of it
    vlapipe diff monday/ today/                    what changed between two datasets
    vlapipe edit data/ --drop EPISODE              leave an episode out; nothing is lost
    vlapipe merge data/ other/                     add the episodes of another dataset; shards are linked
    vlapipe log data/                              who changed what, and when
    vlapipe compact data/                          join many small shards into few
    vlapipe gc data/ --keep 3                      remove older generations
    vlapipe verify data/                           compare every byte with what was written
    vlapipe repair data/ --source raw/             make damaged files again
    vlapipe train --data data/ --out run/          train a policy
    vlapipe export data/ lerobot/ --to lerobot     write it in the format of another project
    vlapipe serve run/                             let a robot ask the policy

    Exit codes: 0 good; 1 finished, but episodes were rejected or damage was found; 2 wrong usage; 3 not a dataset;
    4 made by a newer format; 5 stopped by its surroundings (disk, quota, memory, network, worker): the same command
    goes on.
    """


@cli.command()
@click.option("--dataset", type=FOLDER, help="Folder of episode folders, at any depth; here or at s3://.")
@click.option("--dir", "episode", type=FOLDER, help="One episode's folder or file, instead of --dataset.")
@click.option(
    "--out", type=FOLDER, help="Where the dataset goes: a new or empty folder, or one to finish or to add to."
)
@click.option("--dry-run", is_flag=True, help="Read and check everything, write nothing. Says whether --out has room.")
@click.option("--schema", default="meca500", show_default=True, help="Built-in name or TOML file.")
@click.option("--where", help="Keep only episodes of which this is true: 'success and operator != \"test\"'.")
@click.option("--format", "shard_format", default="zarr", show_default=True, help="Kind of shard: zarr or npz.")
@click.option("--codec", help="NAME or NAME:LEVEL. zarr: zstd, lz4, pcodec, none; npz: deflate, none.")
@click.option("--workers", type=int, help="Episodes read at once. Default: one a core.")
@click.option("--scheduler", help="Use a running Dask cluster: tcp://host:port.")
@click.option(
    "--scheduler-timeout",
    type=float,
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="End if the cluster has no worker for so long.",
)
@click.option(
    "--episode-timeout",
    type=float,
    default=1800,
    show_default=True,
    metavar="SECONDS",
    help="Set an episode aside that occupies a worker for so long.",
)
@click.option("--shard-size", type=BYTES, default="256MB", show_default=True, help="About how large a shard is.")
@click.option("--image-size", type=_ImageSize(), metavar="WxH", help="Resize images. Default: kept as recorded.")
@click.option(
    "--image-storage",
    default="recorded",
    show_default=True,
    help="recorded (JPEG and PNG untouched, arrays as pixels, videos as JPEG), jpeg, png, or raw pixels.",
)
@click.option("--image-quality", type=int, default=95, show_default=True, help="Of JPEG files that are made: 1 to 100.")
@click.option("--strict", is_flag=True, help="Stop at the first episode with an error.")
@click.option("--prune", is_flag=True, help="Into a finished dataset: also remove episodes whose recordings are gone.")
@click.option("--note", help="A remark that vlapipe log shows.")
@click.option("--report", type=PATH, help="Also write everything that was found to this file: JSON, or a page (.html).")
def ingest(
    dataset: Path | None,
    episode: Path | None,
    out: Path | None,
    dry_run: bool,
    schema: str,
    where: str | None,
    shard_format: str,
    codec: str | None,
    workers: int | None,
    scheduler: str | None,
    scheduler_timeout: float,
    episode_timeout: float,
    shard_size: int,
    image_size: tuple[int, int] | None,
    image_storage: str,
    image_quality: int,
    strict: bool,
    prune: bool,
    note: str | None,
    report: Path | None,
) -> None:
    """Check raw episodes and write them as compressed shards with a manifest.

    Episodes with errors are set aside with every reason (rejects.jsonl) and the exit code is 1. A run that was killed,
    or stopped by a full disk and the like (exit code 5), is finished by the same command. Into a finished dataset it
    adds what is new, as the next generation; if nothing is, it has nothing to do and exits 0.
    """
    # Imports and readers make no reference cycles. Collecting garbage every 700 objects (Python's default) takes 30 ms
    # at the start, and 30 ms more for each 250 MB read.
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    from vlapipe.pipeline.ingest import IngestConfig
    from vlapipe.pipeline.ingest import ingest as run
    from vlapipe.pipeline.show.ingest_text import print_ingest_report

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C: workers end and leave no files behind
    if (dataset is None) == (episode is None):
        raise UsageError("give either --dataset DIR or --dir EPISODE", "--dataset holds many episodes, --dir is one")
    config = IngestConfig(
        source=dataset or episode or Path(),
        single_episode=episode is not None,
        out=out,
        dry_run=dry_run,
        schema=schema,
        where=where,
        shard_format=shard_format,
        codec=codec,
        shard_bytes=shard_size,
        image_size=image_size,
        image_storage=image_storage,
        image_quality=image_quality,
        workers=workers,
        scheduler=scheduler,
        scheduler_timeout_s=scheduler_timeout,
        episode_timeout_s=episode_timeout,
        strict=strict,
        prune=prune,
        note=note,
    )
    if report is not None:
        require_folder_of(report, "--report")
    result = run(config)
    print_ingest_report(result, dry_run=dry_run)
    if report is not None and report.suffix in (".html", ".htm"):
        from vlapipe.pipeline.report.write import write_ingest_report

        write_ingest_report(result, report, dry_run=dry_run)
    elif report is not None:
        write_text(report, result.to_json())
    result.require_room(out)
    if result.has_errors and not result.was_finished:
        sys.exit(1)


cli.add_command(inspect)
cli.add_command(diff)
cli.add_command(log)
cli.add_command(edit)
cli.add_command(compact)
cli.add_command(merge)
cli.add_command(remove_old)


@cli.group()
def schema() -> None:
    """Write, check and show schemas: what your files are."""


@schema.command("list")
def schema_list() -> None:
    """Name the built-in schemas."""
    from vlapipe.pipeline.layouts.layouts import SELF_DESCRIBED

    for name in built_in_schemas():
        click.echo(f"{name:16s} {load_schema(name).description}")
    for name, description in SELF_DESCRIBED.items():
        click.echo(f"{name:16s} {description}")


@schema.command("show")
@click.argument("name")
@click.option("--dataset", type=PATH, help="The dataset that a schema such as lerobot is made from.")
def schema_show(name: str, dataset: Path | None) -> None:
    """Print a schema's TOML, to read or to start your own from."""
    from vlapipe.pipeline.layouts.layouts import schema_of

    click.echo(schema_of(name, dataset).toml, nl=False)


@schema.command("infer")
@click.argument("path", type=PATH)
@click.option("--out", type=PATH, help="Write the schema to this file instead of printing it.")
@click.option(
    "--accept", is_flag=True, help="Take the guess where a question is left: the exit code is 0 all the same."
)
@click.option("--lexicon", type=PATH, help="A TOML file with names and units of your own, added to the built-in ones.")
def schema_infer(path: Path, out: Path | None, accept: bool, lexicon: Path | None) -> None:
    """Look at recordings that nobody has described and write a schema that ingests them.

    What was guessed, and why, stands in its comments and on stderr. The exit code is 1 if a question is left that only
    you can answer, or if the first episodes, read by that schema, have faults all the same.
    """
    from vlapipe.pipeline.infer.infer import infer_schema

    found = infer_schema(path, lexicon=lexicon)
    if out is None:
        click.echo(found.toml, nl=False)
    else:
        write_text(out, found.toml)
    for reason in found.reasons:
        click.echo(reason, err=True)
    for fault in found.faults:
        click.echo(f"fault: {fault}", err=True)
    for question in found.questions:
        click.echo(f"{'taken' if accept else 'question'}: {question}", err=True)
    name = out or "FILE.toml"
    if found.faults:
        click.echo(f"it does not fit yet; correct it, then: vlapipe schema check {name} {path}", err=True)
        sys.exit(1)
    if found.questions and not accept:
        click.echo(f"the first answer of each question is taken in {name}: correct it there, or say --accept", err=True)
        sys.exit(1)
    click.echo(f"next: vlapipe ingest --dataset {path} --schema {name} --out OUT", err=True)


@schema.command("check")
@click.argument("name", metavar="SCHEMA")
@click.argument("path", type=PATH)
@click.option("--episodes", default=3, show_default=True, type=click.IntRange(1), help="Episodes to try.")
def schema_check(name: str, path: Path, episodes: int) -> None:
    """Try a schema on the first episodes of PATH and explain each fault.

    Exit codes: 0 good; 1 faults; 2 the schema itself is wrong, or there is no such folder.
    """
    from vlapipe.pipeline.infer.check import check_schema
    from vlapipe.pipeline.layouts.layouts import schema_of

    report = check_schema(path, schema_of(name, path), num_episodes=episodes)
    for line in report.lines:
        click.echo(line)
    if not report.good:
        sys.exit(1)


@cli.command()
@click.argument("dataset", type=DATASET, metavar="DATASET|RUN")
@click.argument("out", type=PATH)
@click.option(
    "--to",
    default="lerobot",
    show_default=True,
    help="A dataset: lerobot (format v3.0) or hdf5 (robomimic). A run's policy: torch or onnx.",
)
@click.option("--where", help="Export only episodes of which this is true: 'success and operator != \"test\"'.")
@click.option("--fps", type=float, help="The one rate of all frames. Default: the anchor's rate in the schema.")
@click.option("--video", help="Encode images: h264 or av1. Default: each image as it is, without loss.")
@click.option("--cameras", multiple=True, help="A camera; again for more. Default: those of a sample.")
@click.option("--workers", type=int, help="Episodes made at once. Default: one a core.")
@click.option("--cache-dir", type=PATH, help="Where shards are unpacked, if not in the dataset.")
@click.option("--report", type=PATH, help="Also write what was done to this JSON file.")
def export(
    dataset: Path,
    out: Path,
    to: str,
    where: str | None,
    fps: float | None,
    video: str | None,
    cameras: tuple[str, ...],
    workers: int | None,
    cache_dir: Path | None,
    report: Path | None,
) -> None:
    """Write DATASET in the format of another project: OUT is a new folder for lerobot, a new file for hdf5.

    Or write the policy of RUN as one file that runs without vlapipe (--to torch, --to onnx); outputs are compared.

    All streams come to one rate, and the command says what that changed. Everything written is read back and compared.
    An export that was killed, or stopped by a full disk and the like (exit code 5), is finished by the same command.
    """
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    from vlapipe.pipeline.export.export import ExportConfig, run_export
    from vlapipe.pipeline.show.export_text import print_export_report

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C: temporary files are removed
    if report is not None:
        require_folder_of(report, "--report")
    if to in ("torch", "onnx"):
        given = click.get_current_context().get_parameter_source
        for name in ("where", "fps", "video", "cameras", "workers", "cache_dir", "report"):
            if given(name) is not click.core.ParameterSource.DEFAULT:
                raise UsageError(f"--{name.replace('_', '-')} is for datasets", f"leave it out with --to {to}")
        _export_policy(dataset, out, to)
        return
    config = ExportConfig(
        dataset=dataset,
        out=out,
        to=to,
        where=where,
        fps=fps,
        video=video,
        cameras=cameras or None,
        workers=workers,
        cache_dir=cache_dir,
    )
    done = run_export(config)
    print_export_report(done)
    if report is not None:
        write_text(report, done.to_json())


def _export_policy(run: Path, out: Path, to: str) -> None:
    with _needing_torch("export"):
        from vlapipe.train.checkpoint.saved_policy import load_policy
        from vlapipe.train.robot.policy_export import export_policy

    require_folder_of(out)
    policy = load_policy(run)
    done = export_policy(policy, policy.runner.spec, to, out)
    for note in done.notes:
        click.echo(note)
    click.echo(
        f"{done.path}: {done.num_bytes / 1e6:,.1f} MB, takes {', '.join(done.inputs)}; its outputs are those of the "
        f"policy within {done.difference:.1g} standard deviations"
    )


@cli.group()
def cache() -> None:
    """The shards that are unpacked for training; they may be removed at any time, and are unpacked again."""


_CACHE_DIR = click.option("--cache-dir", type=PATH, help="Where shards are unpacked, if not in the dataset.")


@cache.command("show")
@click.argument("dataset", type=DATASET, required=False)
@_CACHE_DIR
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def cache_show(dataset: Path | None, cache_dir: Path | None, as_json: bool) -> None:
    """Say what is unpacked: how many shards, how many bytes, when they were last used, and whether they are in use.

    Without DATASET every dataset that is unpacked in --cache-dir, $VLAPIPE_CACHE_DIR or the user's own cache.
    """
    from vlapipe.pipeline.show.cache_report import CacheChoice, cache_lines, describe_cache

    report = describe_cache(CacheChoice.of(dataset, cache_dir))
    click.echo(json.dumps(report, indent=1) if as_json else "\n".join(cache_lines(report)))


@cache.command("clear")
@click.argument("dataset", type=DATASET, required=False)
@_CACHE_DIR
def cache_clear(dataset: Path | None, cache_dir: Path | None) -> None:
    """Remove the unpacked shards that no process uses, of DATASET or of all; nothing else in the folder is touched."""
    from vlapipe.pipeline.show.cache_report import CacheChoice, clear_cache
    from vlapipe.pipeline.show.readable_numbers import counted, format_bytes

    cleared = clear_cache(CacheChoice.of(dataset, cache_dir))
    in_use = f"; {counted(cleared['num_in_use'], 'shard')} in use, not removed" if cleared["num_in_use"] else ""
    click.echo(
        f"{cleared['folder']}: {counted(cleared['num_removed'], 'shard')} removed, "
        f"{format_bytes(cleared['freed_bytes'])} freed{in_use}"
    )


@cli.command()
@click.argument("directory", type=PATH)
@click.option("--episodes", default=24, show_default=True, type=click.IntRange(1), help="Good episodes to make.")
@click.option("--seed", default=0, show_default=True, help="The same seed makes the same bytes.")
@click.option("--defects", is_flag=True, help="Also plant episodes with a fault each (planted_defects.json).")
def demo(directory: Path, episodes: int, seed: int, defects: bool) -> None:
    """Make a small raw dataset: a simulated arm puts a needle into the target that the instruction names."""
    from vlapipe.pipeline.demo import make_demo

    report = make_demo(directory, num_episodes=episodes, seed=seed, defects=defects)
    planted = f" and {len(report.defects)} with a fault (planted_defects.json)" if report.defects else ""
    click.echo(
        f"{report.directory}: {report.num_episodes} good episodes{planted}, "
        f"{report.num_files:,} files, {report.num_bytes / 1e6:,.0f} MB raw"
    )
    click.echo(f"next: vlapipe ingest --dataset {report.directory} --out OUT")


_WINDOW_FLAGS = {  # each is a key of [sample]
    "state": "A field of the state, STREAM/FIELD; again for more.",
    "sensors": "A sensor, NAME=STREAM/FIELD; again for more.",
    "cameras": "A camera; again for more. Default: all.",
    "state_rows": "Rows of the state up to the frame.",
    "sensor_rows": "Rows of each sensor.",
    "image_rows": "Images of each camera.",
    "action_rows": "Actions of a chunk, from the frame on.",
    "state_stride": "Every so many-th row.",
    "sensor_stride": "Every so many-th row.",
    "image_stride": "Every so many-th image.",
    "action_stride": "Every so many-th row.",
    "state_s": "Seconds of the state, at any rate.",
    "sensor_s": "Seconds of each sensor.",
    "image_s": "Seconds of each camera.",
    "action_s": "Seconds of a chunk, at any rate.",
    "ahead_rows": "Observations after the frame too: T actions lie between T + 1 of them.",
    "action_form": "absolute (as recorded), relative to the frame's state, or delta.",
    "rotation": "Of the actions: quaternion, 6d, axis_angle or sin_cos.",
}
_LISTED = ("state", "sensors", "cameras")


def _window_flags(command: Any) -> Any:
    """Add the flags that choose what a sample holds."""
    for name, text in reversed(_WINDOW_FLAGS.items()):
        kind = int if name.endswith(("_rows", "_stride")) else float if name.endswith("_s") else str
        is_listed = name in _LISTED
        command = click.option(f"--{name.replace('_', '-')}", type=kind, multiple=is_listed, help=text)(command)
    return command


def _sample_of(options: dict[str, Any]) -> dict[str, Any]:
    """Take the flags of ``_WINDOW_FLAGS`` out of ``options`` and return them as a ``[sample]`` table."""
    given = {name: options.pop(name) for name in _WINDOW_FLAGS}
    sample = {name: value for name, value in given.items() if value not in (None, ())}
    for name in _LISTED:
        if name in sample:
            sample[name] = list(sample[name])
    if "sensors" in sample:
        pairs = [text.partition("=") for text in sample["sensors"]]
        if not all(path for _, _, path in pairs):
            raise UsageError("--sensors: expected NAME=STREAM/FIELD", "for example --sensors force=sensor/force")
        sample["sensors"] = {name: path for name, _, path in pairs}
    return sample


@cli.command()
@click.option("--data", type=FOLDER, multiple=True, help="A dataset that vlapipe ingest wrote; again for more.")
@click.option("--out", type=PATH, help="The run's folder: checkpoints and metrics.jsonl.")
@click.option("--config", type=PATH, help="TOML file of these options (with _ for -); flags go over it.")
@click.option("--policy", help="regression (default), or your own as pkg.module:Class.")
@click.option("--init", type=PATH, help="Begin with the weights of another run, or of one of its checkpoints.")
@click.option("--batch-size", type=_NumberOrAuto(), help="Samples a rank and pass, or auto. Default 64.")
@click.option("--grad-accum", type=int, help="Passes a step; a step sees batch x accumulation x ranks. Default 1.")
@click.option("--num-workers", type=int, help="Threads that prepare batches. Default: as many as it takes.")
@click.option("--prefetch-factor", type=int, help="Batches kept ready ahead. Default 6.")
@click.option("--where", help="Read only episodes of which this is true: 'success and operator != \"test\"'.")
@click.option("--shuffle-shards", type=int, help="Mix this many shards at a time: for data larger than memory.")
@click.option("--augment/--no-augment", default=None, help="Vary training images (default): shift and colour.")
@click.option("--image-resize", help="How images come to another size: stretch (default), crop, or pad with black.")
@click.option("--image-resize-height", type=int, help="Train on images of this height; give the width too.")
@click.option("--image-resize-width", type=int, help="Train on images of this width.")
@click.option("--precision", help="bf16, fp32, or auto (default): bf16 on a GPU that computes in it, else fp32.")
@click.option(
    "--compile", "compile_mode", is_flag=False, flag_value="default", help="torch.compile, or --compile max-autotune."
)
@click.option("--attention", help="Kernel of attention: auto (default), flash, efficient, math or cudnn.")
@click.option("--gradient-checkpointing", is_flag=True, default=None, help="Less memory, a little slower.")
@click.option(
    "--parallel", help="How several ranks share the policy: ddp (default: a copy each), fsdp (a part each), hsdp."
)
@click.option("--hang-timeout-s", type=float, help="Seconds until all ranks end if one hangs. Default 40; 0 never.")
@click.option("--deterministic", is_flag=True, default=None, help="The same numbers each run, at some speed.")
@click.option("--resume", is_flag=True, default=None, help="Go on exactly where the run in --out stopped.")
@click.option("--wandb", help="offline (default), online, or disabled.")
@click.option("--tensorboard", is_flag=True, default=None, help="Also write OUT/tensorboard.")
@click.option(
    "--profile", type=int, is_flag=False, flag_value=3, help="Trace 3 steps with torch's profiler, or as many as said."
)
@click.option("--epochs", type=float, help="How often the run reads each training frame. Default 20.")
@click.option("--max-steps", type=int, help="Steps of the optimizer, in place of --epochs.")
@click.option("--decay-steps", type=int, help="Steps in which the learning rate falls. Default: --max-steps.")
@click.option("--learning-rate", type=float, help="Its highest, after the warm-up. Default 1e-3.")
@click.option("--schedule", help="Of the learning rate: warmup-cosine (default), constant, linear, or wsd.")
@click.option("--ema", type=float, help="Average the weights with this decay, say 0.999, and validate the average.")
@click.option("--eval-every", type=int, help="Steps between validations on held-out episodes.")
@click.option("--eval-env", help="Also act in this environment: demo, or your own as pkg.module:make_env.")
@click.option("--eval-env-every", type=int, help="Steps between that. Default: after the last step.")
@click.option("--save-every", type=int, help="Steps between checkpoints.")
@click.option("--async-save", is_flag=True, default=None, help="Write checkpoints while the run goes on.")
@click.option("--keep-best", type=int, help="Best checkpoints that are kept besides the newest two. Default 1.")
@click.option("--keep-every", type=int, help="Keep each checkpoint whose step is a multiple of this for good.")
@click.option("--cache-dir", type=PATH, help="Where shards are unpacked once, say a scratch disk. Default: in DATA.")
@click.option("--cache-size", type=BYTES, help="About how much unpacked shards may take there, say 50GB.")
@click.option("--seed", type=int, help="Of weights and order. Default 0.")
@_window_flags
def train(compile_mode: str | None, config: Path | None, **options: Any) -> None:
    """Train a policy from a dataset; metrics go to OUT/metrics.jsonl, a line a step, and to W&B.

    On several GPUs: torchrun --nproc-per-node=4 -m vlapipe train ... ; options not shown here go into --config, and
    docs/options.md describes them all.
    """
    with _needing_torch("train"):
        from vlapipe.train.config import TrainConfig
        from vlapipe.train.loop import train as run
        from vlapipe.train.result import print_train_result

    result = run(TrainConfig.from_sources(config, _flags(compile_mode, options)))
    if result.rank == 0:
        print_train_result(result)


# Options of ``train`` that decide how fast a step is; the rest of them can be set in the --config file.
_OF_SPEED = (
    *("data", "config", "policy", "batch_size", "grad_accum", "num_workers", "prefetch_factor", "shuffle_shards"),
    *(
        "augment",
        "image_resize",
        "image_resize_height",
        "image_resize_width",
        "precision",
        "compile_mode",
        "gradient_checkpointing",
    ),
    *("attention", "parallel", "deterministic", "cache_dir", "cache_size", *_WINDOW_FLAGS),
)


@cli.command(params=[option for option in train.params if option.name in _OF_SPEED])
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), default=10, show_default=True, help="Of each of the three."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def bench(compile_mode: str | None, config: Path | None, seconds: float, as_json: bool, **options: Any) -> None:
    """Measure this machine with a dataset: the loader alone, the policy alone, both together; keep nothing.

    Says whether data or compute is the limit, and by how much. Options are those of vlapipe train; try --batch-size,
    --precision, --compile or smaller images. On several GPUs: torchrun --nproc-per-node=4 -m vlapipe bench ...
    """
    with _needing_torch("bench"):
        from vlapipe.train.bench import bench as run

    result = run(config, _flags(compile_mode, options), seconds=seconds)
    if result.rank == 0:
        click.echo(json.dumps(result.to_json(), indent=1) if as_json else "\n".join(result.lines()))


@cli.command()
@click.argument("run", type=PATH)
@click.option("--checkpoint", default="newest", show_default=True, help="newest, or best by the run's best_metric.")
@click.option("--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--execute", type=int, help="Actions used before the policy is asked again. Default: all of a chunk.")
@click.option(
    "--ensemble", type=float, is_flag=False, flag_value=0.01, help="Average the chunks, weights exp(-ENSEMBLE i)."
)
@click.option("--embodiment", help="Which robot, if the policy was trained on several.")
@click.option("--strict", is_flag=True, help="Refuse an unknown instruction and a state far from those of training.")
def serve(
    run: Path,
    checkpoint: str,
    port: int,
    execute: int | None,
    ensemble: float | None,
    embodiment: str | None,
    strict: bool,
) -> None:
    """Let robots on this machine ask the policy of RUN: observations in, actions out, over HTTP, until Ctrl-C.

    Each connection is one robot with a history of its own. vlapipe/train/robot/client.py is the client; see
    docs/robot.md. To ask from another machine, forward the port: ssh -L 8765:127.0.0.1:8765 THIS-MACHINE
    """
    with _needing_torch("serve"):
        from vlapipe.train.checkpoint.saved_policy import load_policy
        from vlapipe.train.robot.server import PolicyServer

    def say(sentence: str) -> None:
        click.echo(sentence, err=True)

    runner = load_policy(run, checkpoint=checkpoint).runner
    make_runner = partial(runner, execute=execute, ensemble=ensemble, embodiment=embodiment, strict=strict)
    with PolicyServer(make_runner, port=port, say=say) as server:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C
        click.echo(f"{server.spec}\nlistening on http://127.0.0.1:{server.port} (Ctrl-C ends it)", err=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.1)
        say(f"ended after {server.num_steps:,} steps")


@cli.command("eval")
@click.argument("run", type=PATH)
@click.option("--env", "environment", help="Act in closed loop: in demo, or in your own pkg.module:make_env.")
@click.option("--data", type=DATASET, help="Compare with the recorded actions of this dataset.")
@click.option("--checkpoint", default="newest", show_default=True, help="newest or best.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@click.option("--episodes", default=50, show_default=True, type=click.IntRange(1), help="--env: number of episodes.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="--env: which episodes.")
@click.option("--env-arg", multiple=True, metavar="KEY=VALUE", help="--env: a keyword for it; again for more.")
@click.option("--execute", type=click.IntRange(1), help="--env: actions used of a chunk. Default: all.")
@click.option("--ensemble", type=float, help="--env: average overlapping chunks with this weight; 0.01 as in ACT.")
@click.option("--films", default=10, show_default=True, type=click.IntRange(0), help="--env: failures to draw.")
@click.option("--split", default="val", show_default=True, help="--data: val or train.")
@click.option(
    "--frames", default=2000, show_default=True, type=click.IntRange(1), help="--data: about how many frames."
)
@click.option("--pages", default=6, show_default=True, type=click.IntRange(0), help="--data: episodes to draw.")
def evaluate(
    run: Path,
    environment: str | None,
    data: Path | None,
    checkpoint: str,
    as_json: bool,
    split: str,
    frames: int,
    pages: int,
    env_arg: tuple[str, ...],
    **options: Any,
) -> None:
    """Evaluate a trained policy: in closed loop (--env), or beside the recorded actions of a dataset (--data).

    Results, film strips and plots go to RUN/eval. docs/evaluation.md says what the figures mean, and how an environment
    of your own is given.
    """
    local_path(run)
    if data is not None:
        local_path(data, "--data")
    if environment is None and data is None:
        raise UsageError("vlapipe eval: of what?", "--data DATASET, or --env demo for the demo's own simulation")
    with _needing_torch("eval"):
        from vlapipe.train.evaluation.saved_run import evaluate_in_environment, evaluate_on_dataset

    results: list[Any] = []
    if data is not None:
        results.append(evaluate_on_dataset(run, data, split=split, frames=frames, pages=pages, checkpoint=checkpoint))
    if environment is not None:
        given = {"arguments": _keywords(env_arg), "checkpoint": checkpoint, **options}
        results.append(evaluate_in_environment(run, environment, **given))
    if as_json:
        found = [result.to_json() for result in results]
        click.echo(json.dumps(found if len(found) > 1 else found[0], indent=1))
    else:
        click.echo("\n\n".join("\n".join(result.lines()) for result in results))


cli.add_command(verify)
cli.add_command(repair)


def _keywords(texts: tuple[str, ...]) -> dict[str, Any]:
    """Returns the values of KEY=VALUE, each as TOML reads it, or else as the text that it is."""
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (equals and key.isidentifier()):
            raise UsageError(f"--env-arg {text}: expected KEY=VALUE", "for example --env-arg images=blank")
        try:
            found[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key] = value
    return found


@contextlib.contextmanager
def _needing_torch(command: str) -> Iterator[None]:
    """Explain that the block, which imports the trainer, cannot be run without torch."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("torch", "safetensors"):
            raise
        cure = "in the checkout of vlapipe: pip install '.[train]' -c constraints.txt"
        raise UsageError(f"vlapipe {command} needs {error.name}, which is not installed", cure) from None


def _flags(compile_mode: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Returns flags by the names of the options of training; None for a flag that was not given."""
    sample = _sample_of(options) if "state_rows" in options else {}
    return {**options, "data": options["data"] or None, "compile": compile_mode, "sample": sample or None}


def main() -> None:
    """Runs the command. A user's mistake ends in one line and an exit code, never in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # not every name is text, nor known to the terminal
    warnings.showwarning = _show_warning
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.stderr.write("vlapipe: interrupted\n")
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except VlapipeError as error:
        sys.stderr.write(f"vlapipe: {error}\n")
        sys.exit(error.exit_code)
    except (OSError, MemoryError) as error:
        ended = _ended_by(error)
        sys.stderr.write(f"vlapipe: {ended}\n")
        sys.exit(ended.exit_code)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Writes a warning meant for the user as one line, and any other warning as Python does."""
    ours = issubclass(category, RenamedWarning)
    text = f"vlapipe: {message}\n" if ours else warnings.formatwarning(message, category, filename, lineno, line)
    (file or sys.stderr).write(text)


def _ended_by(error: OSError | MemoryError) -> VlapipeError:
    """Returns the error that ends the command: a bad path is the user's mistake, the rest is from the surroundings."""
    if isinstance(error, OSError) and error.errno in _ABOUT_PATHS and isinstance(error.filename, str):
        return UsageError(f"{error.filename}: {error.strerror}", "check the path")
    return stopped_by(error)
