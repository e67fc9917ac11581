import numpy as np
import pytest
import torch

from reidlib.retrieval import EmbeddingSet, distances, evaluate, evaluate_distances, evaluation, rerank


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


def test_known_value():
    # One query at the origin's camera 0; ranks of its matches, once junk and the same camera are struck out: 1, 3, 4.
    query = EmbeddingSet([[0.0]], [7], [0])
    features = [[4.0], [3.0], [1.0], [0.5], [2.0], [0.1], [5.0]]
    gallery = EmbeddingSet(features, [7, 7, 7, -1, 9, 7, 0], [1, 1, 2, 1, 0, 0, 1])
    result = evaluate(query, gallery, "euclidean", max_rank=3)
    assert result.ap == pytest.approx([(1 + 2 / 3 + 3 / 4) / 3])
    assert result.mINP == pytest.approx(3 / 4)
    assert result.cmc.tolist() == [1, 1, 1]


def test_ties_rank_in_gallery_order():
    query = EmbeddingSet(np.ones((1, 3)), [1], [0])
    for place in range(6):
        pid = np.zeros(6, int)
        pid[place] = 1
        gallery = EmbeddingSet(np.ones((6, 3)), pid, np.ones(6, int))
        assert evaluate(query, gallery).ap == pytest.approx([1 / (place + 1)])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_equal_vectors_are_exactly_tied_wherever_they_stand(metric):
    rng = np.random.default_rng(0)
    n_query, n_gallery, dim = 40, 1003, 100
    vectors = rng.normal(size=(30, dim)).round(1)  # has -0.0, which must equal 0.0
    which = rng.integers(0, 30, n_gallery)
    features = vectors[which]
    features[::2] = np.where(features[::2] == 0, 0.0, features[::2])
    query = EmbeddingSet(rng.normal(size=(n_query, dim)), np.arange(n_query) % 10, np.zeros(n_query, int))
    gallery = EmbeddingSet(features, rng.integers(0, 10, n_gallery), np.ones(n_gallery, int))
    # Float64 distances to the distinct vectors, one column for each gallery entry: ties are exact by construction.
    q = query.features.double().numpy()
    v = vectors.astype(np.float32).astype(np.float64)
    if metric == "cosine":
        q, v = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, v))
    distances = ((q[:, None] - v) ** 2).sum(-1)
    check(evaluate(query, gallery, metric), brute_force(distances[:, which], query, gallery))


def test_equal_rows_are_found():
    rows = torch.tensor([[1.0, 0.0], [2.0, 3.0], [1.0, -0.0], [3.0, 2.0], [2.0, 3.0], [1.0, 0.0]])
    assert distances.first_equal(rows, np.arange(6)).tolist() == [0, 1, 0, 3, 1, 0]
    assert distances.first_equal(rows, np.array([1, 2, 4, 5])).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_tiles_and_blocks_change_nothing(monkeypatch, tied, metric):
    query, gallery = random_sets(3, n_query=101, tied=tied)
    plain = plain_distances(query, gallery)
    whole = evaluate(query, gallery, metric), evaluate_distances(plain, query, gallery)
    monkeypatch.setattr(distances, "BLOCK_ELEMENTS", 20 * len(gallery))
    monkeypatch.setattr(evaluation, "TILE", (40, 30))
    monkeypatch.setattr(distances, "ROWS", 50)
    assert len(list(distances.query_blocks(101, len(gallery)))) == 6
    parts = evaluate(query, gallery, metric), evaluate_distances(plain, query, gallery)
    for a, b in zip(whole, parts):
        np.testing.assert_array_equal(a.ap, b.ap)
        np.testing.assert_array_equal(a.cmc, b.cmc)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_parts_are_prepared_as_the_whole_is(metric):
    features = torch.randn(1000, 300, generator=torch.Generator().manual_seed(0))
    whole, parts = distances.prepare(features, metric), [distances.prepare(x, metric) for x in features.split(37)]
    assert all(torch.equal(a, torch.cat(b)) for a, b in zip(whole, zip(*parts)))


@pytest.mark.parametrize("junk", [False, True])
def test_distances_are_not_touched(junk):
    query, gallery = random_sets(4)
    if not junk:
        gallery = EmbeddingSet(gallery.features, np.maximum(gallery.pid, 0), gallery.camid)
    distances = plain_distances(query, gallery)
    before = distances.copy()
    evaluate_distances(distances, query, gallery)
    np.testing.assert_array_equal(distances, before)


def test_order_of_the_gallery_and_junk_change_nothing():
    query, gallery = random_sets(1)
    expected = evaluate(query, gallery)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(gallery))
    shuffled = EmbeddingSet(gallery.features[order], gallery.pid[order], gallery.camid[order])
    junk = query.features.repeat(2, 1)  # at distance zero of the queries
    more = EmbeddingSet(
        torch.cat([junk, gallery.features]),
        np.concatenate([np.full(len(junk), -1), gallery.pid]),
        np.concatenate([np.ones(len(junk), int), gallery.camid]),
    )
    for other in (shuffled, more):
        result = evaluate(query, other)
        np.testing.assert_array_equal(result.ap, expected.ap)
        np.testing.assert_array_equal(result.cmc, expected.cmc)
        assert result.mINP == expected.mINP


def test_distractors_count():
    query = EmbeddingSet([[1.0, 0.0]], [1], [0])
    gallery = EmbeddingSet([[1.0, 0.1], [1.0, 0.2], [1.0, 0.3]], [0, 0, 1], [0, 0, 1])
    assert evaluate(query, gallery).mAP == pytest.approx(1 / 3)


def test_pid_zero_and_junk_as_queries():
    """pid 0 is an ordinary identity where queries have it; a query of pid -1 has no match, junk being ignored."""
    query = EmbeddingSet([[1.0, 0.0], [0.0, 1.0]], [0, -1], [0, 0])
    gallery = EmbeddingSet([[1.0, 0.0], [0.0, 1.0]], [0, -1], [1, 1])
    result = evaluate(query, gallery)
    assert result.valid.tolist() == [True, False] and result.mAP == 1 and result.n_valid == 1


def test_cmc_beyond_the_gallery_keeps_its_last_value():
    query, gallery = EmbeddingSet([[1.0], [1.0]], [1, 5], [0, 0]), EmbeddingSet([[1.0], [1.0]], [2, 1], [1, 1])
    assert evaluate(query, gallery, max_rank=5).cmc.tolist() == [0, 1, 1, 1, 1]
    assert evaluate(query, gallery, max_rank=1).cmc.tolist() == [0]


@pytest.mark.filterwarnings("error")
def test_any_kind_of_features_and_labels():
    query, gallery = random_sets(4, tied=True)
    expected = evaluate(query, gallery, "euclidean").ap
    features = gallery.features.numpy()
    frozen = features.copy()
    frozen.flags.writeable = False
    wide = np.zeros((2 * len(gallery), 6))
    wide[::2, 1:5] = features
    kinds = [
        features.astype(np.float64), features.astype(np.float16), features.astype(np.int8), features.astype(">f4"),
        np.asfortranarray(features), frozen, wide[::2, 1:5], features[::-1].copy()[::-1], gallery.features.half(),
        gallery.features.bfloat16(), gallery.features.double().requires_grad_(), gallery.features.T.contiguous().T,
    ]  # fmt: skip
    for kind in kinds:
        same = EmbeddingSet(kind, torch.tensor(gallery.pid), gallery.camid.tolist())
        assert same.features.dtype == torch.float32 and same.pid.dtype == same.camid.dtype == np.int64
        np.testing.assert_array_equal(evaluate(query, same, "euclidean").ap, expected)


@pytest.mark.filterwarnings("error")
def test_any_kind_of_distances():
    query, gallery = random_sets(4)
    distances = plain_distances(query, gallery).astype(np.float16).astype(np.float32)
    expected = evaluate_distances(distances, query, gallery).ap
    frozen = distances.copy()
    frozen.flags.writeable = False
    tensor = torch.tensor(distances)
    for kind in (frozen, np.asfortranarray(distances), distances.astype(">f8"), tensor.half(), tensor.requires_grad_()):
        np.testing.assert_array_equal(evaluate_distances(kind, query, gallery).ap, expected)


def test_float64_distances_are_not_rounded():
    query = EmbeddingSet([[1.0]], [1], [0])
    gallery = EmbeddingSet([[1.0], [1.0]], [2, 1], [1, 1])
    assert evaluate_distances(np.array([[1 + 1e-12, 1]]), query, gallery).mAP == 1
    assert evaluate_distances(np.array([[2**53 + 2, 2**53]]), query, gallery).mAP == 1


def test_precision_settings_of_the_caller_do_not_matter():
    query, gallery = random_sets(5, n_query=200, n_gallery=900, dim=64)
    expected = evaluate(query, gallery)
    setting = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
            result = evaluate(query, gallery)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(setting)
    np.testing.assert_array_equal(result.ap, expected.ap)


def ones(n, dim=2):
    return np.ones((n, dim))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: EmbeddingSet(ones(3), [1, 2], [1, 1, 1]), ValueError, r"pid: expected shape \[3\].*got \[2\]"),
        (lambda: EmbeddingSet(ones(2), [1, 2], [[1, 1]]), ValueError, r"camid: expected shape \[2\]"),
        (lambda: EmbeddingSet(ones(2), [1.0, 2.0], [1, 1]), TypeError, "pid: expected integers, got float64"),
        (lambda: EmbeddingSet(np.ones(2), [1, 2], [1, 1]), ValueError, r"features: expected shape \[N, D\]"),
        (lambda: EmbeddingSet(np.ones((0, 2)), [], []), ValueError, r"features: .*got \[0, 2\]"),
        (lambda: EmbeddingSet([[1.0], [float("nan")]], [1, 2], [1, 1]), ValueError, "features: row 1 of 2 holds NaN"),
        (lambda: EmbeddingSet([[1e60], [0.0]], [1, 2], [1, 1]), ValueError, "features: row 0 of 2"),
        (lambda: EmbeddingSet([["a"]], [1], [1]), TypeError, "features: expected real numbers"),
        (lambda: EmbeddingSet(torch.ones(1, 1) * 1j, [1], [1]), TypeError, "features: expected real numbers"),
    ],
)
def test_embedding_set_names_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_features_whose_sum_overflows_are_taken():
    assert len(EmbeddingSet([[3e38, 3e38], [1.0, 2.0]], [1, 2], [1, 1])) == 2


def test_evaluation_errors_name_what_is_wrong():
    query, gallery = EmbeddingSet(ones(2), [1, 2], [0, 0]), EmbeddingSet(ones(3), [1, 2, -1], [1, 1, 1])
    distances = np.zeros((2, 3))
    with pytest.raises(ValueError, match="2 dimensions.*4"):
        evaluate(query, EmbeddingSet(ones(3, 4), gallery.pid, gallery.camid))
    with pytest.raises(ValueError, match="metric: .*'dot'"):
        evaluate(query, gallery, "dot")
    with pytest.raises(ValueError, match="max_rank: at least 1, not 0"):
        evaluate(query, gallery, max_rank=0)
    with pytest.raises(ValueError, match=r"expected shape \[2, 3\].*got \[3, 2\]"):
        evaluate_distances(distances.T, query, gallery)
    distances[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"distances\[1, 2\] is NaN"):
        evaluate_distances(distances, query, gallery)
    same_camera = EmbeddingSet(ones(2), [1, 2], [1, 1])
    with pytest.raises(ValueError, match="none of the 2 queries has a true match.*1 are junk"):
        evaluate(same_camera, gallery)
    only_junk = EmbeddingSet(ones(1), [-1], [1])
    with pytest.raises(ValueError, match="none of the 2 queries"):
        evaluate(query, only_junk)


def dense_rerank(features, n_query, k1, k2, lambda_value):
    """Zhong et al. 2017, sections 3.2 to 3.5, with sets and dense matrices. features: float64 [N, D] of unit length."""
    n = len(features)
    distance = ((features[:, None] - features) ** 2).sum(-1)
    distance /= np.maximum(distance.max(axis=1, keepdims=True), 1e-12)
    ranking = np.argsort(distance, axis=1, kind="stable")

    def reciprocal(i, k):
        return {j for j in ranking[i, : k + 1] if i in ranking[j, : k + 1]}

    encoding = np.zeros((n, n))
    for i in range(n):
        own = reciprocal(i, k1)
        wide = set(own)
        for j in own:
            other = reciprocal(j, round(k1 / 2))
            if len(own & other) > 2 / 3 * len(other):
                wide |= other
        wide = list(wide)
        encoding[i, wide] = np.exp(-distance[i, wide])
        encoding[i] /= max(encoding[i].sum(), 1e-12)
    if k2 > 1:
        encoding = np.array([encoding[ranking[i, :k2]].mean(axis=0) for i in range(n)])
    smaller = np.minimum(encoding[:n_query, None], encoding[None, n_query:]).sum(-1)
    larger = 2 - smaller
    return (1 - lambda_value) * (1 - smaller / larger) + lambda_value * distance[:n_query, n_query:]


def rerank_sets(kind, n_query, n_gallery):
    rng = np.random.default_rng(n_gallery)
    n = n_query + n_gallery
    if kind == "tied":  # unit vectors of four entries of 1/2: every product is exact, so ties are
        features = np.zeros((n, 8))
        for row in features:
            row[rng.choice(8, 4, replace=False)] = rng.choice([-0.5, 0.5], 4)
    else:
        features = rng.normal(size=(n // 9 + 1, 12))[rng.integers(0, n // 9 + 1, n)] + 0.7 * rng.normal(size=(n, 12))
        features = features.astype(np.float32).astype(float)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = np.zeros(n, int)
    sets = [EmbeddingSet(features[part], labels[part], labels[part]) for part in (slice(n_query), slice(n_query, n))]
    return features, *sets


@pytest.mark.parametrize("kind", ["clusters", "tied"])
@pytest.mark.parametrize(
    "n_query, n_gallery, k1, k2, lambda_value",
    [
        (20, 130, 20, 6, 0.3),
        (7, 60, 5, 1, 0),
        (7, 60, 1, 3, 1),
        (3, 40, 3, 12, 0.5),
        (60, 300, 20, 6, 0.3),
        (4, 9, 20, 6, 0.3),  # fewer entries than neighbours asked for
        (1, 1, 2, 2, 0.3),
    ],
)
def test_rerank_agrees_with_the_dense_form(kind, n_query, n_gallery, k1, k2, lambda_value):
    features, query, gallery = rerank_sets(kind, n_query, n_gallery)
    result = rerank(query, gallery, k1, k2, lambda_value)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, dense_rerank(features, n_query, k1, k2, lambda_value), rtol=0, atol=5e-6)


def test_rerank_normalises_features_and_does_not_touch_them():
    _, query, gallery = rerank_sets("clusters", 10, 80)
    expected = rerank(query, gallery)
    before = query.features.clone()
    longer = EmbeddingSet(query.features * 8, query.pid, query.camid)
    np.testing.assert_allclose(rerank(longer, gallery), expected, atol=1e-6)
    np.testing.assert_array_equal(rerank(query, gallery), expected)
    assert torch.equal(query.features, before)


@pytest.mark.parametrize("kind", ["clusters", "tied"])  # tied has equal vectors
def test_rerank_in_blocks(monkeypatch, kind):
    _, query, gallery = rerank_sets(kind, 30, 270)
    expected = rerank(query, gallery)
    monkeypatch.setattr(distances, "BLOCK_ELEMENTS", 20 * 300)
    assert len(list(distances.query_blocks(300, 300))) == 15
    np.testing.assert_allclose(rerank(query, gallery), expected, atol=1e-6)


def test_rerank_of_equal_vectors_is_finite():
    query, gallery = EmbeddingSet(ones(2), [1, 2], [0, 0]), EmbeddingSet(ones(30), [1] * 30, [1] * 30)
    assert np.isfinite(rerank(query, gallery)).all()


def test_rerank_names_what_is_wrong():
    _, query, gallery = rerank_sets("clusters", 2, 5)
    for arguments, message in (({"k1": 0}, "k1"), ({"k2": 0}, "k2"), ({"lambda_value": 1.5}, "lambda_value.*1.5")):
        with pytest.raises(ValueError, match=message):
            rerank(query, gallery, **arguments)
    with pytest.raises(ValueError, match="12 dimensions.*3"):
        rerank(query, EmbeddingSet(ones(2, 3), [1, 1], [1, 1]))


@pytest.mark.parametrize("offset", [0, 100, 10_000, 1_000_000])
def test_euclidean_ranks_are_right_far_from_the_origin(offset):
    query, gallery = random_sets(5, dim=32)
    moved = [EmbeddingSet(x.features + offset, x.pid, x.camid) for x in (query, gallery)]
    q, g = (x.features.double().numpy() for x in moved)  # what is left of them in float32, in float64 from here on
    distances = ((q[:, None] - g) ** 2).sum(-1)
    check(evaluate(*moved, "euclidean"), brute_force(distances, query, gallery))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("scale", [1e-10, 1e-5, 1e5, 1e15])
def test_the_scale_of_features_does_not_matter(metric, scale):
    query, gallery = random_sets(6, dim=32)
    scaled = [EmbeddingSet(x.features * scale, x.pid, x.camid) for x in (query, gallery)]
    check(evaluate(*scaled, metric), brute_force(plain_distances(query, gallery, metric), query, gallery))


@pytest.mark.parametrize("value", [1e25, 1e-30])
@pytest.mark.parametrize("of", ["query", "gallery"])
def test_features_whose_squares_leave_float32_are_refused(value, of):
    query, gallery = random_sets(7)
    wrong = {"query": query, "gallery": gallery}[of]
    wrong.features[3] = value
    said = f"{of} features: row 3 is 2.0e[+-]\\d+ long; ranks are right from 1e-12 to 1e\\+18 only"
    for rank in (evaluate, lambda *sets: evaluate(*sets, "euclidean"), rerank):
        with pytest.raises(ValueError, match=said):
            rank(query, gallery)


def test_features_that_are_all_zeros_are_as_far_from_everything():
    query, gallery = random_sets(8)
    gallery.features[:3] = 0
    for metric in ("cosine", "euclidean"):
        check(evaluate(query, gallery, metric), brute_force(plain_distances(query, gallery, metric), query, gallery))
