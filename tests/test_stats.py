from typing import NamedTuple

import numpy as np
import pytest

from reidlib import stats
from reidlib.stats import holm, p_value, percentiles, resamples, seed_interval


class Interval(NamedTuple):
    mean: float
    low: float
    high: float


def same(x):
    return x


def bootstrap(statistic, aps, tests=None, identities=None, n=10_000, level=0.95, seed=0):
    """The statistic and its interval; tables of AP share a test set by default."""
    mean, drawn = resamples(statistic, aps, tests or [""] * len(aps), identities or {}, n, seed)
    return Interval(mean, *percentiles(drawn, level))


def test_seed_interval_known_value():
    # t(0.975, 2) = 4.302653; standard error of 1, 2, 3 is 1 / sqrt(3)
    assert seed_interval([1, 2, 3]) == pytest.approx((2, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-6)
    # t(0.975, 1) = tan(0.475 pi); standard error of 0, 2 is 1
    assert seed_interval([0, 2]) == pytest.approx((1, 1 - 12.706205, 1 + 12.706205), abs=1e-6)


def test_seed_interval_of_one_seed_and_of_equal_seeds():
    mean, low, high = seed_interval([0.5])
    assert mean == 0.5 and np.isnan(low) and np.isnan(high)
    assert seed_interval([0.25, 0.25, 0.25]) == (0.25, 0.25, 0.25)


def test_seed_interval_covers_the_truth_as_often_as_it_says():
    samples = np.random.default_rng(0).normal(3, 2, (2000, 4))
    covered = np.mean([low <= 3 <= high for _, low, high in map(seed_interval, samples)])
    assert 0.93 < covered < 0.97


def test_bootstrap_of_a_constant_difference_has_no_width():
    a = np.random.default_rng(0).integers(0, 64, (3, 50)) / 64
    assert bootstrap(np.subtract, [a + 0.25, a], n=100) == pytest.approx((0.25, 0.25, 0.25), abs=1e-6)


def test_bootstrap_of_one_seed_is_paired_and_near_the_normal_interval_over_queries():
    rng = np.random.default_rng(1)
    b = rng.random((1, 400))
    a = b + rng.normal(0.02, 0.1, (1, 400))
    found = bootstrap(np.subtract, [a, b])
    error = (a - b).std() / 20
    assert found.mean == pytest.approx((a - b).mean())
    assert found.low == pytest.approx(found.mean - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(found.mean + 1.96 * error, abs=0.1 * error)
    narrow = bootstrap(np.subtract, [a, b], level=0.5)
    assert found.low < narrow.low < narrow.high < found.high


def test_bootstrap_of_equal_queries_is_students_interval_over_seeds():
    ap = np.repeat([[0.4], [0.5], [0.7]], 20, axis=1)
    found, wanted = bootstrap(same, [ap], n=100_000), seed_interval([0.4, 0.5, 0.7])
    assert found == pytest.approx(wanted, abs=0.05 * (wanted[2] - wanted[0]))


def test_bootstrap_agrees_with_brute_force():
    """Query by query and seed by seed, as the definition has it, with a ratio over two test sets; one tells identities."""
    rng = np.random.default_rng(2)
    a, b, whose = rng.random((3, 7)), rng.random((3, 5)) + 1, [4, 4, 9, 4, 9, 2, 2]
    n, values = 40, []
    weights = stats._seed_weights(3, n, 9)
    places = {"here": np.array([1, 1, 2, 1, 2, 0, 0], np.int32), "there": np.arange(5, dtype=np.int32)}
    counts = [stats._query_counts(place.tobytes(), n, 9, test) for test, place in places.items()]
    for r in range(n):
        means = []
        for ap, drawn in zip((a, b), counts):
            asked = [query for query, times in enumerate(drawn[r]) for _ in range(times)]
            means.append(sum(weights[r, s] * sum(ap[s, q] for q in asked) / len(asked) for s in range(3)))
        values.append(1 - means[0] / means[1])
    given = [lambda x, y: 1 - x / y, [a, b], ["here", "there"], {"here": whose}]
    found = bootstrap(*given, n=n, seed=9)
    assert found.low == pytest.approx(np.percentile(values, 2.5), abs=1e-6)
    assert found.high == pytest.approx(np.percentile(values, 97.5), abs=1e-6)
    assert found.mean == pytest.approx(1 - a.mean() / b.mean())
    mean, drawn = resamples(*given, n=n, seed=9)
    assert mean == found.mean and drawn == pytest.approx(values, abs=1e-6)
    assert tuple(percentiles(drawn)) == found[1:]


def test_weights_are_what_the_docstring_says():
    weights, single = stats._seed_weights(3, 50_000, 0), np.arange(20, dtype=np.int32).tobytes()
    counts = stats._query_counts(single, 2000, 0, "a")
    assert weights.sum(1) == pytest.approx(1)
    assert np.median(weights, 0) == pytest.approx(1 / 3, abs=0.01)
    assert (counts.sum(1) == 20).all() and counts.mean(0) == pytest.approx(1, abs=0.1)
    assert counts.var() == pytest.approx(1 - 1 / 20, abs=0.05)  # of a binomial
    assert not np.array_equal(counts, stats._query_counts(single, 2000, 0, "b"))  # another test set


def test_an_identity_is_drawn_whole_and_its_queries_anew():
    whose = np.array([0, 1, 1, 0, 2, 1], np.int32)  # 2, 3 and 1 queries
    counts = stats._query_counts(whose.tobytes(), 20_000, 0, "a")
    drawn = np.stack([counts[:, whose == identity].sum(1) for identity in range(3)], 1)
    times = drawn / [2, 3, 1]
    assert np.array_equal(times, times.round()) and (times.sum(1) == 3).all()  # each as often as it has queries
    assert times.mean(0) == pytest.approx([1, 1, 1], abs=0.03)
    once = counts[times[:, 1] == 1][:, whose == 1]
    assert once.mean(0) == pytest.approx([1, 1, 1], abs=0.05)
    assert once.var(0) == pytest.approx([2 / 3] * 3, abs=0.05)  # 3 draws of 3


def coverage(alike: float, apart: float, rounds=400) -> tuple[float, float]:
    """How often the interval over identities, and that over queries alone, covers the truth: 40 identities, 5 queries of
    each, whose APs have a part in common and a part of their own."""
    rng, whose, covered = np.random.default_rng(6), np.repeat(np.arange(40), 5), []
    for _ in range(rounds):
        ap = (rng.normal(0, alike, (40, 1)) + rng.normal(0, apart, (40, 5))).reshape(1, -1)
        both = [bootstrap(same, [ap], identities=given, n=600) for given in ({"": whose}, None)]
        covered.append([found.low <= 0 <= found.high for found in both])
    return tuple(np.mean(covered, 0))


def test_the_interval_covers_the_truth_where_queries_of_an_identity_are_alike():
    by_identity, by_query = coverage(1, 1)
    assert 0.92 < by_identity < 0.98 and by_query < 0.80
    by_identity, by_query = coverage(0, 1)  # nothing in common: a little wide, on the safe side
    assert 0.94 < by_identity and 0.92 < by_query < 0.98


def test_queries_without_identities_are_identities_of_their_own():
    ap = np.random.default_rng(7).random((2, 30))
    assert bootstrap(same, [ap], n=300) == bootstrap(same, [ap], identities={"": range(30)}, n=300)
    assert bootstrap(same, [ap], n=300) == bootstrap(same, [ap], identities={"another": [1, 2]}, n=300)


def test_p_values_and_intervals_agree():
    drawn = np.random.default_rng(8).normal(1.9, 1, 9999)
    p = p_value(drawn)
    assert 0.05 < p < 0.07 and p_value(-drawn) == p  # the two sides of a normal at 1.9
    assert percentiles(drawn, 1 - 0.9 * p)[0] < 0 < percentiles(drawn, 1 - 1.1 * p)[0]
    assert p_value(np.ones(9999)) == 2 / 10_000 and p_value(np.zeros(10)) == 1


def test_holm_on_known_values():
    # Holm 1979: the smallest times 4, the next times 3, ..., and never below one before it
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]).tolist() == [1, 1] and holm([0.2]).tolist() == [0.2] and holm([]).tolist() == []


def test_holm_errs_at_all_as_seldom_as_it_says():
    p = np.random.default_rng(9).random((4000, 20))
    assert np.mean([holm(row).min() < 0.05 for row in p]) == pytest.approx(0.05, abs=0.012)
    assert (p.min(1) < 0.05).mean() > 0.6  # uncorrected


@pytest.mark.parametrize("seeds, identities", [(1.0, 0.0), (1.0, 8.0), (0.0, 8.0)])
def test_bootstrap_covers_the_truth_wherever_the_noise_is(seeds, identities):
    rng, covered, whose = np.random.default_rng(3), [], np.repeat(range(30), 2)
    for _ in range(300):
        ap = rng.normal(0, seeds, (3, 1)) + rng.normal(0, identities, (1, 30))[:, whose] + rng.normal(0, 1, (3, 60))
        found = bootstrap(same, [ap], identities={"": whose}, n=1000)
        covered.append(found.low <= 0 <= found.high)
    assert np.mean(covered) > 0.93


def test_an_interaction_is_one_statistic():
    rng = np.random.default_rng(4)
    a, b, c, d = rng.random((4, 3, 60))
    found = bootstrap(lambda a, b, c, d: (a - b) - (c - d), [a, b, c, d], n=500)
    assert found == pytest.approx(bootstrap(same, [a - b - c + d], n=500), abs=1e-6)


def test_bootstrap_repeats_with_its_seed():
    a = np.random.default_rng(5).random((2, 30))
    assert bootstrap(same, [a], n=300, seed=1) == bootstrap(same, [a], n=300, seed=1)
    assert bootstrap(same, [a], n=300, seed=1) != bootstrap(same, [a], n=300, seed=2)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: seed_interval([]), "values: .*at least one"),
        (lambda: seed_interval([0.1, float("nan")]), r"values: .*index \[1\]"),
        (lambda: bootstrap(np.subtract, [[[0.1, 0.2]], [[0.1]]]), r"aps\[1\] has 1 queries, .* 2"),
        (lambda: bootstrap(np.subtract, [[[0.1, 0.2]], [[0.1, 0.2]] * 2]), r"aps\[1\] has 2 seeds, aps\[0\] has 1"),
        (lambda: bootstrap(same, [[[0.1]]]), "1 query can't .* at least 2"),
        (lambda: bootstrap(same, [[[0.1, 0.2]]], ["a"], {"a": [3, 3]}), "'a': 1 identity can't"),
        (lambda: bootstrap(same, [[[0.1, 0.2]]], ["a"], {"a": [3, 3, 4]}), r"identities\['a'\] .* \(3,\), .* 2 queries"),
        (lambda: bootstrap(same, [[0.1, 0.2]]), r"aps\[0\]: expected 2 dimension"),
        (lambda: bootstrap(same, [[[0.1, np.inf]]]), r"aps\[0\]: .*index \[0, 1\]"),
        (lambda: bootstrap(same, [[[0.1, 0.2]]], n=0), "n: at least 2"),
        (lambda: bootstrap(same, [[[0.1, 0.2]]], tests=["a", "b"]), "1 tables of AP, 2 test sets"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
