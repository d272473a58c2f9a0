"""Which recordings are measured, and which stretch of each: by chance, in proportion to their lengths.

Duty: what is drawn stands for all that was looked at, each for so many seconds. Reads nothing and measures nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import numpy as np

from pipeline.decode import EXACT_ENDINGS
from pipeline.probes import Probe, ending
from pipeline.types import SAMPLE_RATE, Recording
from pipeline.uris import WEB_SCHEMES, scheme


def draw_enough(probes: Sequence[Probe], least: int, least_s: float, most_s: float, chance: Random) -> dict[str, float]:
    """Draw, as `draw` does, `least` recordings and more until `least_s` (at most `most_s` of each) are measured.

    Chance falls as if the number that turns out to be enough had been drawn at once.
    """
    lengths = {one.recording.id: min(most_s if one.seconds is None else one.seconds, most_s) for one in probes}
    state = chance.getstate()
    for count in range(min(least, len(probes)), len(probes) + 1):
        chance.setstate(state)
        drawn = draw(probes, count, chance)
        if sum(lengths[id_] for id_ in drawn) >= least_s:
            break
    return drawn


def draw(probes: Sequence[Probe], count: int, chance: Random) -> dict[str, float]:
    """Draw recordings to measure: by id, the seconds of all `probes` that each stands for; none comes twice.

    Systematic sampling in proportion to length (Madow 1949). What is longer than a draw's share is taken for itself.
    """
    known = [one.seconds for one in probes if one.seconds is not None]
    mean = sum(known) / len(known) if any(known) else 1.0
    lengths = {one.recording.id: mean if one.seconds is None else one.seconds for one in probes}
    drawn: dict[str, float] = {}
    for id_ in sorted(lengths, key=lambda id_: -lengths[id_]):
        left = sum(lengths.values())
        if len(drawn) == count or lengths[id_] * (count - len(drawn)) < left:
            break
        drawn[id_] = lengths.pop(id_)
    if not lengths or len(drawn) == count:
        return drawn
    ids = sorted(lengths)
    chance.shuffle(ids)
    ends = np.cumsum([lengths[id_] for id_ in ids])
    step = ends[-1] / (count - len(drawn))
    hits = np.searchsorted(ends, (chance.random() + np.arange(count - len(drawn))) * step, side="right")
    return drawn | {ids[at]: float(step) for at in hits}


def stretch_of(one: Probe, most_s: float, chance: Random) -> Recording:
    """Return so much of a recording at most: anywhere in it, since beginnings are unlike the rest, or of its start.

    A place is drawn only where what lies before it need not be read and decoded, which would be measured, too; the web
    may give no ranges.
    """
    recording, place = one.recording, max(0.0, (one.seconds or 0.0) - most_s) * chance.random()
    exact = ending(recording.uri) in EXACT_ENDINGS and scheme(recording.uri) not in WEB_SCHEMES
    start = recording.start + (round(place * SAMPLE_RATE) if exact else 0)
    end = start + round(most_s * SAMPLE_RATE)
    return replace(recording, start=start, end=end if recording.end is None else min(end, recording.end))
