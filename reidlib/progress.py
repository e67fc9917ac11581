"""A training on its way: its bar, and the checkpoint it is carried on from. Nothing here changes a number, so that its code
is in no unit's key (see reidlib.sources)."""

from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from reidlib.content import write_atomically


class Bar(tqdm):
    """A bar over all steps of a training, with the last epoch's loss beside it.

    done: epochs that an earlier run has finished; shown: False in all processes but one.
    """

    def __init__(self, label: str, epochs: int, steps: int, done: int, shown: bool):
        options = {} if shown else {"disable": True}
        super().__init__(total=epochs * steps, initial=done * steps, desc=label, unit="step", mininterval=1, **options)
        self.epochs = epochs

    step = tqdm.update

    def epoch(self, record: dict) -> None:
        """record: a row of the history, with "epoch" and "loss"."""
        self.set_postfix(epoch=f"{record['epoch']}/{self.epochs}", loss=f"{record['loss']:.3f}")


def save_checkpoint(folder: Path, state: dict) -> None:
    """checkpoint.pt of nested dictionaries of tensors and numbers, in place of the one before, whole."""
    write_atomically(Path(folder) / "checkpoint.pt", partial(torch.save, state))


def load_checkpoint(folder: Path) -> dict | None:
    """What `save_checkpoint` kept, on the CPU; None where there is none."""
    file = Path(folder) / "checkpoint.pt"
    return torch.load(file, map_location="cpu", weights_only=True) if file.exists() else None
