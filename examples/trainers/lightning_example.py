"""Trains the built-in policy with Lightning, which starts the ranks itself: python lightning_example.py DATASET."""

import sys

import lightning
import torch

import vlapipe


class Training(lightning.LightningModule):
    def __init__(self, spec) -> None:
        super().__init__()
        self.policy = vlapipe.build_policy("regression", spec)

    def training_step(self, batch, _):
        loss = self.policy(batch).mean
        step, frames = self.global_step + 1, batch["index"].tolist()
        print(f"rank {self.global_rank} step {step} loss {loss:.4f} frames {frames}")
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main(path: str, steps: int = 40) -> None:
    lightning.seed_everything(0)
    frames = vlapipe.torch_dataset(vlapipe.open_dataset(path), image_size=(64, 64))
    loader = torch.utils.data.DataLoader(frames, batch_size=8, shuffle=True, collate_fn=frames.collate)
    trainer = lightning.Trainer(devices=2, strategy="ddp", max_steps=steps, gradient_clip_val=1.0, logger=False)
    trainer.fit(Training(frames.spec), loader)  # Lightning deals the frames out: each rank reads others


if __name__ == "__main__":
    main(sys.argv[1])
