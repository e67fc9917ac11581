"""Bad data of every kind, hand-picked and generated. Each is read with right counts, and what is left out is reported; or
it is refused by one DataError that names the place and a remedy. Never anything else, never in silence, and within seconds.
"""

import csv
import io
import os
import re
import struct
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from reidlib.data import DataError, Dataset, file_hashes, load
from reidlib.data.dataset import SPLITS
from reidlib.data.store import decode

SECONDS = 5  # of the processor, in which each must be done with; most take a hundredth of one
REMEDY = re.compile(r"\b(mend|fetch|edit|download|ask|name|give|needs|delete|rename)\b", re.IGNORECASE)
fuzz = settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))


def picture(kind="PNG", mode="RGB", size=(4, 8), **options) -> bytes:
    """A picture's bytes."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, size[::-1], dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


PNG = picture()
MARKET = {
    "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0002_c2s1_000551_01.jpg", "0007_c3s3_077419_03.jpg"],
    "query": ["0001_c1s1_001051_00.jpg"],
    "bounding_box_test": ["-1_c1s1_1_1.jpg", "0000_c1s1_1_1.jpg", "0001_c1s1_001051_00.jpg", "0001_c2s1_001051_03.jpg"],
}
VERI = {
    "image_train": ["0001_c001_00016450_0.jpg", "0001_c002_00016450_0.jpg", "0003_c020_00016450_0.jpg"],
    "image_query": ["0002_c002_00030600_0.jpg"],
    "image_test": ["0002_c002_00030600_0.jpg", "0002_c003_00030600_0.jpg"],
}
ITEM = '<Item imageName="{}" vehicleID="1" typeID="1" colorID="5" />\n'
XML = '<?xml version="1.0" encoding="gb2312"?>\n<TrainingImages><Items>\n{}</Items></TrainingImages>'
LABELS = XML.format("".join(ITEM.format(name) for name in VERI["image_train"]))
HEADER = "path,pid,camid,split"
ROWS = [
    "a.png,7,1,train",
    "b.png,7,2,train",
    "c.png,12,1,train",
    "d.png,3,1,query",
    "d.png,3,1,gallery",
    "e.png,3,2,gallery",
]


def write(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        file = Path(os.fsdecode(os.path.join(os.fsencode(folder), os.fsencode(name))))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def market(folder: Path) -> Path:
    return write(folder / "set", {f"{sub}/{name}": PNG for sub, names in MARKET.items() for name in names})


def veri(folder: Path) -> Path:
    lists = {f"name_{sub.removeprefix('image_')}.txt": "\n".join(names) for sub, names in VERI.items()}
    labels = {"train_label.xml": LABELS, "test_label.xml": XML.format(ITEM.format(VERI["image_test"][1]))}
    words = {"list_type.txt": "1 sedan\n2 suv\n", "list_color.txt": "1 yellow\n5 red\n"}
    pictures = {f"{sub}/{name}": PNG for sub, names in VERI.items() for name in names}
    return write(folder / "set", pictures | lists | labels | words)


def table(folder: Path, content: bytes | str | None = None) -> Path:
    content = "\n".join([HEADER, *ROWS, ""]) if content is None else content
    return write(folder / "set", {f"{name}.png": PNG for name in "abcdefg"} | {"set.csv": content})


SETS = {"market1501": market, "veri776": veri, "csv": table}


def opened(layout: str, root: Path, **options) -> Dataset | str:
    """The data set with all pictures hashed and decoded, or, where it is refused, why. Here the contract is held."""
    started = time.process_time()
    try:
        found = load(layout, root, **options)
        paths = pd.concat([getattr(found, split)["path"] for split in SPLITS]).tolist()
        with tempfile.TemporaryDirectory() as folder:
            assert (
                len(file_hashes(paths)) == len(decode(paths, (4, 2), Path(folder) / "store.npy", workers=1)) == len(paths)
            )
    except DataError as error:
        found = str(error)
        assert str(root) in found or repr(str(root))[1:-1] in found, f"which data set? {found}"
        assert REMEDY.search(found), f"what to do? {found}"
    assert time.process_time() - started < SECONDS
    if isinstance(found, Dataset):
        assert all(note.isprintable() for note in found.notes)
        for split in SPLITS:
            frame = getattr(found, split)
            assert frame["pid"].dtype == frame["camid"].dtype == np.int64
            assert frame["pid"].min() >= (-1 if split == "gallery" else 1)
    return found


def left_out(dataset: Dataset, split: str) -> int:
    """How many files or rows of a split the notes report as left out."""
    return sum(int(n) for note in dataset.notes for n in re.findall(rf"^{split}: (\d+) .*left out", note))


def account(found: Dataset | str, subs: dict[str, str]) -> None:
    """Each entry of a folder is a picture of its split, or in the report of what was left out."""
    if isinstance(found, Dataset):
        for split, sub in subs.items():
            assert len(getattr(found, split)) + left_out(found, split) == len(os.listdir(found.root / sub)), found.notes


MARKET_FOLDERS = dict(zip(SPLITS, MARKET)) | {"query": "query", "gallery": "bounding_box_test"}
VERI_FOLDERS = {"train": "image_train", "query": "image_query", "gallery": "image_test"}


# pictures

GIF = [Image.new("P", (4, 8), colour) for colour in (1, 2)]
TAKEN = {
    "a JPEG called .png": picture("JPEG"), "a PNG called .jpg": PNG, "a BMP": picture("BMP"), "a WebP": picture("WEBP"),
    "CMYK": picture("JPEG", "CMYK"), "YCbCr": picture("TIFF", "YCbCr"), "16-bit": picture("PNG", "I;16"),
    "32-bit": picture("TIFF", "I"), "float": picture("TIFF", "F"), "1-bit": picture("PNG", "1"), "grey": picture("JPEG", "L"),
    "palette": picture("GIF", "P"), "alpha": picture("PNG", "RGBA"), "grey alpha": picture("PNG", "LA"),
    "animated": picture("GIF", "L", save_all=True, append_images=GIF), "two pages": picture("TIFF", save_all=True, append_images=GIF),
    "1 pixel": picture("PNG", size=(1, 1)), "1 pixel JPEG": picture("JPEG", size=(1, 1)), "1 x 50,000": picture("PNG", size=(1, 50_000)),
    "held aside": picture("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
    "broken EXIF": picture("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"), "bytes behind": PNG + b"x" * 1000,
    "LAB": picture("TIFF", "LAB"), "alpha TIFF": picture("TIFF", "RGBA"), "progressive": picture("JPEG", progressive=True),
}  # fmt: skip


def png(width: int, height: int, depth: int = 8, colour: int = 2, content: bytes = b"") -> bytes:
    """A PNG that claims anything."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(content)), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


UNREADABLE = {
    "zero bytes": b"", "one byte": b"\xff", "text": b"no picture", "HTML": b"<html>404 Not Found</html>", "NULs": bytes(5000),
    "only a magic number": b"\xff\xd8\xff", "half a JPEG": picture("JPEG", size=(64, 64))[:900], "half a PNG": PNG[:60],
    "half a GIF": picture("GIF", "P")[:30], "half a WebP": picture("WEBP")[:40], "half a BMP": picture("BMP")[:40],
    "half a TIFF": picture("TIFF")[:60], "a bomb": png(50_000, 50_000), "a bomb of 2^31": png(2**31 - 1, 2**31 - 1),
    "no pixels": png(0, 0), "no row": png(8, 8), "a depth that is none": png(8, 8, 3), "a colour type that is none": png(8, 8, 8, 5),
    "a BMP bomb": picture("BMP")[:18] + b"\xff\xff\xff\x7f" * 2 + picture("BMP")[26:], "a zip": b"PK\x03\x04" + bytes(50),
    "a PDF": b"%PDF-1.4\n%%EOF\n", "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a Git LFS pointer": b"version https://git",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n", "JSON": b"{}",
    "a GIF bomb": b"GIF89a\xff\xff\xff\xff\0\0\0",
}  # fmt: skip


@pytest.mark.parametrize("content", TAKEN.values(), ids=TAKEN)
@pytest.mark.parametrize("layout", ["market1501", "csv"])
def test_odd_pictures_are_read(tmp_path, layout, content):
    root = SETS[layout](tmp_path)
    write(root, {"a.png" if layout == "csv" else f"bounding_box_train/{MARKET['bounding_box_train'][0]}": content})
    assert len(opened(layout, root).train) == 3


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("layout", ["market1501", "csv"])
def test_what_is_no_picture_is_refused_by_its_name(tmp_path, layout, content):
    root = SETS[layout](tmp_path)
    name = "a.png" if layout == "csv" else f"bounding_box_train/{MARKET['bounding_box_train'][0]}"
    write(root, {name: content})
    message = opened(layout, root)
    assert "1 of " in message and f"{root / name} (" in message


WHOLE = [picture(*kind, size=(24, 32)) for kind in (
    ("JPEG",), ("PNG",), ("GIF", "P"), ("BMP",), ("WEBP",), ("TIFF", "I;16"), ("PPM",), ("PNG", "RGBA"), ("JPEG", "CMYK"), ("AVIF",),
)]  # fmt: skip


@st.composite
def damaged(draw, whole) -> bytes:
    """One of `whole` with some bytes changed, doubled, lost or cut off."""
    content = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, len(content))), draw(st.integers(0, 40))
        match draw(st.sampled_from(["change", "double", "lose", "cut"])):
            case "change":
                content[at : at + length] = draw(st.binary(min_size=length, max_size=length))
            case "double":
                content[at:at] = content[at : at + length]
            case "lose":
                del content[at : at + length]
            case "cut":
                del content[max(at, 1) :]
    return bytes(content)


@settings(fuzz, max_examples=250)
@given(damaged(WHOLE))
def test_damaged_pictures(content):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "damaged.jpg"
        file.write_bytes(content)
        try:
            assert decode([file], (8, 4), Path(folder) / "store.npy", workers=1).shape == (1, 3, 8, 4)
        except DataError as error:
            assert str(file) in str(error) and REMEDY.search(str(error))


# folders of pictures, as Market-1501 and VeRi-776 are published

T, _, G = MARKET
NOT_PICTURES = [
    "Thumbs.db", ".DS_Store", "._0002_c1s1_000451_03.jpg", "desktop.ini", "readme", "note.txt", "list.csv", "ünï.txt", "名前.txt",
    b"\xff\xfe.txt", "two\nlines.txt", " ", "\x1b[31m.log", "sub/0009_c1s1_000001_00.jpg", ".hidden/0009_c1s1_1_1.jpg", "a" * 255,
]  # fmt: skip
ODD_NAMES = {  # and what identity, camera they are of
    "0009_c2s1_1_1.JPG": (9, 2), "0009_c2s1_1_1.Jpeg": (9, 2), "0009_C2S1_1_1.png": (9, 2), "9_c2s1_.bmp": (9, 2),
    "0009_c2s1_1_1.webp": (9, 2), "0009_c2s1_1_1.gif": (9, 2), "0009_c2s1_1_1.tiff": (9, 2), "0009_c2s1_1_1.avif": (9, 2),
    "0009_c0s0_ü.jpg": (9, 0), "0009_c2s1_人.jpg": (9, 2), "0009_c2s1_ .jpg": (9, 2), "0009_c2s1_\n.jpg": (9, 2),
    b"0009_c2s1_\xff\xfe.jpg": (9, 2), "0009_c2s1_.jpg.jpg": (9, 2), "0009_c2s1_\u202egpj.png": (9, 2), "-1_c1s1_1.jpg": (-1, 1),
    "2147483648_c1s1_1.jpg": (2**31, 1), "4294967297_c1s1_1.jpg": (2**32 + 1, 1), "0009_c2147483649s1_1.jpg": (9, 2**31 + 1),
    "9007199254740991_c1s1_1.jpg": (2**53 - 1, 1), "00000000000000000000000000000009_c2s1_1.jpg": (9, 2),
}  # fmt: skip
WRONG_NAMES = [
    "person.jpg", "0009.png", "0009_c1.jpg", "0009_c1s1.jpg", "0009-c1s1-1.jpg", "_c1s1_1.jpg", "0009_cs1_1.jpg", "x_c1s1_1.jpg",
    "-2_c1s1_1.jpg", "+9_c1s1_1.jpg", "9.0_c1s1_1.jpg", "٣_c1s1_1.jpg", "９_c1s1_1.jpg", "0009_c٣s1_1.jpg", " 0009_c1s1_1.jpg",
    "0009_c-1s1_1.jpg", "a.webp", "b.BMP", "c.gif", "d.tif", "e.heic", "f.avif", b"\xff.jpg", "ü.jpg", "two\nlines.jpg",
    "0009_c1s1_1", "0009_c1s1_1.jpg~", "0009_c1s1_1.jpg.part", "0009_c1s1_1.txt", "0009_c1s1_1.raw", "0009_c1s1_1.jpg ",
    "9007199254740993_c1s1_1.jpg", "99999999999999999999_c1s1_1.jpg", "9" * 200 + "_c1s1_1.jpg", "0009_c" + "9" * 30 + "s1_1.jpg",
    "0000_c1s1_1.jpg", "0_c1s1_1.jpg", "0002_c1s1_000451_03.png", "0002_c1s1_000451_03.webp", "0001_c1s1_2.jpg",
]  # fmt: skip


@pytest.mark.parametrize("name", NOT_PICTURES)
@pytest.mark.parametrize("sub", [T, G])
def test_what_is_no_picture_is_left_out_and_reported(tmp_path, name, sub):
    root = write(market(tmp_path), {os.fsencode(f"{sub}/") + os.fsencode(name): PNG})
    found = opened("market1501", root)
    assert [len(found.train), len(found.query), len(found.gallery)] == [3, 1, 4]
    account(found, MARKET_FOLDERS)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_are_read(tmp_path, name):
    root = write(market(tmp_path), {os.fsencode(f"{G}/") + os.fsencode(name): PNG})
    found = opened("market1501", root)
    assert sorted(zip(found.gallery["pid"], found.gallery["camid"])) == sorted(
        [(-1, 1), (0, 1), (1, 1), (1, 2), ODD_NAMES[name]]
    )
    account(found, MARKET_FOLDERS)


@pytest.mark.parametrize("name", WRONG_NAMES)
def test_a_wrong_name_is_refused(tmp_path, name):
    message = opened("market1501", write(market(tmp_path), {os.fsencode(f"{T}/") + os.fsencode(name): PNG}))
    shown = {"0000_c1s1_1.jpg": "identity 0", "0_c1s1_1.jpg": "identity 0", "0001_c1s1_2.jpg": "both train and"}
    shown |= {name: max(re.findall("[0-9]+", name), key=len) for name in map(os.fsdecode, WRONG_NAMES) if "99" in name}
    name = os.fsdecode(name)
    assert shown.get(name, name if name.isprintable() else repr(name)) in message


def loop(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(path.name)


def nowhere(path: Path) -> None:
    path.symlink_to("nowhere")


def pipe(path: Path) -> None:
    """A file that none writes to: whoever reads it waits for ever."""
    os.mkfifo(path)


NO_FILE = {"loop": loop, "link to nothing": nowhere, "pipe": pipe, "folder": Path.mkdir}


@pytest.mark.parametrize("make", NO_FILE.values(), ids=NO_FILE)
@pytest.mark.parametrize("layout, name, is_left_out", [
    ("market1501", f"{T}/0002_c1s1_9.jpg", False), ("market1501", f"{T}/other", True), ("market1501", f"{G}/photo.jpg", False),
    ("veri776", "image_train/0001_c001_9.jpg", True), ("veri776", "image_test/other", True), ("csv", "a.png", False),
    ("veri776", "image_train/0001_c001_00016450_0.jpg", False), ("veri776", "name_train.txt", False),
    ("veri776", "train_label.xml", False), ("veri776", "list_type.txt", False), ("csv", "set.csv", False),
])  # fmt: skip
def test_what_is_no_file(tmp_path, layout, name, is_left_out, make):
    root = SETS[layout](tmp_path)
    (root / name).unlink(missing_ok=True)
    make(root / name)
    found = opened(layout, root)
    assert isinstance(found, Dataset) == is_left_out and (is_left_out or Path(name).name in found or "no CSV file" in found)
    account(found, MARKET_FOLDERS if layout == "market1501" else VERI_FOLDERS)


@pytest.mark.parametrize("make", NO_FILE.values(), ids=NO_FILE)
@pytest.mark.parametrize("layout", SETS)
@pytest.mark.parametrize("sub", ["", "query", "image_test"])
def test_a_folder_that_is_none(tmp_path, layout, sub, make):
    place = tmp_path / "set" / sub
    if sub:
        SETS[layout](tmp_path)
        place.rename(tmp_path / "away") if place.exists() else None
    make(place)
    found = opened(layout, tmp_path / "set")
    is_in_the_way = not sub or (sub, layout) in {("query", "market1501"), ("image_test", "veri776")}
    assert isinstance(found, str) == is_in_the_way


@pytest.mark.parametrize(
    "root", ["", "absent", "a\0b", "x" * 300, "~nobody-of-this-name", "ü/人", "a\nb", "../" * 50, "/dev/null", b"\xff"]
)
@pytest.mark.parametrize("layout", SETS)
def test_roots_that_hold_nothing(tmp_path, layout, root):
    root = tmp_path / os.fsdecode(root) if root != "~nobody-of-this-name" else Path(root)
    assert isinstance(opened(layout, root), str)


MARKET_PIECES = st.sampled_from(
    ["0001", "0002", "0009", "-1", "0000", "0", "٣", "99999999999999999999", "_", "_c", "_c1", "_c2s1", "_c2s1_", "_C1S1_", "s1_1",
     ".jpg", ".JPG", ".png", ".bmp", ".webp", ".heic", ".txt", ".", "~", " ", "\n", "ü", "人", "\udcff", "x"]
)  # fmt: skip
WORD = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=30)
NAMES = st.lists(MARKET_PIECES, min_size=1, max_size=7).map("".join) | WORD | st.builds(
    "{}_c{}s{}_{}{}".format, st.integers(-2, 2**70) | st.integers(-1, 12), st.integers(0, 9) | st.integers(0, 2**70), st.integers(0, 9),
    st.integers(0, 99), st.sampled_from([".jpg", ".png", ".bmp", ".WEBP", ".tif", ".txt", ""]),
)  # fmt: skip


@fuzz
@given(st.lists(st.tuples(st.sampled_from(list(MARKET)), NAMES), min_size=1, max_size=6))
def test_generated_names(entries):
    with tempfile.TemporaryDirectory() as folder:
        root = market(Path(folder))
        for sub, name in entries:
            if name not in (".", "..") and len(os.fsencode(name)) < 256:
                (root / sub / name).write_bytes(PNG)
        found = opened("market1501", root)
        account(found, MARKET_FOLDERS)
        if isinstance(found, Dataset):
            for split in SPLITS:
                for path, pid, camid in getattr(found, split)[["path", "pid", "camid"]].values.tolist():
                    assert re.match(rf"0*{pid}_c0*{camid}s", os.path.basename(path), re.IGNORECASE)


# VeRi-776's lists and labels

LISTS = {  # content of name_train.txt, and how many pictures it leaves in train; None: refused
    "none": (b"", None), "spaces": (b" \n \t", None), "one": (b"0001_c001_00016450_0.jpg", None), "twice": ("\n".join(VERI["image_train"] * 9), 3),
    "two of three": ("\r\n".join(VERI["image_train"][1:]), 2), "BOM": ("\ufeff" + "\n".join(VERI["image_train"]), 3),
    "UTF-16": ("\n".join(VERI["image_train"]).encode("utf-16"), None), "binary": (bytes(range(256)) * 20, None),
    "absent": (b"0001_c001_00016450_0.jpg\nabsent.jpg", None), "with folders": (b"image_train/0001_c001_00016450_0.jpg", None),
    "outside": (b"../image_test/0002_c002_00030600_0.jpg", None), "another extension": (b"0001_c001_00016450_0.png", None),
    "a long line": (b"x" * 2_000_000, None), "NULs": (bytes(1000), None), "other case": (b"0001_C001_00016450_0.JPG", None),
}  # fmt: skip


@pytest.mark.parametrize("content, count", LISTS.values(), ids=LISTS)
def test_lists(tmp_path, content, count):
    found = opened("veri776", write(veri(tmp_path), {"name_train.txt": content}))
    assert count == (len(found.train) if isinstance(found, Dataset) else None)
    account(found, VERI_FOLDERS)


FIRST = VERI["image_train"][0]
XMLS = {  # content of train_label.xml, and the type it gives to the first picture
    "right": (LABELS, "sedan"), "none": (b"", None), "no XML": (b"no labels", None), "binary": (bytes(range(256)) * 99, None),
    "gb2312": (LABELS.replace("<Items>", "<!-- 轿车 --><Items>").encode("gb2312"), "sedan"), "UTF-16": (LABELS.encode("utf-16"), None),
    "BOM": ("\ufeff" + LABELS, "sedan"), "half": (LABELS[: len(LABELS) // 2], "sedan"), "half a tag": (LABELS[:90], None),
    "not closed": (LABELS.replace("/>", ">").replace("</", "<"), "sedan"), "two roots": (LABELS * 2, "sedan"),
    "in a comment": (f"<!-- {LABELS} -->", None), "in a comment that never ends": (f"<!-- {LABELS}", None),
    "other order": (f'<Item typeID="2" colorID="1" imageName="{FIRST}"/>', "suv"), "one attribute": (f'<Item imageName="{FIRST}"/>', None),
    "over lines": (f'<Item\n imageName = "{FIRST}"\n\ttypeID\n=\n"1"\n/>', "sedan"), "no name": ('<Item typeID="1"/>', None),
    "no such type": (f'<Item imageName="{FIRST}" typeID="77"/>', None), "negative": (f'<Item imageName="{FIRST}" typeID="-1"/>', None),
    "a word": (f'<Item imageName="{FIRST}" typeID="sedan"/>', None), "empty": (f'<Item imageName="{FIRST}" typeID=""/>', None),
    "zeros": (f'<Item imageName="{FIRST}" typeID="0001"/>', "sedan"), "superscript": (f'<Item imageName="{FIRST}" typeID="²"/>', None),
    "9,999 digits": (f'<Item imageName="{FIRST}" typeID="{"9" * 9999}"/>', None), "another script": (f'<Item imageName="{FIRST}" typeID="١"/>', None),
    "a path": (f'<Item imageName="../image_test/{FIRST}" typeID="1"/>', None), "twice": (f'<Item imageName="{FIRST}" typeID="2"/>{LABELS}', "sedan"),
    "external entity": (f'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><Item imageName="&e;" typeID="1"/>{LABELS}', "sedan"),
    "a billion laughs": ("<!DOCTYPE x [" + "".join(f'<!ENTITY l{i + 1} "{f"&l{i};" * 10}">' for i in range(9)) + f"]><x>&l9;</x>{LABELS}", "sedan"),
    "comments that never end": ("<!--" * 500_000, None), "tags that never end": ("<Item " * 400_000, None), "a deep tree": ("<a>" * 500_000, None),
    "a long word": (f'<Item {"a" * 2_000_000} imageName="{FIRST}" typeID="1"/>', "sedan"), "quotes": ('<Item a="' * 200_000, None),
    "many attributes": ("<Item " + 'a="b" ' * 300_000 + "/>", None), "spaces": ("<Item a" + " " * 2_000_000 + "/>", None),
    "words without value": ("<Item " + "a " * 1_000_000 + "/>", None), "NULs": (bytes(10**6), None), "half comments": ("<!- -" * 400_000, None),
}  # fmt: skip


@pytest.mark.parametrize("content, expected", XMLS.values(), ids=XMLS)
def test_labels(tmp_path, content, expected):
    found = opened("veri776", write(veri(tmp_path), {"train_label.xml": content}))
    assert len(found.train) == 3 and found.query["type"].isna().all() and found.gallery["type"].notna().sum() == 1
    value = found.train["type"].iloc[0]
    assert value == expected if expected else pd.isna(value)
    assert any(re.match(r"query: 1 images have no type", note) for note in found.notes)


TYPES = {  # content of list_type.txt, and the name of type 1
    "right": ("1 sedan", "sedan"), "none": (b"", None), "BOM": ("\ufeff1 sedan", "sedan"), "gb2312": ("1 轿车".encode("gb2312"), "轿车"),
    "tabs": ("1\t-\tsedan  \r\n", "sedan"), "two words": ("1 pickup truck\n", "pickup truck"), "zeros": ("001 sedan", "sedan"),
    "no number": ("sedan", None), "no name": ("1\n2\n", None), "twice": ("1 suv\n1 sedan", "sedan"), "binary": (bytes(range(128, 256)) * 50, None),
    "9,999 digits": ("9" * 9999 + " x\n1 sedan", "sedan"), "spaces": ("1" + " " * 300_000 + "\n1 sedan", "sedan"), "NULs": (bytes(100_000), None),
    "a long number": ("1" * 1_000_000, None), "a long name": ("1 " + "x " * 300_000 + "\n1 sedan", "sedan"), "lines": ("\n" * 300_000 + "1 sedan", "sedan"),
    "another script": ("٣ suv\n1 sedan", "sedan"), "superscript": ("² suv\n1 sedan", "sedan"), "indented": ("  1 sedan", "sedan"),
}  # fmt: skip


@pytest.mark.parametrize("content, expected", TYPES.values(), ids=TYPES)
def test_lists_of_types(tmp_path, content, expected):
    found = opened("veri776", write(veri(tmp_path), {"list_type.txt": content}))
    assert len(found.train) == 3
    values = found.train["type"].tolist() if "type" in found.train else [None]
    assert values[0] == expected if expected else pd.isna(values[0])


PARTS = {"name_train.txt": "\n".join(VERI["image_train"]), "train_label.xml": LABELS, "list_type.txt": "1 sedan\n2 suv\n"}


@fuzz
@given(st.sampled_from(list(PARTS)).flatmap(
    lambda name: st.tuples(st.just(name), st.binary(max_size=200) | damaged([PARTS[name].encode()]))
))  # fmt: skip
def test_damaged_lists_and_labels(part):
    with tempfile.TemporaryDirectory() as folder:
        found = opened("veri776", write(veri(Path(folder)), dict([part])))
        account(found, VERI_FOLDERS)
        if part[0] != "name_train.txt":
            assert [len(found.train), len(found.query), len(found.gallery)] == [3, 1, 2]


# tables


def lines(*rows: str) -> str:
    return "\n".join([HEADER, *ROWS, *rows, ""])


TABLES = {  # content of set.csv, and how many rows train, query and gallery have; None: refused
    "right": (lines(), (3, 1, 2)), "no bytes": (b"", None), "a line break": (b"\n", None), "header alone": (HEADER, None), "no header": ("\n".join(ROWS), None),
    "semicolons": (lines().replace(",", ";"), None), "tabs": (lines().replace(",", "\t"), None), "capitals": (lines().replace("path", "Path"), None),
    "spaces in the header": (lines().replace(",pid", ", pid"), None), "spaces around": (lines("a.png , 7 , 1 , gallery "), None),
    "BOM": ("\ufeff" + lines(), (3, 1, 2)), "UTF-16": (lines().encode("utf-16"), None), "Latin-1": (lines("ü.png,7,1,train").encode("latin-1"), None),
    "old Mac": (lines().replace("\n", "\r"), (3, 1, 2)), "Windows": (lines().replace("\n", "\r\n"), (3, 1, 2)), "quoted": (lines('"f.png","7","1","train"'), (4, 1, 2)),
    "blank lines": (lines("", ",,,", "", "f.png,7,1,train"), (4, 1, 2)), "binary": (bytes(range(256)) * 50, None), "NULs": (bytes(1000), None),
    "a NUL": (lines("f\0.png,7,1,train"), None), "zip": (b"PK\x03\x04" + bytes(99), None), "gzip": (b"\x1f\x8b\x08" + bytes(99), None), "HTML": (b"<html></html>", None),
    "an open quote": (lines('"f.png,7,1,train', "g.png,7,1,train"), None), "a quote over lines": (lines('f.png,7,1,"train', 'g.png,7,1,train"'), None),
    "a quote swallows rows": (f"{HEADER},note\n" + "\n".join(f"{r},x" for r in ROWS) + '\nf.png,7,1,train,"x\ng.png,7,1,train,x"\n', None),
    "a field too many": (lines("f.png,7,1,train,x"), None), "a field too few": (lines("f.png,7,1"), None), "one field": (lines("f.png"), None),
    "a field too many in all": ("\n".join([HEADER, *(f"{row},x" for row in ROWS)]), None), "a comma in a path": (lines("f,g.png,7,1,train"), None),
    "an index": ("\n".join([HEADER, *(f"{i},{row}" for i, row in enumerate(ROWS))]), None), "a named index": ("\n".join([f",{HEADER}", *(f"{i},{r}" for i, r in enumerate(ROWS))]), (3, 1, 2)),
    "pid twice": (f"{HEADER},pid\n" + "\n".join(f"{row},1" for row in ROWS), None), "split twice": (f"split,{HEADER}\n" + "\n".join(f"train,{row}" for row in ROWS), None),
    "no path": (lines(",7,1,train"), None), "no pid": (lines("f.png,,1,train"), None), "no camera": (lines("f.png,7,,train"), None), "no split": (lines("f.png,7,1,"), None),
    "pid NA": (lines("f.png,NA,1,train"), None), "pid a word": (lines("f.png,x,1,train"), None), "pid 1.5": (lines("f.png,1.5,1,train"), None), "pid 7.0": (lines("f.png,7.0,1,train"), (4, 1, 2)),
    "pid 1e3": (lines("f.png,1e3,1,train"), None), "pid -2": (lines("f.png,-2,1,train"), None), "pid inf": (lines("f.png,inf,1,train"), None), "pid nan": (lines("f.png,nan,1,train"), None),
    "pid hexadecimal": (lines("f.png,0x7,1,train"), None), "pid 1_000": (lines("f.png,1_000,1,train"), None), "pid 1 000": (lines("f.png,1 000,1,train"), None), "pid ٣": (lines("f.png,٣,1,train"), None),
    "pid ７": (lines("f.png,７,1,train"), None), "pid ²": (lines("f.png,²,1,train"), None), "pid 2^31": (lines(f"f.png,{2**31},1,train"), (4, 1, 2)), "pid 2^53-1": (lines(f"f.png,{2**53 - 1},1,train"), (4, 1, 2)),
    "pid 2^53+1": (lines(f"f.png,{2**53 + 1},1,train"), None), "pid 2^63": (lines(f"f.png,{2**63},1,train"), None), "pid 2^64": (lines(f"f.png,{2**64},1,train"), None), "pid 10^30": (lines("f.png,1" + "0" * 30 + ",1,train"), None),
    "pid 10^9999": (lines("f.png,1" + "0" * 9999 + ",1,train"), None), "pid junk": (lines("f.png,-1,1,gallery"), (3, 1, 3)), "pid junk in train": (lines("f.png,-1,1,train"), (3, 1, 2)),
    "camera -1": (lines("f.png,7,-1,train"), None), "camera 0": (lines("f.png,7,0,train"), (4, 1, 2)), "camera 2^31": (lines(f"f.png,7,{2**31},train"), (4, 1, 2)), "camera 10^20": (lines("f.png,7,1" + "0" * 20 + ",train"), None),
    "split val": (lines("f.png,7,1,val"), None), "split TRAIN": (lines("f.png,7,1,TRAIN"), None), "split 0": (lines("f.png,7,1,0"), None), "path absent": (lines("absent.png,7,1,train"), None), "path a folder": (lines(".,7,1,train"), None),
    "path of another case": (lines("F.PNG,7,1,train"), None), "path a URL": (lines("https://x.org/f.png,7,1,train"), None), "path ~": (lines("~/f.png,7,1,train"), None), "path with backslashes": (lines("people\\f.png,7,1,train"), None),
    "path very long": (lines("x" * 100_000 + ",7,1,train"), None), "path /dev/zero": (lines("/dev/zero,7,1,train"), None), "path /dev/stdin": (lines("/dev/stdin,7,1,train"), None), "path the table": (lines("set.csv,7,1,train"), None),
    "path NA": (lines("NA,7,1,train"), None), "path unicode": (lines("ü人.png,7,1,train"), None), "path twice": (lines("./a.png,7,1,train"), None), "path in two splits": (lines("a.png,7,1,gallery"), None), "relabelled": (lines("d.png,4,1,gallery"), None),
    "two labels": (lines("e.png,3,1,query"), None), "one identity": (lines().replace(",12,", ",7,"), None), "one camera": (lines().replace(",2,", ",1,"), None), "leak": (lines("f.png,3,1,train"), None), "no gallery": ("\n".join([HEADER, *ROWS[:4]]), None),
    "formula": (lines("=cmd|' /C calc'!A0,7,1,train"), None), "a comment": (lines("# f.png,7,1,train"), None), "a long extra column": (f"{HEADER},note\n" + "\n".join(f"{row},{'x' * 100_000}" for row in ROWS), (3, 1, 2)),
    "10,000 columns": (",".join([HEADER, *map(str, range(9996))]) + "\n" + "\n".join(row + "," * 9996 for row in ROWS), (3, 1, 2)), "extra numbers": (f"{HEADER},n\n" + "\n".join(f"{row},{10**i}" for i, row in zip((1, 30, 3, 400, 5, 6), ROWS)), (3, 1, 2)),
    "identity 0": (lines("f.png,0,1,train", "g.png,0,2,train"), (5, 1, 2)), "identity 0.0": (lines("f.png,0.0,1,train", "g.png,-0,2,train"), (5, 1, 2)), "identity 0 at 2^53-1": (lines(f"f.png,{2**53 - 1},1,train", "g.png,0,1,train"), None),
}  # fmt: skip


@pytest.mark.parametrize("content, counts", TABLES.values(), ids=TABLES)
def test_tables(tmp_path, content, counts):
    found = opened("csv", table(tmp_path, content))
    assert (tuple(len(getattr(found, split)) for split in SPLITS) if isinstance(found, Dataset) else None) == counts
    if isinstance(found, Dataset):
        assert not (found.gallery["pid"] == 0).any()


CELLS = st.sampled_from([
    *"abcdefg", "a.png", "f.png", "./f.png", "g.png", "set.csv", "..", "0", "1", "3", "7", "12", "-1", "-0", "0.0", "1.5", "1e5", "nan", "NA", "", " ", "²", "٣",
    "train", "query", "gallery", "Train", "train ", '"', '""', '"a.png"', "'", "\n", "\r", "\0", ",", ";", "\ufeff", "ü", "\u2028", str(2**31), str(2**63), "9" * 40,
])  # fmt: skip
FURTHER = st.lists(  # rows with which the table is, mostly, as right as without
    st.builds("{}.png,{},{},{}".format, st.sampled_from("fg"), st.sampled_from([0, 7, 12, 99, 2**31, "7.0", " 7 ", "-1"]),
              st.integers(0, 3), st.sampled_from(["train", "gallery", '"train"'])), max_size=2, unique_by=lambda row: row[0],
)  # fmt: skip
ROW = st.lists(CELLS, min_size=1, max_size=6).map(",".join) | st.sampled_from(ROWS) | st.builds(
    "{}.png,{},{},{}".format, st.sampled_from("abcdefgh"), st.integers(-2, 13), st.integers(-1, 3), st.sampled_from(SPLITS)
)  # fmt: skip
CONTENT = (
    FURTHER.map(lambda rows: lines(*rows, "").encode())
    | st.lists(ROW, max_size=5).map(lambda rows: lines(*rows).encode())
    | damaged([lines().encode()])
    | st.binary(max_size=100)
)


@settings(fuzz, max_examples=150)
@given(CONTENT)
def test_generated_tables(content):
    with tempfile.TemporaryDirectory() as folder:
        found = opened("csv", table(Path(folder), content))
        if isinstance(found, Dataset):
            rows = [
                row for row in csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")) if any(row.values())
            ]
            for split in SPLITS:
                wanted = [row for row in rows if row["split"].strip() == split]
                assert len(getattr(found, split)) + left_out(found, split) == len(wanted)


def test_where_a_table_is_named(tmp_path):
    root = table(tmp_path)
    for name in ("absent.csv", "~nobody-of-this-name/x.csv", "a\0.csv", "x" * 300, "/dev/null", "..", "ü.csv"):
        message = opened("csv", root, table=name)
        assert isinstance(message, str) and name.split("/")[0].replace("\0", "") in message.replace("\0", "")
    (tmp_path / "link.csv").symlink_to(root / "set.csv")
    assert len(opened("csv", root, table=tmp_path / "link.csv").train) == 3


# what changes while it is read


def test_pictures_that_vanish_after_the_set_is_loaded(tmp_path):
    paths = load("market1501", market(tmp_path)).train["path"].tolist()
    os.unlink(paths[0])
    for work in (lambda: file_hashes(paths), lambda: decode(paths, (4, 2), tmp_path / "store.npy")):
        with pytest.raises(DataError, match=f"1 of 3 .*fetch.*{re.escape(paths[0])}|1 of 3 .*{re.escape(paths[0])}.*fetch"):
            work()


@pytest.mark.parametrize("layout", SETS)
def test_files_that_vanish_while_the_set_is_loaded(tmp_path, layout, monkeypatch):
    """Whatever is opened or listed is gone when it comes to it."""
    root = SETS[layout](tmp_path)

    def gone(path, *args, **kwargs):
        raise FileNotFoundError(2, "No such file or directory", str(path))

    for place in ("os.listdir", "pathlib.Path.read_bytes"):
        with monkeypatch.context() as patch:
            patch.setattr(place, gone)
            found = opened(layout, root)
        assert isinstance(found, Dataset) or "No such file" in found
