"""Builds a run from its config: ranks, folder, data, policy, optimizer, logs. Closes all of them at the end."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.schemas.errors import NotADatasetError, UsageError
from vlapipe.train.batch_size import fit_batch_size, joined, require_measurable
from vlapipe.train.checkpoint.files import checkpoint_path, step_of
from vlapipe.train.checkpoint.initial_weights import arguments_of, init_policy
from vlapipe.train.checkpoint.resumed import make_schedule, schedule_note
from vlapipe.train.checkpoint.run_folder import run_folder, save_config
from vlapipe.train.checkpoint.run_state import restore
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.batch_layout import Batch
from vlapipe.train.data.images.augment import Augmentation
from vlapipe.train.data.loader import Loader
from vlapipe.train.data.prefetch import threads_at_most
from vlapipe.train.data.transformed_spec import changes_actions
from vlapipe.train.evaluation.environments import make_environment
from vlapipe.train.faults import stop_if_bad
from vlapipe.train.optim.ema import EMA
from vlapipe.train.optim.groups import freeze_groups
from vlapipe.train.optim.optimizer import make_optimizer
from vlapipe.train.optim.precision import attention_kernel, backend_rules, choose_precision
from vlapipe.train.optim.trainable import Trainable
from vlapipe.train.parallel.ddp import Replicated
from vlapipe.train.parallel.ranks import Ranks, agree, distributed, gather_bytes, sum_of, tell_failure
from vlapipe.train.parallel.strategy import Single, Strategy
from vlapipe.train.policies.base import Policy, blocks_of, instruction_note, preprocessor_of
from vlapipe.train.policies.compiled import CompileWatch, compile_policy
from vlapipe.train.policies.flops import flops_of
from vlapipe.train.policies.loss_module import LossOf, LossSums
from vlapipe.train.policies.nn.normalize import flickering, with_normalization
from vlapipe.train.policies.recompute import recompute_in_backward
from vlapipe.train.policies.registry import build_policy, load_policy_class
from vlapipe.train.report.mfu import peak_flops, peak_share
from vlapipe.train.report.outputs import Outputs, open_outputs
from vlapipe.train.report.samples_drawn import SamplesDrawn
from vlapipe.train.report.step_log import StepLog
from vlapipe.train.report.step_profile import StepProfile
from vlapipe.train.report.step_timer import StepTimer
from vlapipe.train.report.tensorboard_run import require_tensorboard
from vlapipe.train.run import Run
from vlapipe.train.run_loader import make_loader, open_datasets
from vlapipe.train.stopping import StopSignal, explain_surroundings
from vlapipe.train.weight_names import mix_with_dataset_names, with_dataset_names

__all__ = ["build"]


@contextlib.contextmanager
def build(config: TrainConfig) -> Iterator[Run]:
    """Yield a run that is ready for its next step: the first one, or the one after the checkpoint of a resumed run.

    The end of the block closes the run.

    Raises:
        VlapipeError: the run cannot be built with these options.
    """
    with contextlib.ExitStack() as stack:
        ranks = stack.enter_context(distributed(hang_timeout_s=config.parallel.hang_timeout_s))
        console = stack.enter_context(Progress("train", config.max_steps or 0, "step", silent=not ranks.is_first))
        stack.enter_context(backend_rules(deterministic=config.deterministic))
        precision, why = choose_precision(config.precision, ranks.device)
        with agree(ranks):
            if config.data.fit_batch_size:
                require_measurable(config, ranks)
            stack.enter_context(attention_kernel(config.attention, precision=precision, device=ranks.device))
            if config.log.tensorboard:
                require_tensorboard()
            # Only rank 0 looks at the run's folder, because rank 0 also creates it.
            found = stack.enter_context(run_folder(config, console.say)) if ranks.is_first else None
        resume_from = _on_every_rank(found, config, ranks)
        if config.data.fit_batch_size:
            config = _fitted(config, ranks, precision, console.say, resume_from)
        with agree(ranks):
            loader, val_loader = _open_data(config, ranks, console.say)
            config = config.with_length(loader.num_frames, ranks.world_size)
            config = _with_arguments(config, loader, console.say, resume_from)
            console.total = config.num_steps
            policy = _make_policy(config, loader, console.say, resumes=resume_from is not None)
            for each in (loader, val_loader):
                if each is not None:
                    each.preprocessor = preprocessor_of(policy)
        run = _make_run(
            config, ranks, console, policy, (loader, val_loader), precision, stack.enter_context(StopSignal())
        )
        del policy  # only the run may reference it, see leave_ranks
        stack.callback(run.leave_ranks)
        if resume_from is not None:
            restore(run, resume_from)
        run.batches = stack.enter_context(contextlib.closing(_batches(loader, console)))
        if config.eval.eval_env is not None:
            with agree(ranks):
                run.environment = make_environment(config.eval.eval_env, config.eval.eval_env_args)
        _announce(run, why)
        if ranks.is_first:
            with explain_surroundings(config.out):
                if not run.step:  # a resumed run replaces its saved options only after its first step
                    save_config(config)
            run.log.outputs = stack.enter_context(_open_outputs(run))
        run.first_step = run.step
        if config.log.profile:
            run.log.profile = _make_profile(run)
            stack.callback(run.log.profile.close)
        stack.enter_context(tell_failure(ranks))
        stack.enter_context(run.saving)
        yield run


def _on_every_rank(found: Path | None, config: TrainConfig, ranks: Ranks) -> Path | None:
    """Returns the checkpoint that rank 0 found; a collective. Ranks that search alone could find different ones."""
    [code] = sum_of([step_of(found) + 1 if found else 0], ranks)
    return checkpoint_path(config.out, int(code) - 1) if code else None


def _fitted(
    config: TrainConfig, ranks: Ranks, precision: str, say: Callable[[str], None], resume_from: Path | None
) -> TrainConfig:
    """Returns the config with the largest batch size that fits. Its trials have a policy of their own."""
    with agree(ranks):
        probe = replace(config, data=replace(config.data, batch_size=1, num_workers=0))
        loader, _ = _open_data(probe, replace(ranks, device=torch.device("cpu")), lambda _: None)
        config = _with_arguments(config, loader, say, resume_from)
        policy = _make_policy(config, loader, lambda _: None, resumes=True)  # with any weights
        batch = joined([*islice(loader, 8)])  # texts differ in length
    most = loader.num_frames // ranks.world_size
    return fit_batch_size(config, ranks, precision, policy, batch, most=most, say=say)


def _digest(datasets: Iterable[Dataset]) -> str:
    """Returns the SHA-256 of the manifests. A manifest describes a dataset's content, but not the dataset's path."""
    return hashlib.sha256(b"".join(dataset.manifest_file.read_bytes() for dataset in datasets)).hexdigest()


def _open_data(config: TrainConfig, ranks: Ranks, say: Callable[[str], None]) -> tuple[Loader, Loader | None]:
    """Returns the endless training loader, and the validation loader if the val split has a frame."""
    try:
        datasets = open_datasets(config)
    except NotADatasetError as error:
        if config.resume:
            raise NotADatasetError(error.problem, "if the dataset has moved, say with --data where it is now") from None
        raise

    make = partial(
        make_loader,
        config,
        datasets,
        batch_size=config.data.batch_size,
        seed=config.seed,
        rank=ranks.rank,
        world_size=ranks.world_size,
        prefetch_factor=config.data.prefetch_factor,
        transforms=config.data.transforms or (),
        device=ranks.device,
    )
    names = [str(dataset.path) for dataset in datasets]
    loader = make(
        split="train",
        endless=True,
        num_workers=config.data.num_workers,
        shuffle_shards=config.data.shuffle_shards,
        weights=with_dataset_names(config.data.weights, config.data.paths, names),
        mix=mix_with_dataset_names(config.data.mix, config.data.paths, names),
        augmentation=Augmentation.from_table(config.data.augmentation, "[augmentation]")
        if config.data.augment
        else None,
        say=say,
    )
    if not loader.num_frames:
        of_where = "" if config.data.where is None else f" where {config.data.where}"
        raise UsageError(
            f"--data {config.data.text}: no training frame{of_where}", "vlapipe inspect shows what the dataset holds"
        )
    at_once = config.data.batch_size * ranks.world_size
    if at_once > loader.num_frames:
        of_ranks = "" if ranks.world_size == 1 else f" on {ranks.world_size} ranks"
        raise UsageError(
            f"batch_size {config.data.batch_size}{of_ranks}: the train split has only {loader.num_frames} frames",
            f"give --batch-size {loader.num_frames // ranks.world_size} or less"
            if loader.num_frames >= ranks.world_size
            else f"start at most {loader.num_frames} ranks",
        )
    loader.spec = with_normalization(loader.spec, config.normalize, config.normalize_floor)
    if (
        loader.transforms is not None
        and loader.transforms.without_undo
        and changes_actions(loader.spec, loader.read_spec)
    ):
        say(f"transform {loader.transforms.without_undo} has no undo: act gives actions as it leaves them")
    for sentence in flickering(loader.spec):
        say(sentence)
    # A validation is too short for the loader to tune its number of threads.
    num_workers = min(2, threads_at_most()) if config.data.num_workers is None else config.data.num_workers
    val_loader = make(split="val", shuffle=False, num_workers=num_workers, say=lambda _: None)
    return loader, val_loader if val_loader.num_frames else None


def _make_run(
    config: TrainConfig,
    ranks: Ranks,
    console: Progress,
    policy: nn.Module,
    loaders: tuple[Loader, Loader | None],
    precision: str,
    stop: StopSignal,
) -> Run:
    """Returns the run before its first step. Only the run may reference the strategy and the module; see ``ranks``."""
    strategy = _make_strategy(config, ranks, precision)
    share = _peak_share(policy, ranks)  # counted before the blocks are compiled
    module, compiled = _make_module(config, policy, strategy, ranks, console.say)
    loader, val_loader = loaders
    run = Run(
        config=config,
        ranks=ranks,
        precision=precision,
        policy=policy,
        strategy=strategy,
        module=module,
        compiled=compiled,
        sums=LossSums(partial(gather_bytes, ranks=ranks)),
        drawn=SamplesDrawn(
            [part.name for part in loader.parts], [part.first_episode for part in loader.parts], ranks.device
        ),
        is_bad=torch.zeros((), dtype=torch.bool, device=ranks.device),
        optimizer=make_optimizer(
            policy, learning_rate=config.optim.learning_rate, weight_decay=config.optim.weight_decay
        ),
        schedule=make_schedule(config.to_flat()),
        loader=loader,
        val_loader=val_loader,
        batches=iter(()),
        timer=StepTimer(ranks.device, ranks.during),
        console=console,
        log=StepLog(
            progress=console,
            every=config.log.log_every,
            num_samples=config.data.batch_size * config.optim.grad_accum * ranks.world_size,
            check=lambda values: stop_if_bad(run, values),
            peak_share=share,
        ),
        stop=stop,
        dataset_digest=_digest(loader.datasets),
        ema=None if config.optim.ema is None else EMA(policy, decay=config.optim.ema, warmup=config.optim.ema_warmup),
    )
    return run


def _peak_share(policy: nn.Module, ranks: Ranks) -> float | None:
    """Returns the part of the GPUs' peak that one sample a second uses; None if the policy or the GPU does not say."""
    peak = peak_flops(torch.cuda.get_device_name(ranks.device)) if ranks.device.type == "cuda" else None
    flops = flops_of(policy) if peak else None
    return peak_share(flops, peak, ranks.world_size) if flops and peak else None


def _open_outputs(run: Run) -> contextlib.AbstractContextManager[Outputs]:
    return open_outputs(
        run.config.out,
        config=run.config.to_dict(),
        resumed_step=run.step,
        device=run.ranks.device,
        datasets=[(dataset.path, dataset.manifest_file) for dataset in run.loader.datasets],
        dataset_digest=run.dataset_digest,
        say=run.console.say,
    )


def _make_profile(run: Run) -> StepProfile:
    return StepProfile(
        run.config.out,
        num_steps=run.config.log.profile,
        steps_left=run.config.num_steps - run.step,
        rank=run.ranks.rank,
        timer=run.timer,
        say=run.console.say,
    )


def _make_strategy(config: TrainConfig, ranks: Ranks, precision: str) -> Strategy:
    kind = config.parallel.kind
    if ranks.world_size == 1:
        return Single()
    if kind == "ddp":
        return Replicated(ranks, unused_parameters=config.parallel.unused_parameters)
    from vlapipe.train.parallel.fsdp import Sharded

    return Sharded(ranks, precision=precision, shard_size=_shard_size(config, ranks) if kind == "hsdp" else None)


def _shard_size(config: TrainConfig, ranks: Ranks) -> int:
    """Returns the number of ranks that share a copy of the policy: those of this machine, unless the user says."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", ranks.world_size))
    return config.parallel.shard_size or here


def _make_module(
    config: TrainConfig, policy: nn.Module, strategy: Strategy, ranks: Ranks, say: Callable[[str], None]
) -> tuple[nn.Module, CompileWatch | None]:
    """Returns the module whose forward is the loss, with checkpointed blocks, compiled and split as the options say."""
    if not strategy.splits_blocks:
        policy.to(ranks.device)
    blocks, module = blocks_of(policy), LossOf(policy)
    if config.gradient_checkpointing:
        recompute_in_backward(policy, blocks)
    compiled = None
    if config.compile is not None:
        compiled = compile_policy(
            module,
            blocks if strategy.splits_blocks else [],
            config.compile,
            device=ranks.device,
            num_passes=config.optim.grad_accum,
            say=say,
        )
    return strategy.wrap(module, policy, blocks), compiled


def _with_arguments(
    config: TrainConfig, loader: Loader, say: Callable[[str], None], resume_from: Path | None
) -> TrainConfig:
    """Returns the config with the arguments that the policy takes for this data, or that its first weights had.

    A resumed run keeps what it had and takes nothing new.
    """
    policy_class = load_policy_class(config.policy)
    if not issubclass(policy_class, Policy):
        return config
    begins_with = resume_from or config.init
    before = None if begins_with is None else arguments_of(begins_with)
    more = policy_class.arguments_for(loader.spec, loader.num_episodes, config.policy_args, before)
    if resume_from is not None and before is not None:
        more = {name: before[name] for name in more if name in before}
    if not more:
        return config
    why = f"{loader.num_episodes} episodes to learn from" + ("" if begins_with is None else f" and {begins_with}")
    say(f"policy {config.policy}: {', '.join(f'{name} = {value}' for name, value in more.items())}, chosen for {why}")
    return replace(config, policy_args={**config.policy_args, **more})


def _make_policy(config: TrainConfig, loader: Loader, say: Callable[[str], None], *, resumes: bool) -> nn.Module:
    torch.manual_seed(config.seed)  # every rank begins with the same weights
    policy_class = load_policy_class(config.policy)
    policy = build_policy(policy_class, loader.spec, config.policy_args)
    if any(isinstance(p, nn.UninitializedParameter) for p in policy.parameters()):
        cure = "give its layers their sizes, which the spec says"
        raise UsageError(f"policy {policy_class.__name__}: has lazy layers, whose sizes are not known yet", cure)
    if not any(p.requires_grad for p in policy.parameters()):
        raise UsageError(
            f"policy {policy_class.__name__}: has no parameter to train", "hold its weights in nn.Parameter"
        )
    if config.init is not None and not resumes:
        say(init_policy(policy, config.init))
    freeze_groups(policy)
    Trainable.from_table(config.trainable).apply(policy)
    return policy


def _batches(loader: Loader, console: Progress) -> Generator[Batch, None, None]:
    """Yield the loader's batches and print the first one's shapes. Closing this generator ends the loader's threads."""
    for i, batch in enumerate(loader):
        if i == 0:
            shapes = [f"{key} {tuple(batch[key].shape)}" for key in batch if f"{key}_is_pad" in batch]
            console.say(f"first batch: {', '.join(shapes)}, task {batch['task'][0]!r} and so on")
        yield batch


def _mix_text(loader: Loader) -> str:
    """Say each dataset's share of the samples, and how often a frame of it comes in an epoch."""
    texts = [
        f"{part.name} {100 * part.share:.1f} % ({part.num_frames:,} frames, each {part.repeats:.2g} times an epoch)"
        for part in loader.parts
    ]
    return f"mix of datasets: {', '.join(texts)}"


def _announce(run: Run, why_precision: str) -> None:
    config, ranks, say = run.config, run.ranks, run.console.say
    where = str(ranks.device)
    if ranks.device.type == "cuda":
        where += f" ({torch.cuda.get_device_name(ranks.device)})"
    else:
        where += f" ({torch.get_num_threads()} threads)"
    counted = "1 rank" if ranks.world_size == 1 else f"{ranks.world_size} ranks"
    say(f"device {where}, {counted}, precision {run.precision} ({why_precision})")
    num_trained = sum(p.numel() for p in run.policy.parameters() if p.requires_grad)
    trained = f", {num_trained:,} of them trained" if num_trained < run.num_parameters else ""
    say(f"policy {config.policy}: {run.num_parameters:,} parameters{trained}")
    if config.optim.ema is not None:
        say(f"EMA: the average of the weights, of decay {config.optim.ema:g}, is what is validated and loaded")
    frames, a_step = run.loader.num_frames, run.global_batch_size
    say(f"train split: {frames:,} frames; {a_step} a step, {frames / a_step:.1f} steps an epoch")
    said = [text for loader in (run.loader, run.val_loader) if loader is not None for text in loader.instructions]
    note = instruction_note(run.policy, list(dict.fromkeys(said)))
    if note:
        say(note)
    if len(run.loader.parts) > 1:
        for line in str(run.loader.comparison).splitlines():
            say(line)
        say(_mix_text(run.loader))
    if run.val_loader is None:
        say("val split: no episode, so nothing is validated (training data is never used for it)")
    else:
        every = config.eval.eval_every
        say(f"val split: {run.val_loader.num_frames:,} frames of held-out episodes, every {every} steps")
    if run.step:
        of = f" of {config.num_steps}" if run.step < config.num_steps else ""
        say(f"resumed after step {run.step}{of}")
    elif schedule_note(config):
        say(f"decay_steps is {config.optim.decay_steps}, max_steps {config.num_steps}: {schedule_note(config)}")
