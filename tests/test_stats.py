import numpy as np
import pytest

from reidlib.stats import Difference, paired_bootstrap, seed_interval


def test_seed_interval_known_value():
    # t(0.975, 2) = 4.302653; standard error of 1, 2, 3 is 1 / sqrt(3)
    assert seed_interval([1, 2, 3]) == pytest.approx((2, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-6)
    # t(0.95, 1) = tan(0.45 pi); standard error of 0, 2 is 1
    assert seed_interval([0, 2], level=0.9) == pytest.approx((1, 1 - 6.313752, 1 + 6.313752), abs=1e-6)


def test_seed_interval_of_one_seed_and_of_equal_seeds():
    mean, low, high = seed_interval([0.5])
    assert mean == 0.5 and np.isnan(low) and np.isnan(high)
    assert seed_interval([0.25, 0.25, 0.25]) == (0.25, 0.25, 0.25)


def test_seed_interval_covers_the_truth_as_often_as_it_says():
    samples = np.random.default_rng(0).normal(3, 2, (2000, 4))
    covered = np.mean([low <= 3 <= high for _, low, high in map(seed_interval, samples)])
    assert 0.93 < covered < 0.97


def test_bootstrap_of_a_constant_difference_has_no_width():
    a = np.random.default_rng(0).integers(0, 64, 50) / 64
    assert paired_bootstrap(a + 0.25, a, n=100) == Difference(0.25, 0.25, 0.25)


def test_bootstrap_is_paired_and_near_the_normal_interval():
    rng = np.random.default_rng(1)
    b = rng.random(400)
    a = b + rng.normal(0.02, 0.1, 400)
    difference = paired_bootstrap(a, b)
    error = (a - b).std() / 20
    assert difference.mean == pytest.approx((a - b).mean())
    assert difference.low == pytest.approx(difference.mean - 1.96 * error, abs=0.1 * error)
    assert difference.high == pytest.approx(difference.mean + 1.96 * error, abs=0.1 * error)
    narrow = paired_bootstrap(a, b, level=0.5)
    assert difference.low < narrow.low < narrow.high < difference.high


def test_bootstrap_averages_seeds_first():
    rng = np.random.default_rng(2)
    a, b = rng.random((3, 40)), rng.random((2, 40))
    assert paired_bootstrap(a, b, n=200) == paired_bootstrap(a.mean(0), b.mean(0), n=200)


def test_bootstrap_repeats_with_its_seed():
    rng = np.random.default_rng(3)
    a, b = rng.random(30), rng.random(30)
    assert paired_bootstrap(a, b, n=300, seed=1) == paired_bootstrap(a, b, n=300, seed=1)
    assert paired_bootstrap(a, b, n=300, seed=1) != paired_bootstrap(a, b, n=300, seed=2)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: seed_interval([]), "values: .*at least one"),
        (lambda: seed_interval([0.1, float("nan")]), r"values: .*index \[1\]"),
        (lambda: seed_interval([0.1, 0.2], level=95), "level: .*95"),
        (lambda: paired_bootstrap([0.1, 0.2], [0.1]), "a has 2 queries, b has 1"),
        (lambda: paired_bootstrap([0.1], [0.1]), "at least 2"),
        (lambda: paired_bootstrap([[[0.1]]], [0.1]), r"a: expected 1 or 2 dimension"),
        (lambda: paired_bootstrap([0.1, np.inf], [0.1, 0.2]), r"a: .*index \[1\]"),
        (lambda: paired_bootstrap([0.1, 0.2], [0.1, 0.2], n=0), "n: at least 2"),
    ],
)
def test_errors_name_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
