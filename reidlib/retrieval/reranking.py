"""k-reciprocal re-ranking (Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017).

Of the (Q + G) x (Q + G) matrix one half is computed, block by block; only each row's nearest entries, its maximum and
the [Q, G] part are kept. The encodings are sparse.
"""

import numba
import numpy as np
import scipy.sparse
import torch
from torch.nn.functional import normalize

from reidlib.retrieval.distances import (
    check_dimensions,
    check_lengths,
    distance_blocks,
    first_equal,
    torch_threads,
    upper_blocks,
)
from reidlib.retrieval.embeddings import EmbeddingSet


@torch_threads()
def rerank(query: EmbeddingSet, gallery: EmbeddingSet, k1: int = 20, k2: int = 6, lambda_value: float = 0.3) -> np.ndarray:
    """Re-ranked distances, float32 [Q, G]: (1 - lambda_value) x Jaccard distance + lambda_value x original distance.

    The original distances d are squared Euclidean between L2-normalised features, each row divided by its maximum over
    queries and gallery. R(i, k) are the k-reciprocal neighbours of i among all Q + G entries (i itself included, hence
    the k + 1 nearest are looked at). R(i, k1) is widened by R(j, k1 / 2) of each member j of which it holds over two
    thirds; k1 / 2 is rounded half to even. An entry's encoding is exp(-d) over its set, scaled to sum 1, then averaged
    over its k2 nearest. Jaccard distance: 1 - sum(min) / sum(max) of two encodings.

    Labels play no part: junk takes part as any other gallery entry. Equal distances are in order of index, queries
    first. k1 and k2 beyond the number of entries mean all of them.

    Raises ValueError where the dimensions differ, features are too long or too short for float32, or a parameter is
    impossible.
    """
    check_dimensions(query, gallery)
    check_lengths(query, gallery)
    for name, value in (("k1", k1), ("k2", k2)):
        if value < 1:
            raise ValueError(f"{name}: at least 1, not {value}")
    if not 0 <= lambda_value <= 1:
        raise ValueError(f"lambda_value: between 0 and 1, not {lambda_value}")

    features = torch.cat([query.features.to(gallery.features.device), gallery.features])
    nearest, maximum, distances = _neighbours(features, len(query), max(k1 + 1, k2))

    # One sparse row for each entry: its set first, then weights in place of the set's ones.
    encoding = _reciprocal_sets(nearest, k1)
    _weigh(normalize(features, dim=1).cpu().numpy(), maximum, encoding.indptr, encoding.indices, encoding.data)
    if k2 > 1:
        encoding = _members(nearest[:, :k2]) @ encoding / np.float32(min(k2, len(features)))
    inverted = encoding[len(query) :].tocsc()
    _mix_jaccard(
        distances, maximum, np.float32(lambda_value), encoding.indptr, encoding.indices, encoding.data,
        inverted.indptr, inverted.indices, inverted.data,
    )  # fmt: skip
    return distances


def _neighbours(features: torch.Tensor, n_query: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each entry's k nearest (int [N, k]), its largest distance (float32 [N]), and the distances [Q, G].

    Distances are cosine distances, half the squared Euclidean ones; the factor goes with the division by the largest.
    """
    n = len(features)
    nearest, best = np.empty((n, min(k, n)), np.int64), np.full((n, min(k, n)), np.inf, np.float32)
    maximum, original = np.zeros(n, np.float32), np.empty((n_query, n - n_query), np.float32)
    halved = (first_equal(features, np.arange(n)) == np.arange(n)).all()  # no two are equal
    for rows, block in upper_blocks(features) if halved else distance_blocks(features, features):
        distances, left = block.clamp_(min=0).cpu().numpy(), n - block.shape[1]
        _select(distances, left, nearest[rows], best[rows], maximum[rows])
        if halved:
            _select_by_column(distances, rows.start, rows.stop, nearest, best, maximum)
        if rows.start < n_query:
            original[rows] = distances[: n_query - rows.start, n_query - left :]
    maximum[maximum == 0] = 1  # a row of zeros (all vectors equal) stays one when divided
    return nearest, maximum, original


@numba.njit(cache=True)
def _insert(nearest, best, j, distance):
    # Strictly nearer only: equal distances keep the order in which they come, that of their indices.
    place = len(best) - 1
    while place > 0 and distance < best[place - 1]:
        best[place] = best[place - 1]
        nearest[place] = nearest[place - 1]
        place -= 1
    best[place] = distance
    nearest[place] = j


@numba.njit(parallel=True, cache=True, fastmath={"nnan", "nsz"})
def _select(distances, left, nearest, best, maximum):
    """Entry i's candidates are left, left + 1, ...: distances[i]."""
    for i in numba.prange(len(distances)):
        row, own, top = distances[i], best[i], maximum[i]
        for start in range(0, len(row), 64):
            part = row[start : start + 64]
            low = part[0]
            for j in range(len(part)):
                low, top = min(low, part[j]), max(top, part[j])
            if low < own[-1]:
                for j in range(len(part)):
                    if part[j] < own[-1]:
                        _insert(nearest[i], own, left + start + j, part[j])
        maximum[i] = top


@numba.njit(parallel=True, cache=True, fastmath={"nnan", "nsz"})
def _select_by_column(distances, top, bottom, nearest, best, maximum):
    """Entry j's candidates are top, ..., bottom - 1: distances[:, j - top]; of the entries from bottom on."""
    width = 128
    for block in numba.prange((len(nearest) - bottom + width - 1) // width):
        start = bottom + block * width
        stop = min(start + width, len(nearest))
        last, largest = best[start:stop, -1].copy(), maximum[start:stop]
        for i in range(bottom - top):
            part, nearer = distances[i, start - top : stop - top], np.int32(0)
            for j in range(len(part)):
                largest[j] = max(largest[j], part[j])
                nearer = np.int32(nearer + np.int32(part[j] < last[j]))
            if nearer:
                for j in range(len(part)):
                    if part[j] < last[j]:
                        _insert(nearest[start + j], best[start + j], top + i, part[j])
                        last[j] = best[start + j, -1]


def _members(indices: np.ndarray) -> scipy.sparse.csr_array:
    """Sets as a sparse matrix: float32 [N, N], 1 at each row's `indices` (int [N, k])."""
    n, k = indices.shape
    return scipy.sparse.csr_array((np.ones(n * k, np.float32), indices.ravel(), np.arange(n + 1) * k), shape=(n, n))


def _reciprocal_sets(nearest: np.ndarray, k1: int) -> scipy.sparse.csr_array:
    """The widened k-reciprocal sets R*(i, k1): float32 [N, N], a non-zero at each row's members."""
    near, near_half = _members(nearest[:, : k1 + 1]), _members(nearest[:, : int(np.around(k1 / 2)) + 1])
    reciprocal, half = near * near.T, near_half * near_half.T
    shared = (reciprocal * (reciprocal @ half.T)).tocoo()
    wide = 3 * shared.data > 2 * half.sum(axis=1)[shared.col]
    widening = scipy.sparse.csr_array((shared.data[wide], (shared.row[wide], shared.col[wide])), shape=shared.shape)
    return (reciprocal + widening @ half).tocsr()


@numba.njit(parallel=True, cache=True, fastmath=True)
def _weigh(features, maximum, starts, members, weights):
    for i in numba.prange(len(maximum)):
        a, total = features[i], np.float32(0)
        for m in range(starts[i], starts[i + 1]):
            b, similarity = features[members[m]], np.float32(0)
            for d in range(len(a)):
                similarity += a[d] * b[d]
            weights[m] = np.exp(-max(np.float32(0), 1 - similarity) / maximum[i])
            total += weights[m]
        for m in range(starts[i], starts[i + 1]):
            weights[m] /= total


@numba.njit(parallel=True, cache=True)
def _mix_jaccard(distances, maximum, lambda_value, starts, members, weights, rows_from, rows, row_weights):
    for i in numba.prange(len(distances)):
        shared = np.zeros(distances.shape[1], np.float32)
        for m in range(starts[i], starts[i + 1]):
            for r in range(rows_from[members[m]], rows_from[members[m] + 1]):
                shared[rows[r]] += min(weights[m], row_weights[r])
        # Encodings sum to 1, so that the sum of the maxima is 2 less that of the minima.
        for g in range(len(shared)):
            jaccard = 1 - shared[g] / (2 - shared[g])
            distances[i, g] = (1 - lambda_value) * jaccard + lambda_value * (distances[i, g] / maximum[i])
