"""The decoded store: every image decoded and resized once, kept as one memory-mapped uint8 array."""

import os
import shutil
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import ExifTags, Image
from tqdm import tqdm

from reidlib.data.dataset import DataError, first_five

CHUNK = 32  # images a thread decodes before it takes more: handing them out one by one costs as much as decoding a tenth
BEHIND = "black"  # what transparent pictures are laid on, like the border that augmentation adds
TURNS = {  # what sets a picture upright, by its EXIF orientation; one of 5 to 8 lies on its side
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def decode(
    images: pd.DataFrame | Sequence[str | Path], size: tuple[int, int], file: str | Path, workers: int | None = None,
    title: str = "",
) -> np.memmap:  # fmt: skip
    """Decodes `images` (paths, or a DataFrame with a column path) into `file` (.npy), or reopens it when it exists.

    Returns a read-only uint8 array [N, 3, h, w], RGB, for `size` (h, w) in pixels. The caller chooses a file name that
    stands for the images and the size; `title` is shown beside the bar. The file appears whole or not at all. `workers`
    threads (default: one per core) do it: Pillow lets go of the interpreter while it decodes and resizes. Raises DataError,
    naming the first five, where images can't be read, where the disk is too full, or where `file` holds something else.
    """
    paths = [str(path) for path in (images["path"] if isinstance(images, pd.DataFrame) else images)]
    file = Path(file)
    shape = (len(paths), 3, *size)
    if not paths:
        raise DataError(f"No images to decode into {file}")
    if file.exists():
        return _reopen(file, shape)
    file.parent.mkdir(parents=True, exist_ok=True)
    needed, free = int(np.prod(shape)), shutil.disk_usage(file.parent).free
    if needed > free:
        raise DataError(f"{file} needs {needed / 1e9:.1f} GB, but its disk has {free / 1e9:.1f} GB left")

    def decode_chunk(start: int) -> tuple[int, list[str]]:
        failures, chunk = [], paths[start : start + CHUNK]
        pixels = np.zeros((len(chunk), *shape[1:]), np.uint8)
        for row, path in zip(pixels, chunk):
            try:
                row[:] = read_image(path, size).transpose(2, 0, 1)
            except Exception as error:  # Pillow promises no kind, and broken files bring out many
                failures.append(f"{path} ({type(error).__name__}: {error})")
        if os.pwrite(store.fileno(), pixels, header + start * pixels[0].nbytes) < pixels.nbytes:
            raise DataError(f"{file} could not be written whole: its disk is full")
        return len(chunk), failures

    partial = file.with_name(f".{file.stem}.{uuid.uuid4().hex[:8]}.partial")
    failures, pool = [], ThreadPoolExecutor(workers or os.cpu_count())
    try:
        # written, not mapped: a new page of a map costs more than a copy, and a full disk would kill the process
        with (
            partial.open("wb", buffering=0) as store,
            tqdm(total=len(paths), desc=f"decode {title or file.stem}", unit="image") as bar,
        ):
            np.lib.format.write_array_header_2_0(store, {"descr": "|u1", "fortran_order": False, "shape": shape})
            header = store.tell()
            for done, failed in pool.map(decode_chunk, range(0, len(paths), CHUNK)):
                failures += failed
                bar.update(done)
        if failures:
            count = f"{len(failures)} of {len(paths)}"
            raise DataError(f"{count} images can't be read; fetch them again: {first_five(failures)}")
        partial.replace(file)
    finally:
        pool.shutdown(cancel_futures=True)
        partial.unlink(missing_ok=True)
    return _reopen(file, shape)


def read_image(path: str | Path, size: tuple[int, int]) -> np.ndarray:
    """One image as uint8 RGB [h, w, 3], resized to `size` (h, w) with an antialiased bicubic filter: see `open_image`."""
    return np.asarray(open_image(path, size).resize(size[::-1], Image.Resampling.BICUBIC))


def open_image(path: str | Path, size: tuple[int, int]) -> Image.Image:
    """One image in RGB, as it is seen; large enough to be shown at `size` (h, w).

    Of an animation the first frame; set upright, where EXIF says how it was held; what is transparent laid on BEHIND.
    Grey of more than 8 bits (thermal, infrared) is stretched from the picture's lowest value, black, to its highest,
    white, for no file says which part of its range a camera uses.
    """
    height, width = size
    with Image.open(path) as image:
        if image.format == "EPS":
            raise ValueError("PostScript is a program, which may never end, and no picture")
        # A JPEG much larger than needed is decoded at a fraction of its size, never under twice what is needed.
        is_on_side = image.format in ("JPEG", "MPO") and _orientation(image) in (5, 6, 7, 8)
        image.draft(None, (2 * height, 2 * width) if is_on_side else (2 * width, 2 * height))
        image.load()
        turn = TURNS.get(_orientation(image))  # only now: EXIF may stand last in a file, and Pillow turns a TIFF itself
        upright = image if turn is None else image.transpose(turn)
        return _rgb(upright)


def _orientation(image: Image.Image) -> int | None:
    """EXIF's; where that can't be read the picture is taken as it is, as viewers do."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # like what Pillow raises for a broken picture
        return None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, float)
        known = values[np.isfinite(values)]  # a gap in what a thermal camera measured may be NaN: black
        low, high = (known.min(), known.max()) if known.size else (0, 0)
        share = (np.nan_to_num(values, nan=low).clip(low, high) - low) / ((high - low) or 1)
        image = Image.fromarray((255 * share).round().astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, BEHIND), image)
    return image.convert("RGB")


def gather(store: np.ndarray, index: np.ndarray | slice) -> torch.Tensor:
    """The batch store[index] as a uint8 tensor [B, 3, h, w], a copy in memory."""
    # asarray: not the map's own class, whose copy would have to be copied once more
    return torch.from_numpy(np.require(np.asarray(store)[index], requirements=["C", "W", "O"]))


def _reopen(file: Path, shape: tuple[int, ...]) -> np.memmap:
    try:
        store = np.load(file, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise DataError(f"{file} is no readable store ({error}); delete it to decode again") from error
    if store.shape != shape or store.dtype != np.uint8:
        raise DataError(f"{file} holds {store.dtype} {store.shape}, not uint8 {shape}; delete it to decode again")
    return store
