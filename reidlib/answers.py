"""What methods answer to single queries: the first of the gallery, right or wrong, for a look at it."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from reidlib.retrieval import EmbeddingSet
from reidlib.retrieval.distances import distance_blocks
from reidlib.retrieval.evaluation import JUNK
from reidlib.study import Study


def retrieval_examples(
    study: Study, method: str, dataset: str, seed: int, rows: int = 5, k: int = 8
) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray, np.ndarray]:
    """Queries spread evenly over their ranking by AP, worst to best, and what each finds: for `ranked_lists`.

    Returns the queries' rows with columns ap and matches (right answers in the gallery), the gallery's frame, order (int
    [rows, k], places in the gallery, without what the protocol ignores), correct (bool [rows, k]).
    """
    found = study.evaluate(method, dataset, seed)
    examples = _spread(found.ap, rows)
    places = np.flatnonzero(found.valid)[examples]
    order, correct, matches = ranked(study, method, dataset, seed, places, k)
    frames = study.dataset(dataset)
    asked = frames.query.iloc[places].assign(ap=found.ap[examples], matches=matches).reset_index(drop=True)
    return asked, frames.gallery.reset_index(drop=True), order, correct


class Disagreement(NamedTuple):
    """Queries whose first answer one method has wrong and another right, and what both find: see `paired_lists`."""

    query: pd.DataFrame  # rows of the queries to show, with a column matches: right answers in the gallery
    gallery: pd.DataFrame
    lists: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]  # by method: order, correct [rows, k], AP [rows]
    found: int  # such queries, of which those to show are a part
    reverse: int  # queries where it is the other way round
    queries: int  # all that count


def comparison_lists(
    study: Study, student: str, teacher: str, dataset: str, seed: int, rows: int = 4, k: int = 6
) -> Disagreement:
    """Queries where the first answer of the method `student` is wrong and that of `teacher` right.

    Where there are more than `rows`, they are spread evenly over their ranking by the student's AP, worst to best.
    """
    orders, hits, aps = {}, {}, {}
    for method in (student, teacher):
        found = study.evaluate(method, dataset, seed)
        places, aps[method] = np.flatnonzero(found.valid), found.ap
        orders[method], hits[method], matches = ranked(study, method, dataset, seed, places, k)
    errs, knows = ~hits[student][:, 0], hits[teacher][:, 0]
    disagreed = np.flatnonzero(errs & knows)
    shown = disagreed[_spread(aps[student][disagreed], rows)]
    frames = study.dataset(dataset)
    return Disagreement(
        frames.query.iloc[places[shown]].assign(matches=matches[shown]).reset_index(drop=True),
        frames.gallery.reset_index(drop=True),
        {method: (orders[method][shown], hits[method][shown], aps[method][shown]) for method in orders},
        len(disagreed), int((~errs & ~knows).sum()), len(errs),
    )  # fmt: skip


def _spread(ap: np.ndarray, rows: int) -> np.ndarray:
    """Places of `rows` queries, or of all where there are fewer, spread evenly over their ranking by AP, worst to best."""
    ranking = np.argsort(ap, kind="stable")
    return ranking[np.linspace(0, len(ap) - 1, min(rows, len(ap))).round().astype(int)]


class Ranked(NamedTuple):
    """What a method finds for some queries."""

    order: np.ndarray  # int [queries, k at most]: places in the gallery; fewer than k where fewer count for one of them
    correct: np.ndarray  # bool, of the same shape
    matches: np.ndarray  # int [queries]: right answers that the whole gallery holds


def ranked(study: Study, method: str, dataset: str, seed: int, places: np.ndarray, k: int) -> Ranked:
    """The first k of the gallery, without what the protocol ignores, for the queries at `places`."""
    query, gallery = (study.embedding_set(method, dataset, seed, None, part) for part in ("query", "gallery"))
    query = EmbeddingSet(query.features[places], query.pid[places], query.camid[places])
    orders, hits, matches, counted = [], [], [], k
    for rows, block in distance_blocks(query.features, gallery.features):
        same = query.pid[rows, None] == gallery.pid
        ignored = (gallery.pid == JUNK) | (same & (query.camid[rows, None] == gallery.camid))
        matches.append((same & ~ignored).sum(1))
        counted = min(counted, (~ignored).sum(1).min())
        orders.append(np.argsort(np.where(ignored, np.inf, block.cpu().numpy()), axis=1, kind="stable")[:, :k])
        hits.append(np.take_along_axis(same, orders[-1], axis=1))
    return Ranked(np.concatenate(orders)[:, :counted], np.concatenate(hits)[:, :counted], np.concatenate(matches))
