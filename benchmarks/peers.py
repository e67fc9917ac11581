"""What people use today, as far as it is installed; else the few lines that do what it does, named "as ...".

A peer is a pair: its name as the tables show it, and a function.
"""

import contextlib
import importlib.util
import io
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
from torch.nn.functional import normalize

Ranking = Callable[..., tuple]  # (distances [Q, G], query pid, gallery pid, query camid, gallery camid, max_rank)


def found(package: str, module: str, bare: Sequence[str] = ()):
    """(version, module) of an installed peer; None where it is missing or does not import.

    bare: its packages to be entered without running their __init__, which wants more than the module does.
    """
    stubs = []
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            for name in bare:
                if name not in sys.modules and (spec := importlib.util.find_spec(name)) is not None:
                    sys.modules[name] = importlib.util.module_from_spec(spec)
                    stubs.append(name)
            return version(package), importlib.import_module(module)
    except (PackageNotFoundError, ImportError, AttributeError):
        return None
    finally:
        for name in stubs:
            del sys.modules[name]  # the whole package can still be imported later


# ranking


def rankings() -> dict[str, Ranking]:
    """By name: functions from distances and labels to CMC and mAP (or every query's AP)."""
    peers = {}
    peer = found("torchreid", "torchreid.metrics.rank", bare=["torchreid", "torchreid.metrics"])
    if peer is not None:
        number, rank = peer
        peers[f"torchreid {number}, Python"] = partial(rank.evaluate_rank, use_cython=False)
        if rank.IS_CYTHON_AVAI:
            peers[f"torchreid {number}, compiled"] = rank.evaluate_rank
    peer = found("fastreid", "fastreid.evaluation.rank", bare=["fastreid.evaluation"])
    if peer is not None and peer[1].IS_CYTHON_AVAI:
        peers[f"fast-reid {peer[0]}, compiled"] = peer[1].evaluate_rank
    if not any(name.endswith("Python") for name in peers):
        peers["as torchreid does, Python"] = sorted_ranking
    peer = found("torchmetrics", "torchmetrics.retrieval")
    if peer is not None:
        peers[f"torchmetrics {peer[0]}, RetrievalMAP"] = partial(torchmetrics_ranking, retrieval=peer[1])
    return peers


def torchmetrics_ranking(distances, query_pid, gallery_pid, query_camid, gallery_camid, max_rank, retrieval):
    """mAP alone: torchmetrics knows neither cameras nor CMC, but can be told what to ignore."""
    same = torch.from_numpy(gallery_pid == query_pid[:, None])
    target = same.long().masked_fill_(same & torch.from_numpy(gallery_camid == query_camid[:, None]), -1)
    queries = torch.arange(len(query_pid))[:, None].expand(target.shape)
    mean = retrieval.RetrievalMAP(empty_target_action="skip", ignore_index=-1)
    scores = 3 - torch.from_numpy(distances)  # what is not positive counts as not found
    return None, float(mean(scores, target, indexes=queries))


def sorted_ranking(distances, query_pid, gallery_pid, query_camid, gallery_camid, max_rank):
    """CMC float [max_rank] and mAP by sorting the whole matrix, then a loop over queries and, for AP, over ranks."""
    order = np.argsort(distances, axis=1)
    correct = gallery_pid[order] == query_pid[:, None]
    curves, precisions = [], []
    for row, pid, camid, hits in zip(order, query_pid, query_camid, correct):
        hits = hits[(gallery_pid[row] != pid) | (gallery_camid[row] != camid)].astype(np.int32)
        if not hits.any():
            continue
        found_so_far = hits.cumsum()
        curves.append(np.minimum(found_so_far, 1)[:max_rank])
        precision = np.asarray([count / (rank + 1) for rank, count in enumerate(found_so_far)])
        precisions.append((precision * hits).sum() / hits.sum())
    return np.mean(curves, axis=0), np.mean(precisions)


# re-ranking


def rerankings() -> dict[str, Callable]:
    """By name: functions (query features [Q, D], gallery features [G, D]) -> re-ranked distances [Q, G]."""
    peer = found("torchreid", "torchreid.utils.rerank", bare=["torchreid", "torchreid.utils"])
    if peer is None:
        return {"as Zhong et al. do, dense": lambda query, gallery: dense_rerank(*_distances(query, gallery))}
    return {f"torchreid {peer[0]}, re_ranking": lambda query, gallery: peer[1].re_ranking(*_distances(query, gallery))}


def _distances(query: np.ndarray, gallery: np.ndarray) -> list[np.ndarray]:
    """Euclidean distances [Q, G], [Q, Q], [G, G] of unit vectors: the published code squares them itself."""
    q, g = (normalize(torch.from_numpy(x), dim=1) for x in (query, gallery))
    return [(2 - 2 * (a @ b.T)).clamp_(min=0).sqrt_().numpy() for a, b in ((q, g), (q, q), (g, g))]


def dense_rerank(query_gallery, query_query, gallery_gallery, k1=20, k2=6, lambda_value=0.3) -> np.ndarray:
    """k-reciprocal re-ranking (Zhong et al., CVPR 2017) with matrices over all entries and full sorts."""
    n_query = len(query_query)
    distance = np.block([[query_query, query_gallery], [query_gallery.T, gallery_gallery]]) ** 2
    distance /= distance.max(axis=1, keepdims=True)
    ranking = np.argsort(distance, axis=1).astype(np.int32)

    def reciprocal(i: int, k: int) -> np.ndarray:
        forward = ranking[i, : k + 1]
        return forward[(ranking[forward, : k + 1] == i).any(axis=1)]

    encoding = np.zeros_like(distance)
    for i in range(len(distance)):
        own = wide = reciprocal(i, k1)
        for j in own:
            other = reciprocal(j, round(k1 / 2))
            if len(np.intersect1d(other, own)) > 2 / 3 * len(other):
                wide = np.union1d(wide, other)
        weights = np.exp(-distance[i, wide])
        encoding[i, wide] = weights / weights.sum()
    if k2 > 1:
        encoding = np.stack([encoding[ranking[i, :k2]].mean(axis=0) for i in range(len(distance))])
    members = [np.flatnonzero(column) for column in encoding.T]
    jaccard = np.empty((n_query, len(distance)), np.float32)
    for i in range(n_query):
        shared = np.zeros(len(distance), np.float32)
        for j in np.flatnonzero(encoding[i]):
            shared[members[j]] += np.minimum(encoding[i, j], encoding[members[j], j])
        jaccard[i] = 1 - shared / (2 - shared)
    return ((1 - lambda_value) * jaccard + lambda_value * distance[:n_query])[:, n_query:]
