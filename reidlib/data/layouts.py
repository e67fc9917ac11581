"""How data sets are laid out on disk: a table of functions that read them, and those of Market-1501 and VeRi-776.

A new layout is a function and a name, from wherever it is written:

    def read_mine(root):
        return train, query, gallery  # DataFrames: path (absolute or below root), pid (-1: junk, 0: distractor), camid

    LAYOUTS["mine"] = read_mine

It may return a Dataset instead, with notes and problems of its own. Either is checked as the others are.
"""

import inspect
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from reidlib.data.checks import check
from reidlib.data.csv_table import read_csv
from reidlib.data.dataset import SPLITS, DataError, Dataset, first_five
from reidlib.params import nearest


@dataclass(frozen=True)
class Folders:
    """A data set published as a folder of images for each split: its folder, in it those, the images' names."""

    title: str
    folder: str
    folders: dict[str, str]
    pattern: str
    source: str


MARKET1501 = Folders(
    title="Market-1501", folder="Market-1501-v15.09.15", pattern=r"(-1|\d+)_c(\d+)s\d+_.*\.(jpe?g|png)",
    folders={"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"},
    source="download it from the data set's home page (Zheng et al., ICCV 2015) and unpack it",
)  # fmt: skip
VERI776 = Folders(
    title="VeRi-776", folder="VeRi", pattern=r"(\d+)_c(\d+)_.*\.(jpe?g|png)",
    folders={"train": "image_train", "query": "image_query", "gallery": "image_test"},
    source="ask its authors for it, as the data set's home page (Liu et al., ECCV 2016) says, and unpack it",
)  # fmt: skip


def load(name: str, root: str | Path, **options) -> Dataset:
    """Reads the data set laid out as `name` (a key of LAYOUTS) from `root`, and checks it.

    root: for "market1501" and "veri776" the published folder, the folder that holds it, or any folder with the published
    sub-folders; for "csv" see `read_csv`. options: what the layout's function takes beside `root`; "csv" takes `table`.

    Raises ValueError for an unknown name or option, and DataError, listing all that is wrong, for unusable data.
    """
    if name not in LAYOUTS:
        raise ValueError(f"No data set layout is called {name!r}{nearest(name.lower(), list(LAYOUTS))}")
    read, root = LAYOUTS[name], Path(root).expanduser().absolute()
    try:
        inspect.signature(read).bind(root, **options)
    except TypeError as error:
        raise ValueError(f"Layout {name!r}: {error}") from None
    dataset = read(root, **options)
    return check(dataset if isinstance(dataset, Dataset) else Dataset(name, root, *dataset))


def read_veri776(root: Path) -> Dataset:
    """VeRi-776 (Liu et al. 2016), with the columns type and color where its labels give them."""
    dataset = _read_folders(VERI776, root)
    _add_labels(dataset)
    return dataset


def _read_folders(layout: Folders, root: Path) -> Dataset:
    folder, notes, problems = _find(layout, root), [], []
    frames = {split: _read_split(layout, folder, split, notes, problems) for split in SPLITS}
    remedy = f"To mend it, {layout.source} again."
    return Dataset(layout.title, folder, **frames, notes=notes, problems=problems, remedy=remedy)


def _find(layout: Folders, root: Path) -> Path:
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


def _read_split(layout: Folders, folder: Path, split: str, notes: list[str], problems: list[str]) -> pd.DataFrame:
    """One split's path, pid and camid in the order of its list, or of the sorted names in its folder."""
    images = folder / layout.folders[split]
    if not images.is_dir():
        problems.append(f"the folder {images.name} is missing")
        return pd.DataFrame({"path": [], "pid": [], "camid": []})
    # Hidden files are those that macOS leaves beside each image in an archive.
    on_disk = sorted(entry.name for entry in os.scandir(images) if entry.is_file())
    names = [n for n in on_disk if n.lower().endswith((".jpg", ".jpeg", ".png")) and not n.startswith(".")]
    if others := len(on_disk) - len(names):
        notes.append(f"{split}: {others} files in {images.name} are no images, ignored")
    # VeRi-776 lists what belongs to image_train in name_train.txt, and so on; Market-1501 has no lists.
    listing = folder / f"{images.name.replace('image', 'name')}.txt"
    if names and listing.is_file():
        listed = list(dict.fromkeys(_text(listing).split()))
        present = set(names)
        if missing := [n for n in listed if n not in present]:
            problems.append(f"{len(missing)} files of {listing.name} are not in {images.name}: {first_five(missing)}")
        if extra := len(present.difference(listed)):
            notes.append(f"{split}: {extra} images in {images.name} are not in {listing.name}, ignored")
        names = [n for n in listed if n in present]
    matches = {n: re.fullmatch(layout.pattern, n, re.IGNORECASE) for n in names}
    if bad := [n for n, match in matches.items() if match is None]:
        problems.append(f"{len(bad)} names in {images.name} don't follow the layout's pattern: {first_five(bad)}")
    rows = [(str(images / n), int(match[1]), int(match[2])) for n, match in matches.items() if match]
    return pd.DataFrame(rows, columns=["path", "pid", "camid"])


def _add_labels(dataset: Dataset) -> None:
    """Adds the columns type and color, as names, from *_label.xml and list_type.txt, list_color.txt where they are."""
    folder, notes, items = dataset.root, dataset.notes, []
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
        for split in SPLITS:
            frame = getattr(dataset, split)
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


LAYOUTS: dict[str, Callable[..., Dataset]] = {
    "market1501": partial(_read_folders, MARKET1501), "veri776": read_veri776, "csv": read_csv,
}  # fmt: skip
