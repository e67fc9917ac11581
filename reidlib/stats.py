"""How sure a number is: intervals over seeds, and paired comparisons over queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

RESAMPLES_AT_ONCE = 256  # bounds the bootstrap's memory


class Difference(NamedTuple):
    """A difference of means with the bounds of its confidence interval."""

    mean: float
    low: float
    high: float


def seed_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high) of one metric over seeds: Student's t interval of the mean, n - 1 degrees of freedom.

    values: float [n_seeds]. One seed has no interval: low and high are NaN.
    Raises ValueError where there is no value, one isn't finite, or level is not between 0 and 1.
    """
    values = np.asarray(values, float)
    _check(values, "values", ndims=(1,))
    _check_level(level)
    mean = float(values.mean())
    if len(values) == 1:
        return mean, float("nan"), float("nan")
    half = float(scipy.stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def paired_bootstrap(a, b, n: int = 10_000, level: float = 0.95, seed: int = 0) -> Difference:
    """mAP(a) - mAP(b) over the same queries, with a percentile interval from n resamples of the queries.

    a, b: AP of each query, float [n_queries] or [n_seeds, n_queries]; the queries must be the same, in the same order.
    Seeds are averaged first, and a query keeps its seeds together: the interval is about which queries were asked, not
    about the seeds (for that, see `seed_interval`). n_seeds may differ between a and b.
    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.

    Raises ValueError where the numbers of queries differ or are under 2, a value isn't finite, or n or level is
    impossible.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    _check(a, "a", ndims=(1, 2))
    _check(b, "b", ndims=(1, 2))
    _check_level(level)
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"a has {a.shape[-1]} queries, b has {b.shape[-1]}: compare the AP of the same queries")
    if a.shape[-1] < 2:
        raise ValueError("a and b: 1 query can't be resampled, give at least 2")
    if n < 2:
        raise ValueError(f"n: at least 2 resamples, not {n}")
    differences = np.atleast_2d(a).mean(axis=0) - np.atleast_2d(b).mean(axis=0)
    interval = scipy.stats.bootstrap(
        (differences,),
        np.mean,
        n_resamples=n,
        batch=RESAMPLES_AT_ONCE,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Difference(float(differences.mean()), float(interval.low), float(interval.high))


def _check(values: np.ndarray, name: str, ndims: tuple[int, ...]) -> None:
    if values.ndim not in ndims or values.size == 0:
        wanted = " or ".join(str(ndim) for ndim in ndims)
        raise ValueError(f"{name}: expected {wanted} dimension(s) and at least one value, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: holds NaN or infinity at index {np.argwhere(~np.isfinite(values))[0].tolist()}")


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level: between 0 and 1, such as 0.95, not {level}")
