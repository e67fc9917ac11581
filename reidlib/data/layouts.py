"""Re-ID data in the layouts of Market-1501 (Zheng et al. 2015) and VeRi-776 (Liu et al. 2016), checked before use."""

import difflib
import hashlib
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

JUNK, DISTRACTOR = -1, 0
SPLITS = ("train", "query", "gallery")


class DataError(ValueError):
    """A data set that can't be used; the message names everything wrong with it that was found."""


@dataclass(frozen=True)
class Layout:
    """How a data set is published: its folder, in it those of the splits, the images' names."""

    title: str
    folder: str
    folders: dict[str, str]
    pattern: str
    source: str


LAYOUTS = {
    "market1501": Layout(
        title="Market-1501",
        folder="Market-1501-v15.09.15",
        folders={"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"},
        pattern=r"(-1|\d+)_c(\d+)s\d+_.*\.(jpe?g|png)",
        source="download it from the data set's home page (Zheng et al., ICCV 2015) and unpack it",
    ),
    "veri776": Layout(
        title="VeRi-776",
        folder="VeRi",
        folders={"train": "image_train", "query": "image_query", "gallery": "image_test"},
        pattern=r"(\d+)_c(\d+)_.*\.(jpe?g|png)",
        source="ask its authors for it, as the data set's home page (Liu et al., ECCV 2016) says, and unpack it",
    ),
}


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set's three splits: DataFrames with columns path (absolute), pid and camid (both as published).

    Junk (pid -1) and distractors (pid 0) are in `gallery` only; evaluation ignores the former. Vehicles also have the
    columns `type` and `color` where the labels give them. `notes` holds the oddities that were found and tolerated.
    """

    name: str
    root: Path
    train: pd.DataFrame
    query: pd.DataFrame
    gallery: pd.DataFrame
    notes: list[str] = field(default_factory=list)

    def fingerprint(self) -> str:
        """Hash (16 hex digits) of each split's file names, relative to `root`, and sizes: the same wherever it lies."""
        digest = hashlib.sha256(self.name.encode())
        for split in SPLITS:
            for path in getattr(self, split)["path"]:
                name = Path(os.path.relpath(path, self.root)).as_posix()
                digest.update(f"{split} {name} {os.path.getsize(path)}\n".encode())
        return digest.hexdigest()[:16]

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


def load(name: str, root: str | Path) -> Dataset:
    """Reads the data set laid out as `name` ("market1501" or "veri776") from `root`.

    `root` is the published folder, the folder that holds it, or any folder with the published sub-folders.
    Raises ValueError for an unknown name and DataError, listing all that is wrong, for unusable data.
    """
    if name not in LAYOUTS:
        near = difflib.get_close_matches(name.lower().replace("-", ""), LAYOUTS, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(LAYOUTS)}."
        raise ValueError(f"No data set layout is called {name!r}: {hint}")
    layout = LAYOUTS[name]
    folder = _find(layout, Path(root).expanduser().absolute())
    errors, notes = [], []
    frames = {split: _read_split(layout, folder, split, errors, notes) for split in SPLITS}
    for split in ("query", "gallery"):
        if leaked := sorted(set(frames["train"]["pid"]) & set(frames[split]["pid"])):
            errors.append(f"{len(leaked)} identities are in both train and {split}: {first_five(leaked)}")
    if errors:
        problems = "\n".join(f"- {error}" for error in errors)
        raise DataError(f"{layout.title} in {folder} can't be used:\n{problems}\nTo mend it, {layout.source} again.")
    query, gallery = frames["query"], frames["gallery"]
    for pid, what in ((JUNK, "junk images (pid -1), ignored by evaluation"), (DISTRACTOR, "distractors (pid 0)")):
        if count := int((gallery["pid"] == pid).sum()):
            notes.append(f"gallery: {count} {what}")
    cameras = gallery.groupby("pid")["camid"].agg(set).to_dict()
    if count := sum(not cameras.get(pid, set()) - {camid} for pid, camid in zip(query["pid"], query["camid"])):
        notes.append(f"query: {count} images have no match in another camera of the gallery, so they don't count")
    if name == "veri776":
        _add_labels(folder, frames, notes)
    return Dataset(name, folder, **frames, notes=notes)


def validation_split(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """Holds out `fraction` of the training identities, so that hyper-parameters never see the test set.

    In what comes back, train is the other identities, gallery all pictures held out, and query one of them per
    identity and camera. Same arguments, same split.
    """
    pids = np.unique(dataset.train["pid"])
    count = round(fraction * len(pids))
    if not 0 < count < len(pids):
        raise ValueError(f"A fraction of {fraction} holds out {count} of {len(pids)} training identities: none or all")
    rng = np.random.default_rng(seed)
    is_held = dataset.train["pid"].isin(rng.choice(pids, count, replace=False))
    held = dataset.train[is_held].reset_index(drop=True)
    query = held.groupby(["pid", "camid"]).sample(1, random_state=rng).reset_index(drop=True)
    train = dataset.train[~is_held].reset_index(drop=True)
    note = f"validation split: {count} of {len(pids)} training identities held out (seed {seed})"
    return replace(dataset, train=train, query=query, gallery=held, notes=[*dataset.notes, note])


def mixed(datasets: dict[str, Dataset]) -> Dataset:
    """All data sets as one. Identities and cameras are renumbered so that none is shared; junk and distractors stay.

    A further column `domain` holds the name of the data set that a picture is from.
    """
    frames, pids, cameras = {split: [] for split in SPLITS}, 0, 0
    for name, dataset in datasets.items():
        for split in SPLITS:
            frame = getattr(dataset, split)
            pid = frame["pid"].where(frame["pid"] <= 0, frame["pid"] + pids)
            frames[split].append(frame.assign(pid=pid, camid=frame["camid"] + cameras, domain=name))
        pids += max(getattr(dataset, split)["pid"].max() for split in SPLITS)
        cameras += max(getattr(dataset, split)["camid"].max() for split in SPLITS)
    whole = {split: pd.concat(parts, ignore_index=True) for split, parts in frames.items()}
    first = next(iter(datasets.values()))
    return Dataset("+".join(d.name for d in datasets.values()), first.root, **whole)


def _find(layout: Layout, root: Path) -> Path:
    """The folder with the layout's sub-folders: `root` or the published folder in it."""
    wanted = list(layout.folders.values())
    present = {f: sum((f / sub).is_dir() for sub in wanted) for f in (root, root / layout.folder)}
    folder = max(present, key=present.__getitem__)
    if not present[folder]:
        state = "has none of them" if root.is_dir() else "does not exist"
        raise DataError(
            f"{layout.title} not found: looked for the folders {', '.join(wanted)} in {root} and in its sub-folder "
            f"{layout.folder}, but {root} {state}. To get it, {layout.source}."
        )
    return folder


def _read_split(layout: Layout, folder: Path, split: str, errors: list[str], notes: list[str]) -> pd.DataFrame:
    """One split's path, pid and camid in the order of its list, or of the sorted names in its folder."""
    images = folder / layout.folders[split]
    if not images.is_dir():
        errors.append(f"the folder {images.name} is missing")
        return pd.DataFrame({"path": [], "pid": [], "camid": []})
    # Hidden files are those that macOS leaves beside each image in an archive.
    on_disk = sorted(entry.name for entry in os.scandir(images) if entry.is_file())
    names = [n for n in on_disk if n.lower().endswith((".jpg", ".jpeg", ".png")) and not n.startswith(".")]
    if others := len(on_disk) - len(names):
        notes.append(f"{split}: {others} files in {images.name} are no images, ignored")
    if not names:
        errors.append(f"{images.name} holds no images")
    # VeRi-776 lists what belongs to image_train in name_train.txt, and so on; Market-1501 has no lists.
    listing = folder / f"{images.name.replace('image', 'name')}.txt"
    if names and listing.is_file():
        listed = list(dict.fromkeys(_text(listing).split()))
        present = set(names)
        if missing := [n for n in listed if n not in present]:
            errors.append(f"{len(missing)} files of {listing.name} are not in {images.name}: {first_five(missing)}")
        if extra := len(present.difference(listed)):
            notes.append(f"{split}: {extra} images in {images.name} are not in {listing.name}, ignored")
        names = listed
    matches = {n: re.fullmatch(layout.pattern, n, re.IGNORECASE) for n in names}
    if bad := [n for n, match in matches.items() if match is None]:
        errors.append(f"{len(bad)} names in {images.name} don't follow the layout's pattern: {first_five(bad)}")
    rows = [(str(images / n), int(match[1]), int(match[2])) for n, match in matches.items() if match]
    frame = pd.DataFrame(rows, columns=["path", "pid", "camid"]).astype({"pid": int, "camid": int})
    if split != "gallery" and (dropped := int((frame["pid"] <= 0).sum())):
        notes.append(f"{split}: {dropped} images without an identity (pid -1 or 0), ignored")
        frame = frame[frame["pid"] > 0].reset_index(drop=True)
    return frame


def _add_labels(folder: Path, frames: dict[str, pd.DataFrame], notes: list[str]) -> None:
    """Adds the columns type and color, as names, from *_label.xml and list_type.txt, list_color.txt where they are."""
    items = []
    for file in (folder / "train_label.xml", folder / "test_label.xml"):
        if file.is_file():
            # Read with patterns: expat refuses gb2312, and any slip in the markup.
            text = re.sub(r"<!--.*?-->", "", _text(file), flags=re.DOTALL)
            items += [dict(re.findall(r'(\w+)\s*=\s*"([^"]*)"', tag)) for tag in re.findall(r"<Item\s[^>]*>", text)]
        else:
            notes.append(f"labels: {file.name} is missing")
    for column in ("type", "color"):
        listing = folder / f"list_{column}.txt"
        pairs = re.findall(r"(\d+)\W+(\w.*?)\s*$", _text(listing), re.MULTILINE) if listing.is_file() else []
        names = {int(number): name for number, name in pairs}
        codes = {i["imageName"]: i.get(f"{column}ID", "") for i in items if "imageName" in i}
        values = {image: names[int(code)] for image, code in codes.items() if code.isdecimal() and int(code) in names}
        if not values:
            notes.append(f"labels: no {column} is given")
            continue
        for split, frame in frames.items():
            frame[column] = frame["path"].map(lambda path: values.get(os.path.basename(path)))
            if unknown := int(frame[column].isna().sum()):
                notes.append(f"{split}: {unknown} images have no {column}")


def _text(file: Path) -> str:
    """A file's text, from UTF-8 or else gb18030, which includes gb2312; undecodable bytes are marked, not fatal."""
    data = file.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("gb18030", errors="replace")


def first_five(things: list) -> str:
    """The first five, for a message."""
    return ", ".join(map(str, things[:5])) + (", ..." if len(things) > 5 else "")
