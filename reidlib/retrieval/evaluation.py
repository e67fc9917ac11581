"""Market-1501 protocol (Zheng et al. 2015) with mINP (Ye et al. 2021), exact and in tiles of queries x gallery.

Ranks are counted, not sorted: the rank of a true match is one plus the number of gallery entries before it. The
distances of the true matches come first, from products of their own; then every other entry is compared with them,
tile by tile, while the tile is in the processor's cache.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numba
import numpy as np
import torch
from torch.nn.functional import normalize

JUNK = -1
BLOCK_ELEMENTS = 1 << 24  # distances in a block of whole rows: 64 MB in float32
TILE = (1024, 8192)  # queries x gallery entries compared at once: 32 MB in float32
ROWS = 4096  # features looked at once where all are looked at
LENGTHS = (1e-12, 1e18)  # of features: their squares, and sums of two, are far inside float32's range


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
        # No sum with NaN or infinity in it is finite; the few others that are not are sums of very large numbers.
        suspect = (~torch.isfinite(features.sum(dim=1))).nonzero()[:, 0]
        wrong = suspect[~torch.isfinite(features[suspect]).all(dim=1)]
        if len(wrong):
            row = int(wrong[0])
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

    metric: "cosine" (1 - q.g of L2-normalised features) or "euclidean" (squared, of the features as they are, reckoned from
    the middle of the gallery so that nothing is lost where all lie far from 0), in float32 on the gallery's device. Beyond its arguments it takes some tens of MB, and a few numbers for each true match.

    >>> query = EmbeddingSet([[1.0, 0.0]], pid=[7], camid=[1])
    >>> gallery = EmbeddingSet([[0.9, 0.1], [0.8, 0.6], [0.0, 1.0]], pid=[8, 7, 7], camid=[2, 2, 1])
    >>> found = evaluate(query, gallery)  # the last picture is of the query's own camera
    >>> found.mAP, found.cmc[:2].tolist()
    (0.5, [0.0, 1.0])

    Gallery entries with pid -1 are ignored; so are, for a query, those with its pid and its camid; queries with no
    match left don't count. Equal distances rank in gallery order.

    AP is the mean, over a query's true matches, of the precision at each (Zheng et al., "Scalable Person
    Re-identification: A Benchmark", ICCV 2015, as the field's libraries have it: no interpolation). CMC at k is the
    share of queries with a true match among the first k; beyond the gallery's size it keeps its last value. INP is
    the number of true matches over the rank of the last (Ye et al., "Deep Learning for Person Re-identification: A
    Survey and Outlook", TPAMI 2021); mAP and mINP are means over the queries that count.

    Raises ValueError where the dimensions differ, the metric is unknown, features are too long or too short for float32,
    or no query has a match.
    """
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f'metric: "cosine" or "euclidean", not {metric!r}')
    check_dimensions(query, gallery)
    check_lengths(query, gallery)
    matcher = _Matcher(query, gallery, max_rank)
    features, kept = gallery.features, matcher.kept
    origin = _origin(features, kept) if metric == "euclidean" else None
    asked = _prepared(query.features.to(features.device), metric, origin)
    for rows, entries, place, pairs in matcher.own_identities():
        own = _distances(_take(asked, torch.from_numpy(rows)), _prepared(_rows(features, kept[entries]), metric, origin))
        matcher.threshold[pairs] = own.cpu().numpy()[place]
    matcher.tie(_first_equal(features, kept))
    buffer = features.new_empty(TILE[0] * TILE[1])
    for left in range(0, len(kept), TILE[1]):
        part = _prepared(_rows(features, kept[left : left + TILE[1]]), metric, origin)
        for top in range(0, len(query), TILE[0]):
            rows = slice(top, top + TILE[0])
            matcher.count(rows, left, _distances(_take(asked, rows), part, buffer).cpu().numpy())
    return matcher.result()


@torch_threads()
def evaluate_distances(distances, query: EmbeddingSet, gallery: EmbeddingSet, max_rank: int = 50) -> Evaluation:
    """What `evaluate` gives, from distances [Q, G] (numpy or torch) of any origin; smaller is nearer.

    Raises ValueError where the shape is not [Q, G], a distance is NaN, or no query has a match.
    """
    if np.shape(distances) != (len(query), len(gallery)):
        raise ValueError(
            f"distances: expected shape [{len(query)}, {len(gallery)}] (queries, gallery), got {list(np.shape(distances))}"
        )
    matcher = _Matcher(query, gallery, max_rank)
    for rows in query_blocks(len(query), len(gallery)):
        block = _array(distances[rows])
        # float32 only where it holds every value exactly: rounding would make ties
        dtype = np.float32 if np.can_cast(block.dtype, np.float32) else np.float64
        matcher.threshold = matcher.threshold.astype(dtype, copy=False)
        if np.isnan(block).any():
            row, column = np.argwhere(np.isnan(block))[0]
            raise ValueError(f"distances[{rows.start + row}, {column}] is NaN")
        block = block.astype(dtype)[:, matcher.kept]  # a copy, which count() may change
        pairs = matcher.pairs(rows)
        matcher.threshold[pairs] = block[matcher.of[pairs] - rows.start, matcher.match[pairs]]
        matcher.count(rows, 0, block)
    return matcher.result()


def check_dimensions(query: EmbeddingSet, gallery: EmbeddingSet) -> None:
    """Raises ValueError where query and gallery features differ in width."""
    widths = query.features.shape[1], gallery.features.shape[1]
    if widths[0] != widths[1]:
        raise ValueError(
            f"query features have {widths[0]} dimensions, gallery features {widths[1]}; both must come from one encoder"
        )


def check_lengths(query: EmbeddingSet, gallery: EmbeddingSet) -> None:
    """Raises ValueError where a feature is so long or short that its square leaves float32's range, and ranks with it."""
    for name, features in (("query", query.features), ("gallery", gallery.features)):
        length = torch.cat([part.norm(dim=1) for part in features.split(ROWS)])
        suspect = (~((length >= LENGTHS[0]) & (length <= LENGTHS[1]))).nonzero()[:, 0]
        wrong = suspect[(features[suspect] != 0).any(dim=1)]  # all zeros are as far from everything
        if len(wrong):
            row = int(wrong[0])
            raise ValueError(
                f"{name} features: row {row} is {features[row].double().norm():.1e} long; ranks are right from {LENGTHS[0]:.0e} "
                f"to {LENGTHS[1]:.0e} only: divide all features by one number"
            )


def query_blocks(n_query: int, n_gallery: int) -> Iterator[slice]:
    """Slices of nearly equal length whose rows of distances fit in BLOCK_ELEMENTS (but 16 rows at least)."""
    n_blocks = -(-n_query // max(16, BLOCK_ELEMENTS // n_gallery))
    edges = np.linspace(0, n_query, n_blocks + 1).astype(int)
    return (slice(start, stop) for start, stop in zip(edges[:-1], edges[1:]))


def distance_blocks(query: torch.Tensor, gallery: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Rows of the matrix of cosine distances [Q, G], block by block: (rows, float32 [len(rows), G]).

    Gallery entries with equal features are at exactly equal distances. One buffer serves every block: use each before
    asking for the next.
    """
    asked, prepared = _prepared(query.to(gallery.device), "cosine"), _prepared(gallery, "cosine")
    first = _first_equal(gallery, np.arange(len(gallery)))
    copy = np.flatnonzero(first != np.arange(len(first)))
    copy, original = (torch.from_numpy(places).to(gallery.device) for places in (copy, first[copy]))
    blocks = list(query_blocks(len(query), len(gallery)))
    buffer = gallery.new_empty(max(rows.stop - rows.start for rows in blocks) * len(gallery))
    for rows in blocks:
        block = _distances(_take(asked, rows), prepared, buffer)
        if len(copy):
            block.index_copy_(1, copy, block.index_select(1, original))
        yield rows, block


def _prepared(features: torch.Tensor, metric: str, origin: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
    """What distances are made of: unit vectors (cosine); or vectors from `origin` and their squared norms (euclidean)."""
    if metric == "cosine":
        return (normalize(features, dim=1),)
    features = features if origin is None else features - origin
    return features, features.pow(2).sum(1)


def _origin(features: torch.Tensor, kept: np.ndarray) -> torch.Tensor:
    """The middle of the gallery, float32 [D]: the median of some rows, a value of theirs in each dimension, so that what
    is equally far stays so to the bit where features are whole numbers."""
    some = kept[:: -(-len(kept) // 1024)]
    return features[torch.from_numpy(some).to(features.device)].median(dim=0).values


def _take(prepared: tuple[torch.Tensor, ...], rows) -> list[torch.Tensor]:
    return [x[rows] for x in prepared]


def _distances(query, gallery, buffer: torch.Tensor | None = None) -> torch.Tensor:
    """Distances float32 [Q, G] between what `_prepared` gave, in the first elements of `buffer` if there is one."""
    shape = len(query[0]), len(gallery[0])
    block = gallery[0].new_empty(shape) if buffer is None else buffer[: shape[0] * shape[1]].view(shape)
    with torch.no_grad(), full_precision(block.device.type):
        if len(query) == 1:
            torch.mm(query[0], gallery[0].T, out=block)
            return torch.sub(block.new_ones(()), block, out=block)
        torch.add(query[1][:, None], gallery[1], out=block)
        return block.addmm_(query[0], gallery[0].T, beta=1, alpha=-2)


def _rows(features: torch.Tensor, places: np.ndarray) -> torch.Tensor:
    """features[places] for ascending places, not copied where they are consecutive."""
    if places[-1] - places[0] == len(places) - 1:
        return features[places[0] : places[-1] + 1]
    return features[torch.from_numpy(places).to(features.device)]


def _first_equal(features: torch.Tensor, kept: np.ndarray) -> np.ndarray:
    """For each of the rows features[kept], which of these is the first that equals it: int64 [len(kept)].

    Matrix products round differently at different places of a matrix (MKL's AVX2 kernels do), so that equal vectors
    alone don't make ties.
    """
    weights = np.random.default_rng(0).integers(0, 1 << 30, features.shape[1], np.int32) * 2 + 1
    keys = np.empty(len(kept), np.int64)
    for start in range(0, len(kept), ROWS):
        part = slice(start, start + ROWS)
        _hash(_rows(features, kept[part]).cpu().numpy(), weights, keys[part])
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    found = first[group]
    for copy in np.array_split(np.flatnonzero(found != np.arange(len(found))), 1 + len(found) // ROWS):
        a, b = (features[torch.from_numpy(kept[places]).to(features.device)] for places in (copy, found[copy]))
        differ = copy[(a != b).any(1).cpu().numpy()]
        found[differ] = differ
    return found


@numba.njit(parallel=True, cache=True)
def _hash(rows, weights, keys):
    # Integer sums are exact in any order; adding 0 makes -0.0 and 0.0 one value.
    for i in numba.prange(len(rows)):
        bits, key = (rows[i] + np.float32(0)).view(np.int32), np.int64(0)
        for j in range(len(bits)):
            key += np.int64(bits[j]) * np.int64(weights[j])
        keys[i] = key


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
    """Counts ranks tile by tile.

    kept: int64 [G'], the gallery entries that are no junk; only they exist from here on, and places are places in it.
    of, match: int64 [P], all pairs of a query and a true match, in order of queries; threshold: [P], their distances.
    """

    def __init__(self, query: EmbeddingSet, gallery: EmbeddingSet, max_rank: int):
        if max_rank < 1:
            raise ValueError(f"max_rank: at least 1, not {max_rank}")
        self.max_rank, self.query_pid = max_rank, query.pid
        self.kept = np.flatnonzero(gallery.pid != JUNK)
        pid, camid = gallery.pid[self.kept], gallery.camid[self.kept]
        # order[first[i]:last[i]]: the entries of query i's identity, in gallery order
        self.order = np.argsort(pid, kind="stable")
        self.first = np.searchsorted(pid, query.pid, "left", sorter=self.order)
        self.last = np.searchsorted(pid, query.pid, "right", sorter=self.order)
        same = self.last - self.first
        of = np.repeat(np.arange(len(query)), same)
        places = self.order[np.arange(len(of)) + np.repeat(self.last - np.cumsum(same), same)]
        other_camera = camid[places] != query.camid[of]
        self.of, self.match = of[other_camera], places[other_camera]
        if not len(self.match):
            raise ValueError(
                f"none of the {len(query)} queries has a true match (same pid, other camid) among the {len(gallery)} "
                f"gallery entries, of which {len(gallery) - len(self.kept)} are junk: check pid and camid of both"
            )
        self.starts = np.searchsorted(self.of, np.arange(len(query) + 1))
        self.threshold, self.before = np.empty(len(self.of), np.float32), np.zeros(len(self.of), np.int64)
        self.tie(np.arange(len(self.kept)))

    def pairs(self, rows: slice) -> slice:
        return slice(self.starts[rows.start], self.starts[rows.stop])

    def own_identities(self, size: int = 64) -> Iterator[tuple]:
        """Parts of the pairs, of few identities each: queries [R], entries [E], (row, column) of each pair, pairs."""
        counts = np.diff(self.starts)
        by_pid, pairs_by_pid = (np.argsort(pid, kind="stable") for pid in (self.query_pid, self.query_pid[self.of]))
        ends = np.cumsum(counts[by_pid])
        for start in range(0, len(by_pid), size):
            rows = by_pid[start : start + size]
            stop = ends[start + len(rows) - 1]
            pairs = pairs_by_pid[stop - counts[rows].sum() : stop]
            if len(pairs):
                entries, column = np.unique(self.match[pairs], return_inverse=True)
                yield rows, entries, (np.repeat(np.arange(len(rows)), counts[rows]), column), pairs

    def tie(self, first_equal: np.ndarray) -> None:
        """Ties entries with equal features, `first_equal` naming one for all, whatever their products round to."""
        # twins[twin_first[j]:twin_last[j]]: the entries that equal entry j, if there are others
        alone = np.bincount(first_equal, minlength=len(first_equal)) == 1
        self.twins = np.argsort(first_equal, kind="stable")
        self.twins = self.twins[~alone[first_equal[self.twins]]]
        groups = first_equal[self.twins]
        self.twin_first, self.twin_last = (np.searchsorted(groups, first_equal, side) for side in ("left", "right"))
        if len(self.twins):
            key = self.of * len(first_equal) + first_equal[self.match]
            _, first, group = np.unique(key, return_index=True, return_inverse=True)
            self.threshold = self.threshold[first][group]

    def count(self, rows: slice, left: int, distances: np.ndarray) -> None:
        """Counts the entries from place `left` on, as many as `distances` [R, C] has columns. It changes distances."""
        _count(
            distances, left, self.starts[rows.start :], self.match, self.threshold, self.before,
            self.order, self.first[rows], self.last[rows], self.twins, self.twin_first, self.twin_last,
        )  # fmt: skip

    def result(self) -> Evaluation:
        """AP, CMC and INP; to be called once all entries are counted."""
        # A match's rank: entries of other identities before it, then its place among the matches.
        order = np.lexsort((self.match, self.threshold, self.of))
        place = np.arange(1, len(order) + 1) - self.starts[self.of]
        rank = self.before[order] + place
        valid = np.diff(self.starts) > 0
        matches = np.diff(self.starts)[valid]
        ap = np.bincount(self.of, place / rank, len(valid))[valid] / matches
        inp = matches / rank[self.starts[1:][valid] - 1]
        hits = np.bincount(np.minimum(rank[self.starts[:-1][valid]], self.max_rank + 1), minlength=self.max_rank + 2)
        return Evaluation(
            mAP=float(ap.mean()), mINP=float(inp.mean()), cmc=np.cumsum(hits[1:-1]) / valid.sum(), ap=ap, valid=valid
        )


@numba.njit(parallel=True, cache=True)
def _count(distances, left, starts, match, threshold, before, order, first, last, twins, twin_first, twin_last):
    right, chunk = left + distances.shape[1], 4096
    for i in numba.prange(len(distances)):
        row = distances[i]
        for m in range(starts[i], starts[i + 1]):
            same = twins[twin_first[match[m]] : twin_last[match[m]]]
            for j in same[np.searchsorted(same, left) : np.searchsorted(same, right)]:
                row[j - left] = threshold[m]
        # Its own identity counts elsewhere (matches) or not at all (same camera): no comparison with NaN is true.
        for j in order[first[i] : last[i]]:
            if left <= j < right:
                row[j - left] = np.nan
        for start in range(0, len(row), chunk):
            part = row[start : start + chunk]
            for m in range(starts[i], starts[i + 1]):
                # Ties rank in gallery order: an equal distance counts before the match, not after it.
                # (Slices read from their start and 32-bit sums: that is what the compiler turns into vector instructions.)
                split = min(max(match[m] - left - start, 0), len(part))
                count, nearer, further = np.int32(0), part[:split], part[split:]
                for j in range(len(nearer)):
                    count = np.int32(count + np.int32(nearer[j] <= threshold[m]))
                for j in range(len(further)):
                    count = np.int32(count + np.int32(further[j] < threshold[m]))
                before[m] += count
