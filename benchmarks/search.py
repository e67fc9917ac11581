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

from benchmarks.retrieval import OURS, PRODUCT, numbers
from benchmarks.timing import in_turns, rows
from reidlib.gallery import Gallery
from reidlib.training import Machine

SIZES, QUICK = {"100x10000x512": 7, "100x100000x512": 5, "100x1000000x512": 3}, {"20x500x16": 2, "20x2000x16": 2}
TOP = 10
PATIENCE = 1200  # seconds that building an index may take
PICTURES = 18  # of an identity
BETWEEN, WITHIN = (0.68, 2.0), (0.32, 1.3)  # shares of the variance, and by which power it falls with the direction


def run(machine: Machine, quick: bool = False) -> pd.DataFrame:
    """Rows of all sizes; besides those of `timing.rows`: build_s, index_mb, and recall and filtered, the shares of the true
    first TOP answers that are found, of all pictures and of one camera's in six.

    An index that would take longer than PATIENCE to build, judged by the size before, is left out.
    """
    table, pace = [], {}
    with threadpool_limits(1):
        for size, runs in (QUICK if quick else SIZES).items():
            left_out = {name for name, each in pace.items() if each * numbers(size)[1] > PATIENCE}
            table.append(_of_size(size, runs, machine, left_out))
            built = table[-1].dropna(subset="build_s")
            pace |= dict(zip(built["method"], built["build_s"] / numbers(size)[1]))
    return pd.concat(table, ignore_index=True)


def draw(size: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Query [Q, D] and gallery [G, D], float32 of length 1, and the gallery's camid int64 [G], 0 to 5.

    As a student's embeddings of Market-1501 are, and unlike white noise, in which no index can find anything: identities lie
    in few directions (half of their variance in 20 of 512, nine tenths in 132), the pictures of one about its centre in more.
    """
    n_query, n_gallery, dim = numbers(size)
    rng = np.random.default_rng(seed)

    def normal(n: int, share: float, power: float) -> np.ndarray:
        variance = (np.arange(1, dim + 1) + 20.0) ** -power
        return rng.standard_normal((n, dim), np.float32) * np.sqrt(share * variance / variance.sum()).astype(np.float32)

    centres = normal(max(n_gallery // PICTURES, 1), *BETWEEN)
    sets = []
    for n in (n_query, n_gallery):
        x = normal(n, *WITHIN)
        x += centres[rng.integers(0, len(centres), n)]
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        sets.append(x)
    return *sets, rng.integers(0, 6, n_gallery)


def _of_size(size: str, runs: int, machine: Machine, left_out: set[str]) -> pd.DataFrame:
    query, gallery, camid = draw(size)
    one_camera = np.flatnonzero(camid == 0)
    truth = {False: exact(query, gallery), True: one_camera[exact(query, gallery[one_camera])]}
    calls, built, sizes = {PRODUCT: partial(exact, query, gallery)}, {}, {}
    methods = {name: build for name, build in METHODS.items() if not name.startswith("usearch") or find_spec("usearch")}
    for name, build in methods.items():
        if name not in left_out:
            start = time.perf_counter()
            calls[name], sizes[name] = build(query, gallery, camid)
            built[name] = time.perf_counter() - start
    seconds, answers = in_turns(calls, runs, machine)
    seconds = {name: seconds.get(name, np.empty(0)) for name in [PRODUCT, *methods]}
    found = {name: shared(answer, truth[False]) for name, answer in answers.items()}
    part = rows("search", size, seconds, machine, items=dict.fromkeys(seconds, len(query)))
    part["build_s"], part["index_mb"], part["recall"] = (part["method"].map(x) for x in (built, sizes, found))
    part["filtered"] = part["method"].map({OURS: shared(calls[OURS](True), truth[True])} if OURS in calls else {})
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
