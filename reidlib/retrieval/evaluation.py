"""Market-1501 protocol (Zheng et al. 2015) with mINP (Ye et al. 2021), exact and in tiles of queries x gallery.

Ranks are counted, not sorted: the rank of a true match is one plus the number of gallery entries before it. The
distances of the true matches come first, from products of their own; then every other entry is compared with them,
tile by tile, while the tile is in the processor's cache.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numba
import numpy as np
import torch

from reidlib.retrieval.distances import (
    between,
    check_dimensions,
    check_lengths,
    first_equal,
    middle,
    prepare,
    query_blocks,
    rows_at,
    take,
    torch_threads,
)
from reidlib.retrieval.embeddings import EmbeddingSet, as_array

JUNK = -1
TILE = (1024, 8192)  # queries x gallery entries compared at once: 32 MB in float32


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
    origin = middle(features, kept) if metric == "euclidean" else None
    asked = prepare(query.features.to(features.device), metric, origin)
    for rows, entries, place, pairs in matcher.own_identities():
        own = between(take(asked, torch.from_numpy(rows)), prepare(rows_at(features, kept[entries]), metric, origin))
        matcher.threshold[pairs] = own.cpu().numpy()[place]
    matcher.tie(first_equal(features, kept))
    buffer = features.new_empty(TILE[0] * TILE[1])
    for left in range(0, len(kept), TILE[1]):
        part = prepare(rows_at(features, kept[left : left + TILE[1]]), metric, origin)
        for top in range(0, len(query), TILE[0]):
            rows = slice(top, top + TILE[0])
            matcher.count(rows, left, between(take(asked, rows), part, buffer).cpu().numpy())
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
        block = as_array(distances[rows])
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
