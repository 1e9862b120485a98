"""Trains the built-in policy with Accelerate: torchrun --nproc-per-node 2 accelerate_example.py DATASET."""

import sys

import torch
from accelerate import Accelerator

import vlapipe


def main(path: str, steps: int = 40) -> None:
    torch.manual_seed(0)
    # Without cpu=True, Accelerate trains a separate policy on each rank of a machine that has no GPU.
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    frames = vlapipe.torch_dataset(vlapipe.open_dataset(path), image_size=(64, 64))
    loader = torch.utils.data.DataLoader(frames, batch_size=8, shuffle=True, collate_fn=frames.collate)
    policy = vlapipe.build_policy("regression", frames.spec)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-3)
    # Accelerate deals the frames out: each rank reads others.
    policy, optimizer, loader = accelerator.prepare(policy, optimizer, loader)

    step = 0
    while step < steps:
        for batch in loader:
            loss = policy(batch).mean
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(policy.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            print(f"rank {accelerator.process_index} step {step} loss {loss:.4f} frames {batch['index'].tolist()}")
            if step == steps:
                break
    accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1])
