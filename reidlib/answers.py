"""What methods answer to single queries: the first of the gallery, right or wrong, for a look at it."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from reidlib.retrieval import EmbeddingSet
from reidlib.retrieval.evaluation import JUNK, distance_blocks

if TYPE_CHECKING:  # a study is only asked, not made
    from reidlib.study import Study


def retrieval_examples(
    study: "Study", method: str, dataset: str, seed: int, rows: int = 5, k: int = 8
) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray, np.ndarray]:
    """Queries spread evenly over their ranking by AP, worst to best, and what each finds: for `ranked_lists`.

    Returns:
        The queries' rows with a column ap, the gallery's frame, order (int [rows, k], places in the gallery, without
        what the protocol ignores), correct (bool [rows, k]).
    """
    query, gallery = (study.embedding_set(method, dataset, seed, None, part) for part in ("query", "gallery"))
    found = study.evaluate(method, dataset, seed)
    spread = np.linspace(0, found.n_valid - 1, min(rows, found.n_valid)).round().astype(int)
    examples = np.argsort(found.ap, kind="stable")[spread]
    places = np.flatnonzero(found.valid)[examples]
    order, correct = _ranked(_part(query, places), gallery, k)
    frames = study.dataset(dataset)
    asked = frames.query.iloc[places].assign(ap=found.ap[examples]).reset_index(drop=True)
    return asked, frames.gallery.reset_index(drop=True), order, correct


class Disagreement(NamedTuple):
    """Queries whose first answer one method has wrong and another right, and what both find: see `paired_lists`."""

    query: pd.DataFrame  # rows of the queries to show
    gallery: pd.DataFrame
    lists: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]  # by method: order, correct [rows, k], AP [rows]
    found: int  # such queries, of which those to show are a part
    reverse: int  # queries where it is the other way round
    queries: int  # all that count


def comparison_lists(
    study: "Study", student: str, teacher: str, dataset: str, seed: int, rows: int = 4, k: int = 6
) -> Disagreement:
    """Queries where the first answer of the method `student` is wrong and that of `teacher` right.

    Where there are more than `rows`, they are spread evenly over their ranking by the student's AP, worst to best.
    """
    orders, hits, aps = {}, {}, {}
    for method in (student, teacher):
        query, gallery = (study.embedding_set(method, dataset, seed, None, part) for part in ("query", "gallery"))
        found = study.evaluate(method, dataset, seed)
        orders[method], hits[method] = _ranked(_part(query, np.flatnonzero(found.valid)), gallery, k)
        aps[method] = found.ap
    errs, knows = ~hits[student][:, 0], hits[teacher][:, 0]
    disagreed = np.flatnonzero(errs & knows)
    disagreed = disagreed[np.argsort(aps[student][disagreed], kind="stable")]
    shown = disagreed[np.linspace(0, len(disagreed) - 1, min(rows, len(disagreed))).round().astype(int)]
    frames = study.dataset(dataset)
    return Disagreement(
        frames.query.iloc[np.flatnonzero(found.valid)[shown]].reset_index(drop=True),
        frames.gallery.reset_index(drop=True),
        {method: (orders[method][shown], hits[method][shown], aps[method][shown]) for method in orders},
        len(disagreed), int((~errs & ~knows).sum()), len(errs),
    )  # fmt: skip


def _ranked(query: EmbeddingSet, gallery: EmbeddingSet, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The first k of the gallery for each query, without what the protocol ignores: places, and whether correct."""
    orders, hits = [], []
    for rows, block in distance_blocks(query.features, gallery.features, "cosine"):
        same = query.pid[rows, None] == gallery.pid
        ignored = (gallery.pid == JUNK) | (same & (query.camid[rows, None] == gallery.camid))
        orders.append(np.argsort(np.where(ignored, np.inf, block.cpu().numpy()), axis=1, kind="stable")[:, :k])
        hits.append(np.take_along_axis(same, orders[-1], axis=1))
    return np.concatenate(orders), np.concatenate(hits)


def _part(of: EmbeddingSet, places: np.ndarray) -> EmbeddingSet:
    return EmbeddingSet(of.features[places], of.pid[places], of.camid[places])
