"""Market-1501 protocol (Zheng et al. 2015) with mINP (Ye et al. 2021), exact and in blocks of queries.

Ranks are counted, not sorted: the rank of a true match is one plus the number of gallery entries before it, so each
query costs one pass over its row of distances per true match, and no row outlives its block.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numba
import numpy as np
import torch
from torch.nn.functional import normalize

JUNK = -1
BLOCK_ELEMENTS = 1 << 24  # distances held at once: 64 MB in float32


@dataclass(frozen=True, eq=False)
class EmbeddingSet:
    """Embeddings with their identities and cameras.

    features: [N, D], torch or numpy, of any real type; kept as a float32 tensor on the device it came from.
    pid, camid: int [N] (array, tensor, Series or list), kept as int64 arrays. pid -1 marks junk.
    Raises ValueError or TypeError naming the field that is wrong.
    """

    features: torch.Tensor
    pid: np.ndarray
    camid: np.ndarray

    def __post_init__(self):
        features = self.features if isinstance(self.features, torch.Tensor) else np.asarray(self.features)
        if features.ndim != 2 or 0 in features.shape:
            raise ValueError(f"features: expected shape [N, D] with N, D > 0, got {list(features.shape)}")
        if isinstance(features, np.ndarray):
            if features.dtype.kind not in "fiu":
                raise TypeError(f"features: expected real numbers, got {features.dtype}")
            with np.errstate(over="ignore"):  # what overflows is reported below
                features = torch.from_numpy(np.require(features, np.float32, ["C", "W"]))
        elif features.is_complex():
            raise TypeError(f"features: expected real numbers, got {features.dtype}")
        features = features.detach().to(torch.float32).contiguous()
        finite = torch.isfinite(features).all(dim=1)
        if not finite.all():
            row = int((~finite).nonzero()[0])
            raise ValueError(f"features: row {row} of {len(features)} holds NaN or a value beyond float32's range")
        object.__setattr__(self, "features", features)
        for name in ("pid", "camid"):
            object.__setattr__(self, name, _labels(getattr(self, name), name, len(features)))

    def __len__(self) -> int:
        return len(self.pid)


def _labels(values, name: str, n: int) -> np.ndarray:
    labels = _array(values)
    if labels.shape != (n,):
        raise ValueError(f"{name}: expected shape [{n}], one for each row of features, got {list(labels.shape)}")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {labels.dtype}")
    return labels.astype(np.int64)


def _array(values) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return np.asarray(values)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What `evaluate` finds. All values are fractions in [0, 1]."""

    mAP: float
    mINP: float
    cmc: np.ndarray  # float64 [max_rank]; cmc[k - 1] is rank-k
    ap: np.ndarray  # float64 [n_valid], in query order
    valid: np.ndarray  # bool [Q]: the queries with a match, to which `ap` belongs

    @property
    def n_valid(self) -> int:
        return len(self.ap)


@contextmanager
def torch_threads():
    """Numba on as many threads as torch. Its OpenMP layer changes torch's number when it starts, so that is put back."""
    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@torch_threads()
def evaluate(query: EmbeddingSet, gallery: EmbeddingSet, metric: str = "cosine", max_rank: int = 50) -> Evaluation:
    """mAP, CMC and mINP of ranking `gallery` for each query.

    metric: "cosine" (1 - q.g of L2-normalised features) or "euclidean" (squared, of the features as they are), in
    float32 on the gallery's device.

    Gallery entries with pid -1 are ignored; so are, for a query, those with its pid and its camid; queries with no
    match left don't count. Equal distances rank in gallery order.

    AP is the mean, over a query's true matches, of the precision at each (Zheng et al., "Scalable Person
    Re-identification: A Benchmark", ICCV 2015, as the field's libraries have it: no interpolation). CMC at k is the
    share of queries with a true match among the first k; beyond the gallery's size it keeps its last value. INP is
    the number of true matches over the rank of the last (Ye et al., "Deep Learning for Person Re-identification: A
    Survey and Outlook", TPAMI 2021); mAP and mINP are means over the queries that count.

    Raises ValueError where the dimensions differ, the metric is unknown, or no query has a match.
    """
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f'metric: "cosine" or "euclidean", not {metric!r}')
    check_dimensions(query, gallery)
    matcher = _Matcher(query, gallery, max_rank)
    kept = gallery.features
    if len(matcher.kept) < len(gallery):
        kept = kept[torch.from_numpy(matcher.kept).to(kept.device)]
    for rows, distances in distance_blocks(query.features, kept, metric):
        matcher.count(rows, distances.cpu().numpy())
    return matcher.result()


@torch_threads()
def evaluate_distances(distances, query: EmbeddingSet, gallery: EmbeddingSet, max_rank: int = 50) -> Evaluation:
    """What `evaluate` gives, from distances [Q, G] (numpy or torch) of any origin; smaller is nearer.

    Raises ValueError where the shape is not [Q, G], a distance is NaN, or no query has a match.
    """
    if np.shape(distances) != (len(query), len(gallery)):
        raise ValueError(
            f"distances: expected shape [{len(query)}, {len(gallery)}] (queries, gallery), got "
            f"{list(np.shape(distances))}"
        )
    matcher = _Matcher(query, gallery, max_rank)
    for rows in query_blocks(len(query), len(gallery)):
        block = _array(distances[rows])
        # float32 only where it holds every value exactly: rounding would make ties
        dtype = np.float32 if np.can_cast(block.dtype, np.float32) else np.float64
        block = np.require(block, dtype, ["C", "W"])
        if np.isnan(block).any():
            row, column = np.argwhere(np.isnan(block))[0]
            raise ValueError(f"distances[{rows.start + row}, {column}] is NaN")
        matcher.count(rows, block if len(matcher.kept) == len(gallery) else block.take(matcher.kept, axis=1))
    return matcher.result()


def check_dimensions(query: EmbeddingSet, gallery: EmbeddingSet) -> None:
    """Raises ValueError where query and gallery features differ in width."""
    widths = query.features.shape[1], gallery.features.shape[1]
    if widths[0] != widths[1]:
        raise ValueError(
            f"query features have {widths[0]} dimensions, gallery features {widths[1]}; both must come from one encoder"
        )


def query_blocks(n_query: int, n_gallery: int) -> Iterator[slice]:
    """Slices of nearly equal length whose rows of distances fit in BLOCK_ELEMENTS (but 16 rows at least)."""
    n_blocks = -(-n_query // max(16, BLOCK_ELEMENTS // n_gallery))
    edges = np.linspace(0, n_query, n_blocks + 1).astype(int)
    return (slice(start, stop) for start, stop in zip(edges[:-1], edges[1:]))


def distance_blocks(query: torch.Tensor, gallery: torch.Tensor, metric: str) -> Iterator[tuple[slice, torch.Tensor]]:
    """Rows of the distance matrix [Q, G], block by block: (rows, float32 [len(rows), G]).

    Gallery entries with equal features are at exactly equal distances. One buffer serves every block: use each before
    asking for the next.
    """
    query = query.to(gallery.device)
    if metric == "cosine":
        query, gallery = normalize(query, dim=1), normalize(gallery, dim=1)
        one = gallery.new_ones(())
    else:
        query_norm, gallery_norm = query.pow(2).sum(1, keepdim=True), gallery.pow(2).sum(1)
    copy, original = _equal_rows(gallery)
    blocks = list(query_blocks(len(query), len(gallery)))
    buffer = gallery.new_empty(max(rows.stop - rows.start for rows in blocks), len(gallery))
    for rows in blocks:
        block = buffer[: rows.stop - rows.start]
        with torch.no_grad(), full_precision(gallery.device.type):
            if metric == "cosine":
                torch.mm(query[rows], gallery.T, out=block)
                torch.sub(one, block, out=block)
            else:
                torch.add(query_norm[rows], gallery_norm, out=block)
                block.addmm_(query[rows], gallery.T, beta=1, alpha=-2)
        if len(copy):
            block.index_copy_(1, copy, block.index_select(1, original))
        yield rows, block


def _equal_rows(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices (copy, original) of the rows that equal an earlier one, and of the first such row.

    Matrix products round differently at different places of a matrix (MKL's AVX2 kernels do), so that equal vectors
    alone don't make ties.
    """
    # Integer sums are exact in any order; adding 0.0 makes -0.0 and 0.0 one value. (In numpy: on a busy machine, waking
    # torch's threads for each of these small steps takes longer than the whole product.)
    weights = np.random.default_rng(0).integers(0, 1 << 30, features.shape[1], np.int32) * 2 + 1
    rows = features.cpu().numpy()
    keys = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), 256):
        part = slice(start, start + 256)
        keys[part] = ((rows[part] + np.float32(0)).view(np.int32) * weights).sum(axis=1, dtype=np.int64)
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    copy = np.flatnonzero(first[group] != np.arange(len(group)))
    original = torch.from_numpy(first[group][copy]).to(features.device)
    copy = torch.from_numpy(copy).to(features.device)
    same = (features[copy] == features[original]).all(1)
    return copy[same], original[same]


@contextmanager
def full_precision(device_type: str):
    """Products in true float32, whatever TF32, bfloat16 or autocast setting the caller trains with."""
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    settings = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee"
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        for backend, setting in zip(backends, settings):
            backend.fp32_precision = setting


class _Matcher:
    """Counts ranks block by block. `kept` [G'] are the gallery entries that are no junk: count() takes only those."""

    def __init__(self, query: EmbeddingSet, gallery: EmbeddingSet, max_rank: int):
        if max_rank < 1:
            raise ValueError(f"max_rank: at least 1, not {max_rank}")
        self.max_rank = max_rank
        self.kept = np.flatnonzero(gallery.pid != JUNK)
        pid = gallery.pid[self.kept]
        self.query_camid, self.gallery_camid = query.camid, gallery.camid[self.kept]
        # order[first[i]:last[i]]: the gallery entries of query i's identity, in gallery order
        self.order = np.argsort(pid, kind="stable")
        self.first = np.searchsorted(pid, query.pid, "left", sorter=self.order)
        self.last = np.searchsorted(pid, query.pid, "right", sorter=self.order)
        self.ap, self.inp = np.zeros(len(query)), np.zeros(len(query))
        self.first_rank = np.zeros(len(query), np.int64)  # 0: no match
        matches = (self.gallery_camid[self.order[a:b]] != c for a, b, c in zip(self.first, self.last, query.camid))
        if not any(match.any() for match in matches):
            raise ValueError(
                f"none of the {len(query)} queries has a true match (same pid, other camid) among the {len(gallery)} "
                f"gallery entries, of which {len(gallery) - len(self.kept)} are junk: check pid and camid of both"
            )

    def count(self, rows: slice, distances: np.ndarray) -> None:
        _rank_matches(
            distances, self.order, self.first[rows], self.last[rows], self.query_camid[rows], self.gallery_camid,
            self.ap[rows], self.inp[rows], self.first_rank[rows],
        )  # fmt: skip

    def result(self) -> Evaluation:
        valid = self.first_rank > 0
        hits = np.bincount(np.minimum(self.first_rank[valid], self.max_rank + 1), minlength=self.max_rank + 2)
        return Evaluation(
            mAP=float(self.ap[valid].mean()),
            mINP=float(self.inp[valid].mean()),
            cmc=np.cumsum(hits[1:-1]) / valid.sum(),
            ap=self.ap[valid],
            valid=valid,
        )


@numba.njit(parallel=True, cache=True)
def _rank_matches(distances, order, first, last, query_camid, gallery_camid, ap, inp, first_rank):
    for i in numba.prange(len(distances)):
        row = distances[i]
        same = order[first[i] : last[i]]
        other_camera = gallery_camid[same] != query_camid[i]
        matches, ignored = same[other_camera], same[~other_camera]
        if len(matches) == 0:
            continue
        ranks = np.empty(len(matches), np.int64)
        for m, match in enumerate(matches):
            threshold = row[match]
            # Ties rank in gallery order: an equal distance counts before the match, not after it.
            # (Slices read from their start and 32-bit sums: that is what the compiler turns into vector instructions.)
            before, left, right = np.int32(1), row[:match], row[match + 1 :]
            for j in range(len(left)):
                before = np.int32(before + np.int32(left[j] <= threshold))
            for j in range(len(right)):
                before = np.int32(before + np.int32(right[j] < threshold))
            for j in ignored:
                if row[j] < threshold or (row[j] == threshold and j < match):
                    before = np.int32(before - 1)
            ranks[m] = before
        ranks.sort()
        precision = 0.0
        for m in range(len(ranks)):
            precision += (m + 1) / ranks[m]
        ap[i] = precision / len(ranks)
        inp[i] = len(ranks) / ranks[-1]
        first_rank[i] = ranks[0]
