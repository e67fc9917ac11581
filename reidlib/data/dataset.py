"""A data set's three splits, and what can be made of them: a validation split, several sets as one."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

JUNK, DISTRACTOR = -1, 0
SPLITS = ("train", "query", "gallery")


class DataError(ValueError):
    """A data set that can't be used; the message names everything wrong with it that was found."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set's three splits: DataFrames with columns path (absolute), pid and camid (both as published).

    Junk (pid -1) and distractors (pid 0) are in `gallery` only; evaluation ignores the former. Further columns are
    whatever the layout gives: vehicles have `type` and `color` where the labels do. `name` is for people to read and
    `notes` holds the oddities that were found and tolerated.

    What reads a layout also leaves here what it finds wrong (`problems`) and how to mend it (`remedy`, a sentence);
    `load` raises them, so that in what it returns `problems` is empty.
    """

    name: str
    root: Path
    train: pd.DataFrame
    query: pd.DataFrame
    gallery: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remedy: str = ""

    def summary(self) -> pd.DataFrame:
        """One row per split. Junk and distractors count as images, but neither as identities nor in their median."""
        rows = {}
        for split in SPLITS:
            pid, cameras = getattr(self, split)["pid"], getattr(self, split)["camid"].nunique()
            per_id = pid[pid > 0].value_counts()
            counts = [len(pid), len(per_id), cameras, (pid == JUNK).sum(), (pid == DISTRACTOR).sum()]
            rows[split] = [*map(int, counts), per_id.median()]
        columns = ["images", "ids", "cameras", "junk", "distractors", "median images per id"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("split")


def unmatched(query: pd.DataFrame, gallery: pd.DataFrame) -> np.ndarray:
    """Which queries have no match in another camera of the gallery, so that they don't count: bool [n_query]."""
    cameras = gallery.groupby("pid")["camid"].agg(set).to_dict()
    return np.array([not cameras.get(p, set()) - {c} for p, c in zip(query["pid"], query["camid"])], bool)


def validation_split(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """Holds out `fraction` of the training identities, so that hyper-parameters never see the test set.

    In what comes back, train is the other identities, gallery all pictures held out, and query one of them per
    identity and camera. Same arguments, same split. Raises ValueError where none or all identities would be held out,
    and DataError where none of those held out is seen by two cameras, which leaves nothing to evaluate.
    """
    pids = np.unique(dataset.train["pid"])
    count = round(fraction * len(pids))
    if not 0 < count < len(pids):
        raise ValueError(f"A fraction of {fraction} holds out {count} of {len(pids)} training identities: none or all")
    rng = np.random.default_rng(seed)
    is_held = dataset.train["pid"].isin(rng.choice(pids, count, replace=False))
    held = dataset.train[is_held].reset_index(drop=True)
    query = held.groupby(["pid", "camid"]).sample(1, random_state=rng).reset_index(drop=True)
    if unmatched(query, held).all():
        raise DataError(f"{dataset.name}: none of the {count} training identities held out is seen by two cameras")
    train = dataset.train[~is_held].reset_index(drop=True)
    note = f"validation split: {count} of {len(pids)} training identities held out (seed {seed})"
    return replace(dataset, train=train, query=query, gallery=held, notes=[*dataset.notes, note])


def mixed(datasets: dict[str, Dataset]) -> Dataset:
    """All data sets as one. Identities and cameras are renumbered so that none is shared; junk and distractors stay.

    A further column `domain` holds the name of the data set that a picture is from.
    """
    frames, last_pid, last_camera = {split: [] for split in SPLITS}, 0, 0
    for name, dataset in datasets.items():
        pids, cameras = (pd.concat([getattr(dataset, s)[c] for s in SPLITS]) for c in ("pid", "camid"))
        step = last_camera + (cameras.min() == 0)  # cameras numbered from 0 would share the last number before them
        for split in SPLITS:
            frame = getattr(dataset, split)
            pid = frame["pid"].where(frame["pid"] <= 0, frame["pid"] + last_pid)
            frames[split].append(frame.assign(pid=pid, camid=frame["camid"] + step, domain=name))
        last_pid, last_camera = last_pid + pids.max(), step + cameras.max()
    joined = {split: pd.concat(parts, ignore_index=True) for split, parts in frames.items()}
    first = next(iter(datasets.values()))
    return Dataset("+".join(d.name for d in datasets.values()), first.root, **joined)


def first_five(things: list) -> str:
    """The first five, for a message; a name that would break or colour its line is quoted."""
    shown = [text if text.isprintable() else repr(text) for text in map(str, things[:5])]
    return ", ".join(shown) + (", ..." if len(things) > 5 else "")
