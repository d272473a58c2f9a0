"""Intervals and tests of a difference, against what can be reckoned by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.resampling import ResampleOptions, interval_of_difference, interval_of_rate, matched_pairs_p

OPTIONS = ResampleOptions()


def test_interval_of_a_rate_is_that_of_the_binomial() -> None:
    rng = np.random.default_rng(1)
    errors = (rng.random(400) < 0.2).astype(int)
    low, high = interval_of_rate(errors, np.ones(400), OPTIONS) or (0, 0)
    rate, spread = errors.mean(), 1.96 * np.sqrt(errors.mean() * (1 - errors.mean()) / 400)
    assert (low, high) == (pytest.approx(rate - spread, abs=0.006), pytest.approx(rate + spread, abs=0.006))


def test_same_seed_gives_the_same_interval() -> None:
    columns = [3, 0, 1, 5, 2, 7], [10, 8, 9, 12, 17, 31]
    assert interval_of_rate(*columns, OPTIONS) == interval_of_rate(*columns, OPTIONS)
    assert interval_of_rate(*columns, OPTIONS) != interval_of_rate(*columns, ResampleOptions(seed=1))


def test_one_recording_has_no_interval() -> None:
    assert interval_of_rate([3], [10], OPTIONS) is None


def test_recordings_that_differ_alike_leave_no_doubt_about_the_difference() -> None:
    words = [10, 10, 10]
    assert interval_of_difference([3, 2, 4], words, [2, 1, 3], words, OPTIONS) == (
        pytest.approx(0.1),
        pytest.approx(0.1),
    )


@pytest.mark.parametrize(
    ("differences", "p"), [([1, 1, 1], 0.25), ([1, -1], 1.0), ([0, 0], None), ([2] * 10, 2 / 1024)]
)
def test_p_of_few_recordings_is_exact(differences: list[int], p: float | None) -> None:
    assert matched_pairs_p(differences, OPTIONS) == p


def test_p_of_many_recordings_comes_near_the_exact_one() -> None:
    heads = [1] * 30 + [-1] * 14  # a coin: two-sided p of at least 30 heads of 44
    from math import comb

    exact = 2 * sum(comb(44, k) for k in range(30, 45)) / 2**44
    assert matched_pairs_p(heads, OPTIONS) == pytest.approx(exact, abs=0.006)
