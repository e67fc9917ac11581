"""Evaluation and re-ranking, reidlib's and others': what is called, on what. Imports little: it is started often.

python -m benchmarks.retrieval CASE METHOD SIZE FILE      one call in this process: prints seconds and MB, and keeps the
                                                          answer in FILE (.npy)
"""

import re
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import torch
from torch.nn.functional import normalize

from benchmarks import peers
from reidlib.retrieval import EmbeddingSet, evaluate, rerank

SIZES = {  # of each case, Q x G x D: runs
    "evaluation": {"500x2000x512": 7, "1000x4000x512": 5, "2000x8000x512": 3, "3368x15913x512": 3},
    "evaluation_large": {"3368x62500x512": 3, "3368x250000x512": 3, "3368x1000000x512": 3},
    "reranking": {"250x1250x512": 7, "500x2500x512": 5, "1000x5000x512": 3, "3368x15913x512": 3},
}
QUICK = {"20x100x16": 2, "40x200x16": 2}
PATIENCE = {"evaluation": 20, "evaluation_large": 120, "reranking": 600}  # seconds that a call may take
APART = {("reranking", "3368x15913x512")}  # timed where memory is measured: calls too long to be made once more for it
CAN_RESET = Path("/proc/self/clear_refs")  # Linux: writing 5 there resets a process's peak of memory
OURS, PRODUCT = "reidlib", "the product alone"


class Sets(NamedTuple):
    """What an evaluation starts from; the gallery has no junk, as peers want it."""

    query: np.ndarray  # float32 [Q, D]
    gallery: np.ndarray  # float32 [G, D]
    query_pid: np.ndarray  # int64 [Q]
    gallery_pid: np.ndarray  # int64 [G], 0: distractor
    query_camid: np.ndarray  # int64 [Q], 0 to 5
    gallery_camid: np.ndarray  # int64 [G]


def numbers(size: str) -> tuple[int, ...]:
    """ "500x2000x512" -> 500 queries, 2000 gallery entries, 512 dimensions"""
    return tuple(int(number) for number in size.split("x"))


def draw(size: str, seed: int = 0) -> Sets:
    """Random embeddings in Market-1501's proportions: a cluster an identity, about 18 gallery pictures of each."""
    n_query, n_gallery, dim = numbers(size)
    rng, ids = np.random.default_rng(seed), max(5, n_query * 2 // 9)
    centres = rng.standard_normal((ids + 1, dim), np.float32)
    centres[0] = 0
    query_pid, gallery_pid = rng.integers(1, ids + 1, n_query), rng.integers(1, ids + 1, n_gallery)
    gallery_pid[rng.permutation(n_gallery)[min(18 * ids, n_gallery * 5 // 6) :]] = 0

    def features(pid: np.ndarray) -> np.ndarray:
        x = np.empty((len(pid), dim), np.float32)
        for start in range(0, len(pid), 1024):  # in place: the peak of memory must not be set here
            part = slice(start, start + 1024)
            rng.standard_normal(out=x[part], dtype=np.float32)
            x[part] *= 3
            x[part] += centres[pid[part]]
        return x

    camids = (rng.integers(0, 6, n) for n in (n_query, n_gallery))
    return Sets(features(query_pid), features(gallery_pid), query_pid, gallery_pid, *camids)


def methods(case: str) -> dict[str, Callable[[Sets], object]]:
    """By name: functions of Sets. Evaluation gives mAP, or None where nothing is ranked; re-ranking distances [Q, G].

    All start from the arrays, and so make their own matrix products.
    """
    if case == "reranking":
        return {OURS: our_rerank} | {name: partial(reranked, f=f) for name, f in peers.rerankings().items()}
    found = {PRODUCT: product, OURS: our_evaluation}
    if case == "evaluation_large":
        return found  # the others hold several Q x G matrices
    found["the product, np.argsort"] = product_and_sort
    return found | {name: partial(ranked, rank=rank) for name, rank in peers.rankings().items()}


def product(sets: Sets) -> None:
    """The matrix product that no exact method can do without: whole, or where that is too large, by blocks of rows."""
    query, gallery = torch.from_numpy(sets.query), torch.from_numpy(sets.gallery)
    for part in query.split(max(1, (1 << 28) // len(gallery))):
        part @ gallery.T


def cosine(sets: Sets) -> np.ndarray:
    """Cosine distances float32 [Q, G], as torchreid and fast-reid compute them."""
    query, gallery = (normalize(torch.from_numpy(x), dim=1) for x in (sets.query, sets.gallery))
    return (1 - query @ gallery.T).numpy()


def product_and_sort(sets: Sets) -> None:
    np.argsort(cosine(sets), axis=1)


def ranked(sets: Sets, rank: peers.Ranking) -> float:
    """mAP by a peer's ranking of the whole matrix of distances."""
    _, precision, *_ = rank(cosine(sets), *sets[2:], 50)
    return float(np.mean(precision))


def reranked(sets: Sets, f: Callable) -> np.ndarray:
    return f(sets.query, sets.gallery)


def our_evaluation(sets: Sets) -> float:
    return evaluate(*_embeddings(sets)).mAP


def our_rerank(sets: Sets) -> np.ndarray:
    return rerank(*_embeddings(sets))


def _embeddings(sets: Sets) -> tuple[EmbeddingSet, EmbeddingSet]:
    query = EmbeddingSet(sets.query, sets.query_pid, sets.query_camid)
    return query, EmbeddingSet(sets.gallery, sets.gallery_pid, sets.gallery_camid)


def measure(call: Callable[[], object], small: Callable[[], object]) -> tuple[float, float]:
    """Seconds that `call` takes, and MB (10^6 bytes) at its peak beyond what this process held before.

    small: the same on a small input, called first, so that neither start-up nor compiled code is counted.
    """
    small()
    if CAN_RESET.exists():
        CAN_RESET.write_text("5")  # the peak is from here on; elsewhere an earlier one may hide it
    before = psutil.Process().memory_info().rss
    start = time.perf_counter()
    call()
    return time.perf_counter() - start, (_peak() - before) / 1e6


def _peak() -> int:
    """Bytes this process has held at most."""
    if CAN_RESET.exists():
        return 1024 * int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    case, method, size, file = sys.argv[1:]
    wanted, sets, answer = methods(case)[method], draw(size), []
    print(*measure(lambda: answer.append(wanted(sets)), partial(wanted, draw(next(iter(QUICK))))))
    np.save(file, np.nan if answer[0] is None else answer[0])
