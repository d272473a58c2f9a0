"""A listing, the headers of some of it and a measured run of a few -> what all of it will take, with ranges.

Duty: the arithmetic. All audio is estimated from bytes by the pace of each format; what was measured stands for the
seconds that it was drawn for (`draws.py`), however much of it was measured. Ranges are percentiles of a bootstrap over
the recordings that were looked at. Knows no files and no clocks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.probes import Probe, ending
from pipeline.resampling import ResampleOptions, percentiles, resampled


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number, and between which two it lies; both are the number itself where nothing was guessed."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Estimate:
        """Return it in another unit."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)

    def __add__(self, other: Estimate) -> Estimate:
        """Return the sum of both, whose ranges add up: what is wrong with one is wrong with the other."""
        return Estimate(self.value + other.value, self.low + other.low, self.high + other.high)

    def plus(self, more: float) -> Estimate:
        """Return it with a fixed part."""
        return Estimate(self.value + more, self.low + more, self.high + more)


@dataclass(frozen=True, slots=True)
class Listed:
    """What a listing says of its recordings, by the ending of their names."""

    counts: Mapping[str, int]
    sizes: Mapping[str, int]  # bytes

    @property
    def recordings(self) -> int:
        return sum(self.counts.values())

    @property
    def bytes(self) -> int:
        return sum(self.sizes.values())


@dataclass(frozen=True, slots=True)
class Heard:
    """A recording of the measured run: seconds that were heard, work that it made (any unit), language, characters."""

    recording_id: str
    seconds: float
    speech_s: float
    work: float
    language: str | None
    characters: int


@dataclass(frozen=True, slots=True)
class Measured:
    """A run of the real plan over a few recordings on this machine."""

    heard: tuple[Heard, ...]
    load_s: float  # until the model was there
    wall_s: float  # from then on
    cpu_s: float  # of all cores, from then on
    output_bytes: int

    @property
    def seconds(self) -> float:
        return sum(one.seconds for one in self.heard)


@dataclass(frozen=True)
class Forecast:
    """What all recordings will take."""

    audio_s: Estimate
    unreadable: Estimate  # recordings
    speech_s: Estimate
    wall_s: Estimate  # of one actor like the measured one, without its start
    cpu_s: Estimate
    output_bytes: Estimate
    languages: dict[str, float]  # share of the audio that was measured

    def then(self, second: Forecast) -> Forecast:
        """Return what both passes over the recordings take."""
        return replace(
            self,
            wall_s=self.wall_s + second.wall_s,
            cpu_s=self.cpu_s + second.cpu_s,
            output_bytes=self.output_bytes + second.output_bytes,
        )


def audio_seconds(
    listed: Listed, probes: Sequence[Probe], options: ResampleOptions
) -> tuple[Estimate, NDArray[np.float64]]:
    """Return the seconds of all recordings, and its bootstrap samples (none where each was looked at)."""
    known = [one for one in probes if one.seconds and not one.trouble]
    if len(probes) >= listed.recordings and len(known) + sum(bool(one.trouble) for one in probes) == len(probes):
        total = sum(one.seconds or 0.0 for one in probes)
        return Estimate(total, total, total), np.empty(0)
    endings = sorted({ending(one.recording.uri) for one in probes} | listed.counts.keys())
    # By ending: recordings and bytes that were looked at, and their seconds (0 for what cannot be read).
    columns = np.zeros((len(probes), len(endings), 3))
    for row, one in zip(columns, probes, strict=True):
        row[endings.index(ending(one.recording.uri))] = 1.0, one.recording.size or 0, one.seconds or 0.0
    totals = _totals(columns.sum(axis=0)[None], listed, endings)
    samples = _totals(
        resampled(columns.reshape(len(probes), -1), options).reshape(-1, len(endings), 3), listed, endings
    )
    return _estimate(float(totals[0]), samples, options), samples


def _totals(sums: NDArray[np.float64], listed: Listed, endings: Sequence[str]) -> NDArray[np.float64]:
    """Return the seconds of everything for sums [samples, endings, 3] of what was looked at."""
    everything = sums.sum(axis=1)
    total = np.zeros(len(sums))
    for at, name in enumerate(endings):
        count, size, seconds = sums[:, at].T
        by_byte = np.where(size > 0, seconds / np.maximum(size, 1), everything[:, 2] / np.maximum(everything[:, 1], 1))
        by_one = np.where(count > 0, seconds / np.maximum(count, 1), everything[:, 2] / np.maximum(everything[:, 0], 1))
        bytes_ = listed.sizes.get(name, 0)
        total += by_byte * bytes_ if bytes_ else by_one * listed.counts.get(name, 0)
    return total


def forecast(
    listed: Listed,
    probes: Sequence[Probe],
    measured: Measured,
    standing: Mapping[str, float],
    options: ResampleOptions,
) -> Forecast:
    """Return what all recordings will take; `standing` is what was drawn: the seconds each measured one stands for."""
    audio, samples = audio_seconds(listed, probes, options)
    heard = measured.heard
    work = sum(one.work for one in heard) or 1.0
    characters = sum(one.characters for one in heard) or 1
    seconds = np.array([standing[one.recording_id] for one in heard])
    told = np.array([[one.work / work, one.speech_s, one.characters] for one in heard])
    heard_s = np.array([one.seconds for one in heard])[:, None]
    paces = np.divide(told, heard_s, where=heard_s > 0, out=np.zeros_like(told))  # of a second
    columns = np.column_stack([seconds, paces * seconds[:, None]])
    drawn = resampled(columns, options)
    languages: dict[str, float] = defaultdict(float)
    for one in heard:
        languages[one.language or "none"] += standing[one.recording_id] / seconds.sum()
    bad = np.array([[1.0, bool(one.trouble)] for one in probes])
    lost = resampled(bad, options)

    def scaled(column: int, unit: float) -> Estimate:
        rate = unit * columns[:, column].sum() / max(seconds.sum(), 1e-9)
        rates = unit * drawn[:, column] / np.maximum(drawn[:, 0], 1e-9)
        count = max(len(rates), len(samples))
        if not count:
            return Estimate(rate * audio.value, rate * audio.value, rate * audio.value)
        many = np.resize(rates, count) if len(rates) else np.full(count, rate)
        hours = np.resize(samples, count) if len(samples) else np.full(count, audio.value)
        return _estimate(rate * audio.value, many * hours, options)

    unreadable = listed.recordings * bad[:, 1].mean() if len(bad) else 0.0
    if len(probes) >= listed.recordings:
        lost = lost[:0]  # nothing was guessed
    return Forecast(
        audio,
        _estimate(unreadable, listed.recordings * lost[:, 1] / np.maximum(lost[:, 0], 1), options),
        scaled(2, 1.0),
        scaled(1, measured.wall_s),
        scaled(1, measured.cpu_s),
        scaled(3, measured.output_bytes / characters),
        dict(sorted(languages.items(), key=lambda item: -item[1])),
    )


def listed_of(uris: Iterable[str], sizes: Iterable[int]) -> Listed:
    """Sum up a listing; sizes below 0 are unknown."""
    counts: dict[str, int] = defaultdict(int)
    bytes_: dict[str, int] = defaultdict(int)
    for uri, size in zip(uris, sizes, strict=True):
        counts[ending(uri)] += 1
        bytes_[ending(uri)] += max(0, size)
    return Listed(dict(counts), dict(bytes_))


def _estimate(value: float, samples: NDArray[np.float64], options: ResampleOptions) -> Estimate:
    low, high = percentiles(samples, options) or (value, value)
    return Estimate(value, min(low, value), max(high, value))
