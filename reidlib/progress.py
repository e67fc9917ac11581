"""A training on its way: its bar, its curves, and the checkpoint it is carried on from. Nothing here changes a number, so that
its code is in no unit's key (see reidlib.sources)."""

import hashlib
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from reidlib.content import folder_name, write_atomically

_TRACKERS = []  # of accelerate, of the training that runs


@contextmanager
def tracked(by: str | None, folder: Path, label: str) -> Iterator[None]:
    """While a unit is made, give each epoch's losses to a tracker (None: to none): "tensorboard" writes folder/<label>/."""
    if by is None:
        yield
        return

    @cache
    def tracker():  # not before the first epoch: most units are no trainings
        from accelerate.tracking import TensorBoardTracker

        started = TensorBoardTracker(folder_name(label), logging_dir=folder)
        started.start()
        return started

    _TRACKERS.append(tracker)
    try:
        yield
    finally:
        _TRACKERS.pop()
        if tracker.cache_info().currsize:
            tracker().finish()


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
        for tracker in _TRACKERS[-1:]:
            tracker().log({name: value for name, value in record.items() if name != "epoch"}, step=record["epoch"])


def save_checkpoint(folder: Path, state: dict) -> None:
    """checkpoint.pt of nested dictionaries of tensors and numbers, in place of the one before, whole: its sha256, 32 bytes,
    and what torch.save writes. Beside it history.csv, the epochs so far, for whoever wants to look."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    write_atomically(
        Path(folder) / "checkpoint.pt", lambda path: path.write_bytes(hashlib.sha256(content).digest() + content)
    )
    if "history" in state:
        write_atomically(
            Path(folder) / "history.csv", lambda path: pd.DataFrame(state["history"]).to_csv(path, index=False)
        )


def load_checkpoint(folder: Path) -> dict | None:
    """What `save_checkpoint` kept, on the CPU; None where there is none, or where it is damaged: then that is said, and the
    file set aside."""
    file = Path(folder) / "checkpoint.pt"
    if not file.exists():
        return None
    content = memoryview(file.read_bytes())
    if hashlib.sha256(content[32:]).digest() == content[:32]:
        return torch.load(io.BytesIO(content[32:]), map_location="cpu", weights_only=True)
    aside = file.rename(file.with_name("damaged-checkpoint.pt"))
    print(f"{file} is damaged: it is set aside as {aside.name}, and training starts from the beginning", file=sys.stderr)
    return None
