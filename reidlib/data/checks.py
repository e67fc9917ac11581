"""What every data set must satisfy, whatever its layout."""

import os
from dataclasses import replace

import pandas as pd

from reidlib.data.dataset import DISTRACTOR, JUNK, SPLITS, DataError, Dataset, first_five, unmatched

COLUMNS = ("path", "pid", "camid")
MOST = 2**53  # from here on two numbers may be one, where a column was read as floats


def check(dataset: Dataset, trained: bool = True) -> Dataset:
    """The data set as it can be used: paths absolute, pid and camid int64, identities only in train and query.

    trained: False: nothing is trained on it, so that train may be empty.

    What is odd but harmless is noted. Raises DataError naming all that is wrong: the layout's own `problems`; missing
    columns or files; numbers that can't be; a split without images or with one twice; an image with two labels;
    identities in both train and test; a single training identity; queries none of which has a match in another camera.
    """
    notes, problems = list(dataset.notes), list(dataset.problems)
    frames = {split: _check_split(dataset, split, trained or split != "train", notes, problems) for split in SPLITS}
    train, query, gallery = frames.values()
    for split in ("query", "gallery"):
        if shared := set(train["pid"]) & set(frames[split]["pid"]):
            problems.append(f"{len(shared)} identities are in both train and {split}: {first_five(sorted(shared))}")
    labels = pd.concat([frame[list(COLUMNS)] for frame in frames.values()]).drop_duplicates()
    if relabelled := labels.loc[labels["path"].duplicated(), "path"].unique().tolist():
        problems.append(f"{len(relabelled)} images have two identities or cameras: {_names(relabelled, dataset)}")
    if train["pid"].nunique() == 1:
        problems.append(f"train has one identity only ({train['pid'][0]})")
    for pid, what in ((JUNK, "junk images (pid -1), ignored by evaluation"), (DISTRACTOR, "distractors (pid 0)")):
        if count := int((gallery["pid"] == pid).sum()):
            notes.append(f"gallery: {count} {what}")
    is_unmatched = unmatched(query, gallery)
    if len(query) and len(gallery) and is_unmatched.all():
        cameras = sorted({*query["camid"], *gallery["camid"]})
        one = f", for all images are of camera {cameras[0]}" if len(cameras) == 1 else ""
        problems.append(f"no query has a match in another camera of the gallery, where alone a match counts{one}")
    elif count := int(is_unmatched.sum()):
        notes.append(f"query: {count} images have no match in another camera of the gallery, so they don't count")
    if problems:
        listed, remedy = "\n".join(f"- {problem}" for problem in problems), dataset.remedy or "Mend it and load it again."
        raise DataError(f"{dataset.name} in {dataset.root} can't be used:\n{listed}\n{remedy}")
    return replace(dataset, **frames, notes=notes)


def _check_split(dataset: Dataset, split: str, needed: bool, notes: list[str], problems: list[str]) -> pd.DataFrame:
    """What of a split can be used; adds to `notes` and `problems`."""
    frame = getattr(dataset, split).reset_index(drop=True)
    if missing := [column for column in COLUMNS if column not in frame]:
        problems.append(f"{split} has no column {', '.join(missing)}")
        return pd.DataFrame({"path": [], "pid": [], "camid": []})
    for column, least in (("pid", JUNK), ("camid", 0)):
        numbers = pd.to_numeric(frame[column], errors="coerce")
        is_wrong = (numbers % 1 != 0) | (numbers < least) | (numbers >= MOST)  # what is no number is not 0 either
        if wrong := frame.loc[is_wrong, column].tolist():
            what = f"are no whole numbers from {least} to 2^53"
            problems.append(f"{split}: {len(wrong)} {column}s {what}: {first_five(wrong)}")
        frame = frame[~is_wrong].assign(**{column: numbers[~is_wrong].astype(int)})
    if split != "gallery":
        if dropped := int((frame["pid"] == JUNK).sum()):
            notes.append(f"{split}: {dropped} images without an identity (pid -1), left out")
        if zeros := int((frame["pid"] == DISTRACTOR).sum()):
            what = "which here means a distractor, for the gallery alone; number identities from 1"
            problems.append(f"{split}: {zeros} images have the identity 0, {what}")
        frame = frame[frame["pid"] > 0]
    paths = [os.path.join(dataset.root, str(path)) for path in frame["path"]]
    frame = frame.assign(path=pd.Series(paths, frame.index, dtype=object)).reset_index(drop=True)
    if not len(frame) and needed:
        problems += [note for note in notes if note.startswith(f"{split}: the folder ")] or [f"{split} has no images"]
    if missing_files := [path for path in frame["path"] if not os.path.isfile(path)]:
        problems.append(f"{split}: {len(missing_files)} files are missing or none: {_names(missing_files, dataset)}")
    if duplicates := frame.loc[frame["path"].duplicated(), "path"].unique().tolist():
        problems.append(f"{split}: {len(duplicates)} images are listed more than once: {_names(duplicates, dataset)}")
    return frame


def _names(paths: list[str], dataset: Dataset) -> str:
    """The first five, as they are called in the data set's folder."""
    return first_five([path.removeprefix(f"{dataset.root}{os.sep}") for path in paths[:6]])
