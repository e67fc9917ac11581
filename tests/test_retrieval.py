import numpy as np
import pytest
import torch

from reidlib.retrieval import EmbeddingSet, evaluate, evaluate_distances


def brute_force(distances, query, gallery, max_rank=50):
    """The Market-1501 protocol from its definition: sort, strike out, read off."""
    aps, inps, firsts, valid = [], [], [], []
    for i in range(len(query)):
        order = np.argsort(distances[i], kind="stable")
        order = order[gallery.pid[order] != -1]
        same = gallery.pid[order] == query.pid[i]
        hit = same[~(same & (gallery.camid[order] == query.camid[i]))]
        valid.append(hit.any())
        if valid[-1]:
            ranks = np.flatnonzero(hit) + 1
            aps.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
            inps.append(len(ranks) / ranks[-1])
            firsts.append(ranks[0])
    cmc = np.array([np.mean(np.array(firsts) <= k) for k in range(1, max_rank + 1)])
    return np.array(aps), np.mean(inps), cmc, np.array(valid)


def plain_distances(query, gallery, metric="cosine"):
    q, g = query.features, gallery.features
    if metric == "euclidean":
        return (q.pow(2).sum(1, keepdim=True) + g.pow(2).sum(1)).addmm(q, g.T, alpha=-2).numpy()
    return (1 - torch.nn.functional.normalize(q) @ torch.nn.functional.normalize(g).T).numpy()


def random_sets(seed, n_query=23, n_gallery=157, dim=4, tied=False, pids=12):
    """Pids from -1 (junk) and 0 (distractors) up; some query identities are not in the gallery, some in one camera."""
    rng = np.random.default_rng(seed)

    def draw(n, low, high):
        features = rng.integers(-1, 2, (n, dim)) if tied else rng.normal(size=(n, dim))
        return EmbeddingSet(features.astype(np.float32), rng.integers(low, high, n), rng.integers(0, 3, n))

    return draw(n_query, 0, pids + 3), draw(n_gallery, -1, pids)


def check(result, expected):
    ap, inp, cmc, valid = expected
    np.testing.assert_allclose(result.ap, ap, rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.cmc, cmc, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(result.valid, valid)
    assert result.mAP == pytest.approx(ap.mean(), abs=1e-12)
    assert result.mINP == pytest.approx(inp, abs=1e-12)
    assert result.n_valid == valid.sum() == len(result.ap)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_sorting(metric, tied, seed):
    query, gallery = random_sets(seed, tied=tied)
    distances = plain_distances(query, gallery, metric)
    check(evaluate(query, gallery, metric), brute_force(distances, query, gallery))
    check(evaluate_distances(distances, query, gallery), brute_force(distances, query, gallery))
