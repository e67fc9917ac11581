"""Distances between embeddings, block by block and in true float32; and which embeddings are equal."""

from collections.abc import Iterator
from contextlib import contextmanager

import numba
import numpy as np
import torch
from torch.nn.functional import normalize

from reidlib.retrieval.embeddings import EmbeddingSet

BLOCK_ELEMENTS = 1 << 24  # distances in a block of whole rows: 64 MB in float32
ROWS = 4096  # features looked at once where all are looked at
LENGTHS = (1e-12, 1e18)  # of features: their squares, and sums of two, are far inside float32's range


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
    asked, prepared = prepare(query.to(gallery.device), "cosine"), prepare(gallery, "cosine")
    first = first_equal(gallery, np.arange(len(gallery)))
    copy = np.flatnonzero(first != np.arange(len(first)))
    copy, original = (torch.from_numpy(places).to(gallery.device) for places in (copy, first[copy]))
    blocks = list(query_blocks(len(query), len(gallery)))
    buffer = gallery.new_empty(max(rows.stop - rows.start for rows in blocks) * len(gallery))
    for rows in blocks:
        block = between(take(asked, rows), prepared, buffer)
        if len(copy):
            block.index_copy_(1, copy, block.index_select(1, original))
        yield rows, block


def upper_blocks(features: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """As `distance_blocks` of features with themselves, but of its columns only those from the block's first row on: (rows, float32
    [len(rows), N - rows.start]). Equal features need not be at equal distances."""
    unit = prepare(features, "cosine")
    # of 512 rows at most: of a block's first square both halves are computed
    blocks = list(query_blocks(len(features), max(len(features), BLOCK_ELEMENTS // 512)))
    buffer = features.new_empty(max(rows.stop - rows.start for rows in blocks) * len(features))
    for rows in blocks:
        right = slice(rows.start, None)
        yield rows, between(take(unit, rows), take(unit, right), buffer)


def prepare(features: torch.Tensor, metric: str, origin: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
    """What distances of features [N, D] are made of: unit vectors [N, D] (cosine); or vectors from `origin` [D], else as they
    are, and their squared norms [N] (euclidean)."""
    if metric == "cosine":
        return (normalize(features, dim=1),)
    features = features if origin is None else features - origin
    return features, features.pow(2).sum(1)


def middle(features: torch.Tensor, kept: np.ndarray) -> torch.Tensor:
    """The middle of the gallery, float32 [D]: the median of some rows, a value of theirs in each dimension, so that what
    is equally far stays so to the bit where features are whole numbers."""
    some = kept[:: -(-len(kept) // 1024)]
    return features[torch.from_numpy(some).to(features.device)].median(dim=0).values


def take(prepared: tuple[torch.Tensor, ...], rows) -> list[torch.Tensor]:
    """Some rows of what `prepare` gave."""
    return [x[rows] for x in prepared]


def between(query, gallery, buffer: torch.Tensor | None = None) -> torch.Tensor:
    """Distances float32 [Q, G] between what `prepare` gave, in the first elements of `buffer` if there is one."""
    shape = len(query[0]), len(gallery[0])
    block = gallery[0].new_empty(shape) if buffer is None else buffer[: shape[0] * shape[1]].view(shape)
    with torch.no_grad(), full_precision(block.device.type):
        if len(query) == 1:
            torch.mm(query[0], gallery[0].T, out=block)
            return torch.sub(block.new_ones(()), block, out=block)
        torch.add(query[1][:, None], gallery[1], out=block)
        return block.addmm_(query[0], gallery[0].T, beta=1, alpha=-2)


def rows_at(features: torch.Tensor, places: np.ndarray) -> torch.Tensor:
    """features[places] for ascending places, not copied where they are consecutive."""
    if places[-1] - places[0] == len(places) - 1:
        return features[places[0] : places[-1] + 1]
    return features[torch.from_numpy(places).to(features.device)]


def first_equal(features: torch.Tensor, kept: np.ndarray) -> np.ndarray:
    """For each of the rows features[kept], which of these is the first that equals it: int64 [len(kept)].

    Matrix products round differently at different places of a matrix (MKL's AVX2 kernels do), so that equal vectors
    alone don't make ties.
    """
    weights = np.random.default_rng(0).integers(0, 1 << 30, features.shape[1], np.int32) * 2 + 1
    keys = np.empty(len(kept), np.int64)
    for start in range(0, len(kept), ROWS):
        part = slice(start, start + ROWS)
        _hash(rows_at(features, kept[part]).cpu().numpy(), weights, keys[part])
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
def torch_threads():
    """Numba on as many threads as torch. Its OpenMP layer changes torch's number when it starts, so that is put back."""
    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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
