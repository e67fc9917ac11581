"""A gallery that grows and is searched: vectors in an index of faiss, what is known of each picture in a table beside it.

    gallery = Gallery.build(table)                       columns path, embedding, and whatever else: camid, time, pid ...
    gallery.search(vectors, top=10, where="camid != 3 and time >= '2026-11-01'")
    gallery.add(more), gallery.remove(ids), gallery.save("gallery/"), Gallery.load("gallery/")

Up to EXACT pictures every vector is looked at, and answers are exact. Beyond, the nearest twentieth of 4 sqrt(N) cells is (an
inverted file, Jégou, Douze and Schmid, "Product quantization for nearest neighbor search", TPAMI 2011, without the
quantization), which loses a few answers in a hundred and takes a fraction of the time (results/benchmarks). A filter is applied
before the search, not after it, and the cells are the nearest that hold a twentieth of those who are allowed: cells of the
query's own camera, which is most often the one that is not allowed, take nobody's place.
"""

import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pandas as pd

from reidlib.data import DataError

EXACT = 20_000
FILES = ("index.faiss", "table.parquet")  # of a saved gallery
RESERVED = {"query", "rank", "similarity", "id"}  # columns of an answer
PROBED, LEAST = 1 / 20, 32  # of the cells, and how many at least


@dataclass
class Gallery:
    """An index and its table; the table's row labels are the ids of the index, int64, and are never used again.

    Vectors are float32 of length 1, so that their product is the cosine.

    >>> table = pd.DataFrame({"path": ["a.jpg", "b.jpg"], "camid": [1, 2], "embedding": [[1.0, 0.0], [0.6, 0.8]]})
    >>> gallery = Gallery.build(table)
    >>> gallery.search(np.array([[1.0, 0.0]]), top=1, where="camid != 1")[["path", "id"]].values.tolist()
    [['b.jpg', 1]]
    """

    index: faiss.Index
    table: pd.DataFrame
    next_id: int

    @classmethod
    def build(cls, table: pd.DataFrame, exact: bool | None = None) -> "Gallery":
        """A gallery of a table with a column embedding. exact: look at every vector; default: where there are few."""
        vectors = _vectors(table)
        exact = len(table) <= EXACT if exact is None else exact
        width = vectors.shape[1]
        if exact:
            index = faiss.IndexIDMap2(faiss.IndexFlatIP(width))
        else:
            cells = max(
                1, min(len(table) // 39, round(4 * len(table) ** 0.5))
            )  # 39 vectors a cell are what faiss wants to see
            index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, cells, faiss.METRIC_INNER_PRODUCT)
            index.cp.seed, index.cp.max_points_per_centroid, index.cp.niter = 0, 64, 10  # more: slower, hardly better
            index.nprobe = max(LEAST, round(PROBED * cells))
            index.train(vectors)
        gallery = cls(index, table.drop(columns="embedding").iloc[:0], 0)
        gallery.add(table)
        return gallery

    def __len__(self) -> int:
        return len(self.table)

    def add(self, table: pd.DataFrame) -> np.ndarray:
        """Add pictures; their ids, int64 [N]. Raises DataError where their embeddings are of another width."""
        vectors = _vectors(table)
        if vectors.shape[1] != self.index.d:
            raise DataError(f"the gallery's embeddings have {self.index.d} numbers, these {vectors.shape[1]}: "
                            "embed both with the same network")  # fmt: skip
        ids = np.arange(self.next_id, self.next_id + len(table), dtype=np.int64)
        self.index.add_with_ids(vectors, ids)
        added = table.drop(columns="embedding").set_axis(ids)
        self.table = pd.concat([self.table, added]) if len(self.table) else added
        self.next_id += len(table)
        return ids

    def remove(self, ids) -> int:
        """Take pictures out by their ids; how many there were."""
        ids = np.intersect1d(np.asarray(ids, np.int64), self.table.index)
        self.index.remove_ids(faiss.IDSelectorBatch(ids))
        self.table = self.table.drop(ids)
        return len(ids)

    def search(self, vectors: np.ndarray, top: int = 10, where: str | None = None) -> pd.DataFrame:
        """The nearest pictures to each of `vectors`, [Q, D] of length 1: columns query (its number), rank, similarity, id, and
        the table's.

        where: which pictures may be answers, an expression of the table's columns as pandas.DataFrame.query has it. Raises
        DataError where it is none.
        """
        vectors = np.ascontiguousarray(vectors, np.float32)
        if where is None:
            similarity, ids = self.index.search(vectors, top)
        elif isinstance(self.index, faiss.IndexIVF):
            similarity, ids = self._search_cells(vectors, top, self._allowed(where))
        else:
            parameters = faiss.SearchParameters(sel=faiss.IDSelectorBatch(self._allowed(where)))
            similarity, ids = self.index.search(vectors, top, params=parameters)
        query, rank = (numbers.ravel() for numbers in np.indices(ids.shape))
        found = pd.DataFrame({"query": query, "rank": rank + 1, "similarity": similarity.ravel(), "id": ids.ravel()})
        found = found[found["id"] >= 0].reset_index(drop=True)  # there were fewer than asked for
        return pd.concat([found, self.table.loc[found["id"]].reset_index(drop=True)], axis=1)

    def _search_cells(self, vectors: np.ndarray, top: int, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Similarities and ids [Q, top] of the nearest of those allowed, by their ids, in the cells that hold enough of them."""
        may, lists, cells = np.zeros(self.next_id, bool), self.index.invlists, self.index.nlist
        may[allowed] = True
        held = (faiss.rev_swig_ptr(lists.get_ids(cell), lists.list_size(cell)) for cell in range(cells))
        inside = np.array([np.count_nonzero(may[ids]) for ids in held])  # of each cell, how many may be answers
        enough, some = len(allowed) * self.index.nprobe / cells, min(LEAST, np.count_nonzero(inside))
        probes = np.ones(len(vectors), int)  # of each query, how many cells
        for part in np.array_split(np.arange(len(vectors)), max(1, -(-len(vectors) // 256))):  # for [Q, cells] takes memory
            near = inside[self.index.quantizer.search(vectors[part], cells)[1]]
            reached = (near.cumsum(1) >= enough) & ((near > 0).cumsum(1) >= some)
            probes[part] += reached.argmax(1)
        similarity, ids = np.empty((len(vectors), top), np.float32), np.empty((len(vectors), top), np.int64)
        selector = faiss.IDSelectorBitmap(np.packbits(may, bitorder="little"))
        for part in np.array_split(np.argsort(probes, kind="stable"), max(1, min(16, len(vectors)))):  # alike ones together
            options = faiss.SearchParametersIVF(sel=selector, nprobe=int(probes[part].max()))
            similarity[part], ids[part] = self.index.search(vectors[part], top, params=options)
        return similarity, ids

    def _allowed(self, where: str) -> np.ndarray:
        try:
            return self.table.query(where).index.to_numpy(np.int64)
        except Exception as error:  # of its parser, of names, of types: pandas has no common one
            columns = ", ".join(map(str, self.table.columns))
            raise DataError(f"where: '{where}' can't be asked of the columns {columns} ({error})") from error

    def save(self, folder: str | Path) -> None:
        """Write it to a folder of its own, in the place of a gallery saved there before. Raises DataError where it is no such."""
        folder = Path(folder)
        if folder.exists() and not (folder.is_dir() and {*FILES} >= {file.name for file in folder.iterdir()}):
            raise DataError(
                f"{folder} is there and is no saved gallery, which would take its place: name a folder of its own"
            )
        draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
        draft.mkdir(parents=True)
        try:
            faiss.write_index(self.index, str(draft / FILES[0]))
            table = self.table.rename_axis("id").reset_index()
            table.attrs["next_id"] = self.next_id
            table.to_parquet(draft / FILES[1], index=False)
        except BaseException:
            shutil.rmtree(draft)
            raise
        if folder.exists():
            old = folder.rename(folder.with_name(f"{draft.name}.old"))
            draft.rename(folder)
            shutil.rmtree(old)
        else:
            draft.rename(folder)

    @classmethod
    def load(cls, folder: str | Path) -> "Gallery":
        """What `save` wrote. Raises DataError where a part is missing, damaged, or the two are not of one gallery."""
        folder = Path(folder)
        if not folder.exists() and (whole := sorted(folder.parent.glob(f".{folder.name}.*.old"))):
            raise DataError(f"{folder} is not there, for saving it was cut off: rename {whole[-1]}, which it was, to it")
        try:
            index = faiss.read_index(str(folder / FILES[0]))
            table = pd.read_parquet(folder / FILES[1])
            next_id = int(table.attrs["next_id"])
            table = table.set_index("id").rename_axis(None)
        except Exception as error:  # faiss raises RuntimeError for all, pandas and pyarrow what they please
            raise DataError(f"{folder} is no gallery ({str(error).splitlines()[0]}): Gallery.save writes one") from error
        if index.ntotal != len(table):
            raise DataError(f"{folder}: the index has {index.ntotal} vectors, the table {len(table)} rows: build it again")
        return cls(index, table, next_id)


def _vectors(table: pd.DataFrame) -> np.ndarray:
    """The column embedding as float32 [N, D], C-contiguous.

    Raises DataError where there is none, they differ in width, or another column is called as one of an answer's.
    """
    if "embedding" not in table or not len(table):
        raise DataError(
            "a gallery is built of a table with a column embedding and at least a row: reidlib.folders makes one"
        )
    if taken := RESERVED & set(table.columns):
        raise DataError(f"a gallery's answers have a column {min(taken)} of their own: call that of the table otherwise")
    try:
        return np.ascontiguousarray(np.stack(table["embedding"].to_list()), np.float32)
    except ValueError as error:
        raise DataError(f"the embeddings of a gallery must all be as wide ({error})") from None
