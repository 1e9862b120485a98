"""Measures a training step of the policy ``vla`` with a backbone of 3 billion parameters: samples a second and memory.

The backbone is a Qwen2.5-VL of the published sizes with random weights, which change no time: nothing is downloaded. A
sample is that of a robot with two arms: three images of 224x224, an instruction, 50 actions.

``published_per_gpu`` is the figure of LingBot-VLA (arXiv 2601.18692, abstract): 261 samples a second on 8 GPUs, divided
by 8. The abstract says neither which GPUs nor which images, so the ratio is only a hint.

One JSON line a case. A case that does not fit the memory says so. ``--tiny`` runs it at tiny sizes, on a CPU too.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from train_cases import DEVICE, Line, medians, report

from vlapipe.train.data.batch_layout import Batch, Moments, SampleSpec
from vlapipe.train.data.device_copy import to_device
from vlapipe.train.optim.optimizer import make_optimizer
from vlapipe.train.optim.precision import autocast
from vlapipe.train.policies.base import blocks_of
from vlapipe.train.policies.compiled import compile_policy
from vlapipe.train.policies.loss_module import LossOf
from vlapipe.train.policies.recompute import recompute_in_backward
from vlapipe.train.policies.vla.policy import VLAPolicy
from vlapipe.train.report.mfu import peak_flops, peak_share

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "train"))
from tiny_backbones import save_backbone_of_size

PUBLISHED_PER_GPU = 261 / 8
CAMERAS, SIDE, STATE, HORIZON = ("head", "left_wrist", "right_wrist"), 224, 16, 50
# Qwen2.5-VL-3B, from its config.json.
TEXT = {
    "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
    "num_key_value_heads": 2, "max_position_embeddings": 4096, "vocab_size": 151936, "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}  # fmt: skip
VISION = {
    "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048,
    "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
}  # fmt: skip
TINY = {
    "text": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "max_position_embeddings": 512},
    "vision": {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32},
    "side": 56,
}  # fmt: skip
# Case -> whether activations are recomputed, and whether the step is compiled.
CASES = {
    "eager": (False, False),
    "recompute": (True, False),
    "compiled": (False, True),
    "compiled, recompute": (True, True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", default=";".join(CASES), help="separated by semicolons")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10, help="that are measured, after 3 that are not")
    parser.add_argument("--head", default="flow")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--backbone", type=Path, help="a folder with a model, in place of random weights")
    parser.add_argument("--out", type=Path, help="also append the lines to this file")
    options = parser.parse_args()
    sizes: Any = TINY if options.tiny else {"text": TEXT, "vision": VISION, "side": SIDE}
    with tempfile.TemporaryDirectory(prefix="bench-vla-") as folder:
        backbone = options.backbone or save_backbone_of_size(Path(folder), **sizes)
        for case in options.cases.split(";"):
            report("vla", case, measure(case, str(backbone), sizes["side"], options), options.out)
            torch._dynamo.reset()  # its guards hold the policy
            if DEVICE.type == "cuda":
                torch.cuda.empty_cache()


def measure(case: str, backbone: str, side: int, options: argparse.Namespace) -> Line:
    """Return the line of a case."""
    recomputes, is_compiled = CASES[case]
    spec = spec_of(side)
    policy = VLAPolicy(spec, backbone=backbone, head=options.head).train()
    batch_size = 2 if options.tiny else options.batch_size
    line: Line = {
        "parameters_M": sum(each.numel() for each in policy.parameters()) / 1e6,
        "attention": policy.backbone.model.config._attn_implementation,
        "batch_size": batch_size,
        "precision": "bf16",
        "images": f"{len(CAMERAS)} x {side}x{side}",
        "forward_TFLOP_a_sample": policy.flops_per_sample() / 1e12,
        "published_per_gpu": PUBLISHED_PER_GPU,
    }
    batches = itertools.cycle(to_device(policy.prepare(batch_of(spec, batch_size, seed)), DEVICE) for seed in range(4))
    try:
        step = steps_of(policy.to(DEVICE), batches, recomputes=recomputes, is_compiled=is_compiled)
        medians({"step": step}, turns=3)
        if DEVICE.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        took = statistics.median(medians({"step": step}, turns=2 if options.tiny else options.steps)["step"])
    except torch.OutOfMemoryError:
        return line | {"fits": False}
    a_second = batch_size / took
    line |= {"fits": True, "step_ms": 1e3 * took, "samples_per_s": a_second, "ratio": a_second / PUBLISHED_PER_GPU}
    peak = peak_flops(torch.cuda.get_device_name()) if DEVICE.type == "cuda" else None
    if peak:
        line["mfu"] = a_second * peak_share(policy.flops_per_sample(), peak, 1)
    return line | {"peak_GB": peak_bytes() / 1e9}


def steps_of(policy: VLAPolicy, batches: Iterator[Batch], *, recomputes: bool, is_compiled: bool) -> Callable[[], None]:
    """Return a training step, made of the parts that the trainer makes it of."""
    blocks, module = blocks_of(policy), LossOf(policy)
    if recomputes:
        recompute_in_backward(policy, blocks)
    if is_compiled:
        compile_policy(module, [], "default", device=DEVICE, num_passes=1, say=lambda _: None)
    optimizer = make_optimizer(policy, learning_rate=1e-5, weight_decay=0.01)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def step() -> None:
        with autocast("bf16", DEVICE):
            total, weight, _ = module(next(batches))
        (total / weight).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def peak_bytes() -> int:
    """Return the most memory that the GPU's allocator gave out; on a CPU, of the process so far."""
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def spec_of(side: int) -> SampleSpec:
    def moments(size: int) -> Moments:
        return Moments(mean=np.zeros(size, np.float32), std=np.ones(size, np.float32))

    return SampleSpec(
        state=(1, STATE),
        images=dict.fromkeys(CAMERAS, (1, 3, side, side)),
        action=(HORIZON, STATE),
        moments={"observation.state": moments(STATE), "action": moments(STATE)},
    )


def batch_of(spec: SampleSpec, size: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    batch: Batch = {"task": ["put the cup into the sink"] * size}
    entries = {"observation.state": spec.state, "action": spec.action}
    for key, shape in entries.items():
        batch[key] = torch.randn((size, *shape), generator=generator)
    for camera, shape in spec.images.items():
        entries[f"observation.images.{camera}"] = shape  # type: ignore[assignment]
        pixels = torch.randint(0, 256, (size, *shape), dtype=torch.uint8, generator=generator)
        batch[f"observation.images.{camera}"] = pixels
    for key, shape in entries.items():
        batch[f"{key}_is_pad"] = torch.zeros(size, shape[0], dtype=torch.bool)
    return batch


if __name__ == "__main__":
    main()
