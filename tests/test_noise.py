"""Noise that is added on purpose."""

from __future__ import annotations

import numpy as np
import pytest
from speech_examples import EXAMPLES

from pipeline.noise import NoiseOptions, noisy
from pipeline.sources import resolve
from pipeline.stages import CutOptions, cut
from pipeline.types import Outcome, Pcm, Recording

POWER = 1_000_000.0  # a deviation of 1,000


def added(name: str, *blocks: int, ratio_db: float = 20.0) -> Pcm:
    """The noise that blocks of silence come out with."""
    silence = [np.zeros(size, np.int16) for size in blocks]
    return np.concatenate(list(noisy(silence, POWER, ratio_db, name)))


@pytest.mark.parametrize("ratio_db", [30.0, 10.0, -5.0])
def test_noise_lies_so_far_below_the_speech(ratio_db: float) -> None:
    power = float(np.mean(added("a", 100_000, ratio_db=ratio_db).astype(float) ** 2))
    assert 10 * np.log10(POWER / power) == pytest.approx(ratio_db, abs=0.1)


def test_noise_depends_on_recording_and_place_not_on_blocks() -> None:
    whole = added("a", 10_000)
    assert np.array_equal(whole, added("a", 1, 4_998, 3, 4_998))
    assert not np.array_equal(whole, added("b", 10_000))


def test_loud_audio_is_clipped_not_wrapped() -> None:
    loud = np.full(10_000, 32_767, np.int16)
    (out,) = noisy([loud], POWER, 0.0, "a")
    assert out.min() > 20_000


def test_a_recording_is_cut_with_its_noise() -> None:
    plain, noised = (heard(CutOptions(noise=NoiseOptions(ratio))) for ratio in (None, 5.0))
    assert (plain.snr_db or 0) > 25
    assert noised.snr_db == pytest.approx(5, abs=1)
    assert noised.duration == plain.duration


def heard(options: CutOptions) -> Outcome:
    """How cutting a real recording ends."""
    *_, outcome = cut(example(), options)
    assert isinstance(outcome, Outcome)
    return outcome


def example() -> Recording:
    return next(iter(resolve([str(EXAMPLES / "es_centralita.opus")]).recordings))
