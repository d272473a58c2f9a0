"""Recordings under conditions: noise at several levels, quiet, telephone, cut, with gaps; what is said stays known.

Knows audio and manifests (as in `accuracy.py`: uri, text, language); no engine and no scores. The same folder gives the
same cases: a clip draws its noise and its conditions from a seed made of its name. Noise is what the folders
have of it: clips with the text "".
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # before this folder, whose pipeline.py is not the library
from pipeline.decode import Decoder
from pipeline.types import SAMPLE_RATE, Pcm

WINDOW_S, PAUSE_S = 28.0, 0.6  # of clips one after the other
LONGEST_S = 40  # of a clip; longer recordings are no clips
NOISES_DB = (20, 10, 5, 0, -5, -10, -14)  # speech above noise
QUIET_DB = -45  # level of quiet speech
OTHERS = ("en", "de", "fr", "es", "ja", "zh", "ru", "pt", "ko", "it")  # languages that are forced wrongly
SPEECH = ("clean", "noisy", "quiet", "telephone", "cut", "gap", "forced")
NOTHING = ("nothing", "nothing forced")


@dataclass(frozen=True, eq=False)
class Clip:
    """A short recording of a folder."""

    path: Path
    text: str  # "": nothing is said
    language: str | None
    group: str  # whom or where it is from: what shall not be on both sides of a cross-validation

    @property
    def name(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def pcm(self) -> Pcm:
        return _decoded(self.path)


@dataclass(frozen=True, eq=False)
class Case:
    """A clip under a condition."""

    name: str
    group: str
    condition: str  # of SPEECH or NOTHING
    pcm: Pcm
    text: str
    language: str | None  # what is spoken
    forced: str | None = None  # what the engine is told
    noise_db: float | None = None  # speech above noise
    gaps: tuple[tuple[float, float], ...] = ()  # where nothing is said, in seconds


def clips_of(folder: Path) -> list[Clip]:
    """Return the short recordings of a folder whose text is known."""
    lines = (folder / "manifest.jsonl").open(encoding="utf-8")
    entries = [entry for entry in map(json.loads, lines) if entry["text"] is not None]
    return [
        Clip(folder / entry["uri"], entry["text"], entry["language"], _group(folder, entry))
        for entry in entries
        if entry["duration_s"] <= LONGEST_S
    ]


def cases(clips: Sequence[Clip], share: float = 1.0) -> list[Case]:
    """Return the clips under their conditions, in an order of chance: each alone, and many of them in windows.

    `share` of them all: the first of that order.
    """
    noises = [clip for clip in clips if not clip.text and np.abs(clip.pcm).max() > 0]
    spoken = [clip for clip in clips if clip.text]
    made = [case for clip in clips if not clip.text for case in _nothing(clip)]
    made += [_alone(clip, spoken, noises, random.Random(clip.name)) for clip in spoken]
    for condition in ("clean", "noisy", "noisy", "telephone", "quiet"):
        made += _windows(condition, spoken, noises, random.Random(f"{condition} {len(made)}"))
    random.Random(0).shuffle(made)
    return made[: round(share * len(made))]


def _nothing(clip: Clip) -> Iterator[Case]:
    rng = random.Random(clip.name)
    yield Case(clip.name, clip.group, "nothing", clip.pcm, "", None)
    yield Case(clip.name, clip.group, "nothing forced", clip.pcm, "", None, forced=rng.choice(OTHERS))


def _alone(clip: Clip, spoken: Sequence[Clip], noises: Sequence[Clip], rng: random.Random) -> Case:
    possible = [one for one in SPEECH if noises or one not in ("noisy", "gap")]
    return _case(clip, rng.choice(possible), spoken, noises, rng)


def _windows(condition: str, spoken: Sequence[Clip], noises: Sequence[Clip], rng: random.Random) -> Iterator[Case]:
    """Yield the clips of a source one after the other, with short pauses, as many as fit a window."""
    if condition == "noisy" and not noises:
        return
    clips = sorted(spoken, key=lambda clip: (clip.group, rng.random()))
    for group, mine in groupby(clips, key=lambda clip: clip.group):
        full: list[Clip] = []
        for clip in [*mine, None]:
            seconds = sum(len(one.pcm) / SAMPLE_RATE + PAUSE_S for one in full)
            if full and (clip is None or seconds + len(clip.pcm) / SAMPLE_RATE > WINDOW_S):
                pause = np.zeros(int(PAUSE_S * SAMPLE_RATE), np.int16)
                pcm = np.concatenate([part for one in full for part in (one.pcm, pause)])
                texts, name = " ".join(one.text for one in full), "+".join(one.name for one in full)
                case = Case(name, group, condition, pcm, texts, full[0].language, forced=full[0].language)
                yield _altered(case, condition, noises, rng)
                full = []
            full += [clip] if clip else []


def _case(clip: Clip, condition: str, spoken: Sequence[Clip], noises: Sequence[Clip], rng: random.Random) -> Case:
    case = Case(clip.name, clip.group, condition, clip.pcm, clip.text, clip.language, forced=clip.language)
    if condition == "cut":
        length = len(clip.pcm)
        return replace(case, pcm=clip.pcm[int(rng.uniform(0.1, 0.3) * length) : int(rng.uniform(0.7, 0.9) * length)])
    if condition == "forced":
        return replace(case, forced=rng.choice([code for code in OTHERS if code != clip.language]))
    if condition == "gap":
        kin = [other for other in spoken if other.language == clip.language and other is not clip]
        return _gap(case, rng.choice(kin or [clip]), rng.choice(noises), rng)
    return _altered(case, condition, noises, rng)


def _altered(case: Case, condition: str, noises: Sequence[Clip], rng: random.Random) -> Case:
    if condition == "noisy":
        noise_db = rng.choice(NOISES_DB)
        return replace(case, pcm=mixed(case.pcm, rng.choice(noises).pcm, noise_db), noise_db=noise_db)
    if condition == "quiet":
        return replace(case, pcm=levelled(case.pcm, QUIET_DB))
    if condition == "telephone":
        return replace(case, pcm=telephone(case.pcm))
    return replace(case, forced=None) if rng.random() < 0.5 else case


def _gap(case: Case, after: Clip, noise: Clip, rng: random.Random) -> Case:
    """Return the case with another clip after some seconds of music, noise or silence."""
    length = int(rng.uniform(5, 14) * SAMPLE_RATE)
    between = np.zeros(length, np.int16) if rng.random() < 0.25 else levelled(_looped(noise.pcm, length), -26)
    start, end = len(case.pcm) / SAMPLE_RATE, (len(case.pcm) + length) / SAMPLE_RATE
    pcm = np.concatenate([case.pcm, between, after.pcm])
    return replace(case, pcm=pcm, text=f"{case.text} {after.text}", gaps=((start, end),))


# --- audio ------------------------------------------------------------------------------------------------------------


def mixed(speech: Pcm, noise: Pcm, noise_db: float) -> Pcm:
    """Return speech that is `noise_db` above the noise, which is looped; the louder of both stays within int16."""
    clean, other = speech.astype(np.float64), _looped(noise, len(speech)).astype(np.float64)
    other *= _level(clean) / _level(other) / 10 ** (noise_db / 20)
    both = clean + other
    return _clipped(both * min(1.0, 32_000 / np.abs(both).max()))


def levelled(pcm: Pcm, level_db: float) -> Pcm:
    """Return the audio at a level below full scale."""
    samples = pcm.astype(np.float64)
    return _clipped(samples * 32_768 * 10 ** (level_db / 20) / _level(samples))


def telephone(pcm: Pcm) -> Pcm:
    """Return 300 to 3,400 Hz of the audio, in the 8 bits of mu-law."""
    spectrum = np.fft.rfft(pcm.astype(np.float64))
    frequencies = np.fft.rfftfreq(len(pcm), 1 / SAMPLE_RATE)
    spectrum[(frequencies < 300) | (frequencies > 3_400)] = 0
    x = np.clip(np.fft.irfft(spectrum, len(pcm)) / 32_768, -1, 1)
    code = np.round(np.sign(x) * np.log1p(255 * np.abs(x)) / np.log(256) * 127) / 127
    return _clipped(np.sign(code) * (256 ** np.abs(code) - 1) / 255 * 32_768)


def _level(samples: Any) -> float:
    return float(max(np.sqrt(np.mean(samples**2)), 1e-3))


def _looped(pcm: Pcm, length: int) -> Pcm:
    return np.resize(pcm, length)


def _clipped(samples: Any) -> Pcm:
    return np.clip(np.round(samples), -32_768, 32_767).astype(np.int16)


@cache
def _decoded(path: Path) -> Pcm:
    return np.concatenate(list(Decoder(lambda: path.open("rb"), str(path)).blocks()))


def _group(folder: Path, entry: dict[str, Any]) -> str:
    return str(entry.get("group") or entry.get("source") or folder.name) + f":{entry['language'] or ''}"
