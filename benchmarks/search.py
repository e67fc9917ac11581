"""Searching a gallery: every vector looked at, this project's index, and peers' approximate ones, with and without a filter."""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from benchmarks.retrieval import OURS, PRODUCT, draw, numbers
from benchmarks.timing import in_turns, rows
from reidlib.gallery import Gallery
from reidlib.training import Machine

SIZES, QUICK = {"100x10000x512": 7, "100x100000x512": 5, "100x1000000x512": 3}, {"20x500x16": 2, "20x2000x16": 2}
TOP = 10


def run(machine: Machine, quick: bool = False) -> pd.DataFrame:
    """Rows of all sizes; besides those of `timing.rows`: build_s, index_mb, and recall and filtered, the shares of the true
    first TOP answers that are found, of all pictures and of one camera's in six."""
    with threadpool_limits(1):
        return pd.concat(
            [_of_size(size, runs, machine) for size, runs in (QUICK if quick else SIZES).items()], ignore_index=True
        )


def _of_size(size: str, runs: int, machine: Machine) -> pd.DataFrame:
    n_query, _, _ = numbers(size)
    sets = draw(size)
    query, gallery = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (sets.query, sets.gallery))
    one_camera = np.flatnonzero(sets.gallery_camid == 0)
    truth = {False: exact(query, gallery), True: one_camera[exact(query, gallery[one_camera])]}
    calls, built, sizes = {PRODUCT: partial(exact, query, gallery)}, {}, {}
    for name, build in METHODS.items():
        if not name.startswith("usearch") or find_spec("usearch"):
            start = time.perf_counter()
            calls[name], sizes[name] = build(query, gallery, sets.gallery_camid)
            built[name] = time.perf_counter() - start
    seconds, answers = in_turns(calls, runs, machine)
    part = rows("search", size, seconds, machine, items=dict.fromkeys(calls, n_query))
    part["build_s"], part["index_mb"] = part["method"].map(built), part["method"].map(sizes)
    part["recall"] = [shared(answers[name], truth[False]) for name in part["method"]]
    part["filtered"] = [shared(calls[OURS](True), truth[True]) if name == OURS else np.nan for name in part["method"]]
    return part


def exact(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Places of the best TOP of the gallery for each query by a plain product, in blocks of queries that fit in memory."""
    found = []
    for block in np.array_split(query, -(-len(query) * len(gallery) // 10**8)):
        similarity = block @ gallery.T
        best = np.argpartition(-similarity, TOP, axis=1)[:, :TOP]
        found.append(np.take_along_axis(best, np.argsort(-np.take_along_axis(similarity, best, 1), axis=1), 1))
    return np.concatenate(found)


def shared(found: np.ndarray, truth: np.ndarray) -> float:
    """The share of true answers that were found."""
    return float(np.mean([len(set(a) & set(b)) / len(set(b)) for a, b in zip(found, truth)]))


def _ours(query, gallery, camid) -> tuple[Callable, float]:
    index = Gallery.build(pd.DataFrame({"camid": camid, "embedding": list(gallery)}))

    def search(filtered: bool = False) -> np.ndarray:
        found = index.search(query, TOP, where="camid == 0" if filtered else None)
        return found["id"].to_numpy().reshape(len(query), -1)

    with tempfile.TemporaryDirectory() as folder:
        index.save(Path(folder) / "gallery")
        return search, sum(file.stat().st_size for file in Path(folder).rglob("*")) / 1e6


def _usearch(query, gallery, camid) -> tuple[Callable, float]:
    from usearch.index import Index

    index = Index(ndim=gallery.shape[1], metric="cos", dtype="f32")
    index.add(np.arange(len(gallery)), gallery, threads=1)
    return lambda filtered=False: index.search(query, TOP, threads=1).keys, index.memory_usage / 1e6


METHODS = {OURS: _ours, "usearch, HNSW": _usearch}
