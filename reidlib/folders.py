"""Folders of crops: which pictures are in them, their embeddings as a table, and a search in that table.

gallery = embed_pictures(network, pictures(["crops/"]))                     DataFrame: path, embedding
search(gallery, embed_pictures(network, pictures(["query.jpg"])), top=5)    DataFrame: query, rank, similarity, path

network: of deploy.open_network("student.safetensors").
"""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import normalize
from tqdm import tqdm

from reidlib.content import write_atomically
from reidlib.data import DataError
from reidlib.data.dataset import first_five
from reidlib.data.store import read_image
from reidlib.deploy import picture_size

BATCH = 64


def pictures(places: Sequence[str | Path]) -> list[Path]:
    """The picture files that are named, and those in folders that are named, by their endings; sorted by name.

    Raises DataError where a place is not there or holds none.
    """
    endings, found = Image.registered_extensions(), []
    for place in map(Path, places):
        if not place.exists():
            raise DataError(f"{place}: no such file or folder")
        inside = [place] if place.is_file() else sorted(p for p in place.rglob("*") if p.suffix.lower() in endings)
        if not inside:
            raise DataError(f"{place} holds no picture that Pillow reads (.jpg, .png, .webp and so on)")
        found += inside
    return found


def embed_pictures(network: nn.Module, files: Sequence[Path]) -> pd.DataFrame:
    """Columns path (absolute) and embedding (float32 [D], of length 1), a row a picture; cosine is a plain product.

    Pictures are decoded as in the study (`data.store.read_image`). Those that can't be are left out, and stderr says which.
    The table's attrs["network"] says which network it was. Raises DataError where none is left.
    """
    read, rows, failures = partial(_read, size=picture_size(network)), [], []
    with ThreadPoolExecutor() as pool, tqdm(total=len(files), desc="embed", unit="picture") as bar, torch.inference_mode():
        for start in range(0, len(files), BATCH):
            part = files[start : start + BATCH]
            read_in = dict(zip(part, pool.map(read, part)))
            failures += [said for said in read_in.values() if isinstance(said, str)]
            good = {file: pixels for file, pixels in read_in.items() if not isinstance(pixels, str)}
            if good:
                batch = torch.from_numpy(np.stack([*good.values()])).permute(0, 3, 1, 2).contiguous()
                vectors = normalize(network(batch).float(), dim=1).numpy()
                rows += zip((str(file.resolve()) for file in good), vectors)
            bar.update(len(part))
    _tell(failures, len(files))
    table = pd.DataFrame(rows, columns=["path", "embedding"])
    table.attrs["network"] = getattr(network, "origin", None)
    return table


def read_pictures(files: Sequence[Path], size: tuple[int, int]) -> np.ndarray:
    """Some pictures at once, uint8 [N, 3, h, w]; those that can't be read are left out as in `embed_pictures`."""
    read = [_read(file, size) for file in files]
    _tell([said for said in read if isinstance(said, str)], len(files))
    return np.stack([pixels for pixels in read if not isinstance(pixels, str)]).transpose(0, 3, 1, 2)


def _read(file: Path, size: tuple[int, int]) -> np.ndarray | str:
    """A picture, uint8 [h, w, 3]; where it can't be read, which one and why."""
    try:
        return read_image(file, size)
    except Exception as error:  # Pillow promises no kind, and broken files bring out many
        return f"{file} ({type(error).__name__}: {error})"


def _tell(failures: list[str], count: int) -> None:
    """Say which of `count` pictures could not be read. Raises DataError where none could."""
    if failures:
        print(f"left out, for {len(failures)} of {count} pictures can't be read: {first_five(failures)}", file=sys.stderr)
    if len(failures) == count:
        raise DataError("none of the pictures can be read")


def search(gallery: pd.DataFrame, queries: pd.DataFrame, top: int = 10) -> pd.DataFrame:
    """The nearest of `gallery` to each of `queries` by cosine, exactly: columns query, rank (from 1), similarity, path.

    A picture is no answer to itself. Raises DataError where the two come from networks of other widths.
    """
    vectors, asked = (np.stack(frame["embedding"].to_list()).astype(np.float32) for frame in (gallery, queries))
    if vectors.shape[1] != asked.shape[1]:
        raise DataError(f"the gallery's embeddings have {vectors.shape[1]} numbers, the queries' {asked.shape[1]}: "
                        "embed both with the same network")  # fmt: skip
    paths, rows = gallery["path"].to_numpy(), []
    for query, vector in zip(queries["path"], asked):
        similarity = np.where(paths == query, -np.inf, vectors @ vector)
        order = np.argsort(-similarity, kind="stable")[:top]
        order = order[np.isfinite(similarity[order])]
        rows += [(query, rank, similarity[place], paths[place]) for rank, place in enumerate(order, 1)]
    return pd.DataFrame(rows, columns=["query", "rank", "similarity", "path"])


def write_table(table: pd.DataFrame, file: str | Path) -> None:
    """A table of embeddings as Parquet, embeddings as lists of float32, which every vector database takes."""
    write_atomically(Path(file), lambda partial: table.to_parquet(partial, index=False))


def read_table(file: str | Path) -> pd.DataFrame:
    """What `write_table` wrote. Raises DataError where the file is none."""
    try:
        table = pd.read_parquet(file)
        if missing := {"path", "embedding"} - set(table.columns):
            raise ValueError(f"it has no column {', '.join(sorted(missing))}")
    except (OSError, ValueError) as error:
        raise DataError(f"{file} is no table of embeddings ({error}): python -m reidlib embed writes one") from error
    return table.assign(embedding=[np.asarray(row, np.float32) for row in table["embedding"]])
