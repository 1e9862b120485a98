"""Trains the built-in policy with DeepSpeed (ZeRO stage 2): deepspeed deepspeed_example.py DATASET."""

import itertools
import sys

import deepspeed
import torch

import vlapipe

CONFIG = {
    "train_micro_batch_size_per_gpu": 8,
    "gradient_clipping": 1.0,
    # Not "bf16": that also rounds the policy's buffers, and they hold the statistics of the data.
    "torch_autocast": {"enabled": True, "dtype": "bfloat16"},
    "zero_optimization": {"stage": 2},
}


def main(path: str, steps: int = 40) -> None:
    deepspeed.init_distributed()
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    sharing = {"rank": rank, "world_size": world_size}  # of one order of frames: each rank reads others
    loader = vlapipe.Loader(vlapipe.open_dataset(path), batch_size=8, image_size=(64, 64), endless=True, **sharing)
    torch.manual_seed(0)
    policy = vlapipe.build_policy("regression", loader.spec)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3)
    engine, *_ = deepspeed.initialize(model=policy, optimizer=optimizer, config=CONFIG)

    for step, batch in enumerate(itertools.islice(loader, steps), start=1):
        on_device = {key: x.to(engine.device) if torch.is_tensor(x) else x for key, x in batch.items()}
        loss = engine(on_device).mean
        engine.backward(loss)
        engine.step()
        print(f"rank {rank} step {step} loss {loss:.4f} frames {batch['index'].tolist()}")


if __name__ == "__main__":
    main(sys.argv[1])
