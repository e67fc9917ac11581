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
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from reidlib.data.checks import check
from reidlib.data.csv_table import read_csv
from reidlib.data.dataset import SPLITS, DataError, Dataset, first_five
from reidlib.params import nearest

PICTURES = tuple(".jpg .jpeg .jfif .png .bmp .webp .gif .tif .tiff .ppm .pgm .avif .heic .heif .jp2 .jxl".split())


@dataclass(frozen=True)
class Folders:
    """A data set published as a folder of images for each split: its folder, in it those, the images' names.

    An image is called as `pattern` says and ends in one of PICTURES, whatever format it is in. A file that does one
    without the other is refused, for it may stand for half the set; what does neither is left out with a note.
    """

    title: str
    folder: str
    folders: dict[str, str]
    pattern: str
    source: str


MARKET1501 = Folders(
    title="Market-1501", folder="Market-1501-v15.09.15", pattern=r"(-1|[0-9]+)_c([0-9]+)s[0-9]+_.*",
    folders={"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"},
    source="download it from the data set's home page (Zheng et al., ICCV 2015) and unpack it",
)  # fmt: skip
VERI776 = Folders(
    title="VeRi-776", folder="VeRi", pattern=r"([0-9]+)_c([0-9]+)_.*",
    folders={"train": "image_train", "query": "image_query", "gallery": "image_test"},
    source="ask its authors for it, as the data set's home page (Liu et al., ECCV 2016) says, and unpack it",
)  # fmt: skip


def load(name: str, root: str | Path, trained: bool = True, **options) -> Dataset:
    """Reads the data set laid out as `name` (a key of LAYOUTS) from `root`, and checks it.

    root: for "market1501" and "veri776" the published folder, the folder that holds it, or any folder with the published
    sub-folders; for "csv" see `read_csv`. trained: False: nothing is trained on it, so that train may be empty. options: what
    the layout's function takes beside `root`; "csv" takes `table`.

    Raises ValueError for an unknown name or option, and DataError, listing all that is wrong, for unusable data.
    """
    if name not in LAYOUTS:
        raise ValueError(f"No data set layout is called {name!r}{nearest(name.lower(), list(LAYOUTS))}")
    read, root = LAYOUTS[name], Path(os.path.expanduser(root)).absolute()
    try:
        inspect.signature(read).bind(root, **options)
    except TypeError as error:
        raise ValueError(f"Layout {name!r}: {error}") from None
    try:
        dataset = read(root, **options)
    except OSError as error:  # no permission, gone meanwhile, a link that loops
        raise DataError(f"{name} in {root} can't be read: {error}. Mend it and load it again.") from error
    return check(dataset if isinstance(dataset, Dataset) else Dataset(name, root, *dataset), trained)


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
            f"{layout.folder}, but {root} {state}. If it is the published one, {layout.source}; pictures of your own, or of "
            "another set, go there laid out in the same way."
        )
    return folder


def _read_split(layout: Folders, folder: Path, split: str, notes: list[str], problems: list[str]) -> pd.DataFrame:
    """One split's path, pid and camid in the order of its list, or of the sorted names in its folder."""
    images = folder / layout.folders[split]
    if not images.is_dir():
        notes.append(f"{split}: the folder {images.name} is missing")
        return pd.DataFrame({"path": [], "pid": [], "camid": []})
    on_disk = sorted(os.listdir(images))
    matches = {n: re.fullmatch(layout.pattern, n, re.IGNORECASE | re.DOTALL) for n in on_disk}
    # Hidden files are those that macOS leaves beside each image in an archive.
    is_image = {n: n.lower().endswith(PICTURES) and not n.startswith(".") for n in on_disk}
    names = [n for n in on_disk if is_image[n] or matches[n]]
    if others := [n for n in on_disk if not (is_image[n] or matches[n])]:
        notes.append(f"{split}: {len(others)} files in {images.name} are no images, left out: {first_five(others)}")
    # VeRi-776 lists what belongs to image_train in name_train.txt, and so on; Market-1501 has no lists.
    listing = folder / f"{images.name.replace('image', 'name')}.txt"
    if names and (text := _text(listing)) is not None:
        listed = list(dict.fromkeys(text.split()))
        present = set(names)
        if missing := [n for n in listed if n not in present]:
            problems.append(f"{len(missing)} files of {listing.name} are not in {images.name}: {first_five(missing)}")
        if extra := sorted(present.difference(listed)):
            named = f"{len(extra)} images in {images.name} are not in {listing.name}"
            notes.append(f"{split}: {named}, left out: {first_five(extra)}")
        names = [n for n in listed if n in present]
    if bad := [n for n in names if not (is_image[n] and matches[n])]:
        wanted = f"{layout.pattern} and end in {', '.join(PICTURES)}"
        problems.append(f"{len(bad)} names in {images.name} don't follow the layout's pattern, {wanted}: {first_five(bad)}")
    stems = Counter(os.path.splitext(n)[0] for n in names)
    if twice := [n for n in names if stems[os.path.splitext(n)[0]] > 1]:
        problems.append(f"{len(twice)} images in {images.name} differ by extension alone: {first_five(twice)}")
    rows = [(str(images / n), int(matches[n][1]), int(matches[n][2])) for n in names if matches[n]]
    # paths as objects: a name may hold bytes that are no UTF-8, which pandas' strings in Arrow can't
    frame = pd.DataFrame(rows, columns=["path", "pid", "camid"], dtype=object)
    return frame.assign(**frame[["pid", "camid"]].infer_objects())


def _add_labels(dataset: Dataset) -> None:
    """Adds the columns type and color, as names, from *_label.xml and list_type.txt, list_color.txt where they are."""
    folder, notes, items = dataset.root, dataset.notes, []
    for file in (folder / "train_label.xml", folder / "test_label.xml"):
        text = _text(file)
        if text is None:
            notes.append(f"labels: {file.name} is missing")
            continue
        # Read with patterns: expat refuses gb2312, and any slip in the markup. They pass over a text once, however wrong.
        text = re.sub(r"<!--.*?(-->|\Z)", "", text, flags=re.DOTALL)
        items += [dict(re.findall(r'\b(\w+)\s*=\s*"([^"]*)"', tag)) for tag in re.findall(r"<Item\s[^<>]*>", text)]
    for column in ("type", "color"):
        lines = (_text(folder / f"list_{column}.txt") or "").splitlines()
        pairs = [match.groups() for line in lines if (match := re.match(r"([0-9]+)\W+(\w.*)", line.strip()))]
        names = {number.lstrip("0"): name for number, name in pairs}  # no int(): it refuses numbers of many digits
        codes = {i["imageName"]: i.get(f"{column}ID", "-").lstrip("0") for i in items if "imageName" in i}
        values = {image: names[code] for image, code in codes.items() if code in names}
        if not values:
            notes.append(f"labels: no {column} is given")
            continue
        for split in SPLITS:
            frame = getattr(dataset, split)
            frame[column] = frame["path"].map(lambda path: values.get(os.path.basename(path)))
            if unknown := int(frame[column].isna().sum()):
                notes.append(f"{split}: {unknown} images have no {column}")


def _text(file: Path) -> str | None:
    """A file's text, from UTF-8 or else gb18030, which includes gb2312; undecodable bytes are marked, not fatal.

    None where there is none.
    """
    if not os.path.lexists(file):
        return None
    if not file.is_file():  # a pipe would be waited for
        raise DataError(f"{file} is no file, nor a link to one; mend or delete it")
    data = file.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("gb18030", errors="replace")


LAYOUTS: dict[str, Callable[..., Dataset]] = {
    "market1501": partial(_read_folders, MARKET1501), "veri776": read_veri776, "csv": read_csv,
}  # fmt: skip
