"""Which clips are good enough, and why not: each gate has a number, a threshold and a reason.

Duty: thresholds and what they say of a clip's numbers; the pace of speech against its language's, over a corpus. A
number that is unknown fails no gate. Pure functions on a row of the clips table. Knows no audio and no files.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.types import AT_LEAST_ONE, NOT_NEGATIVE, SHARE, setting

Row = Mapping[str, Any]  # of schemas.clips

FEWEST = 20  # clips of a language from which its pace is known
_MAD = 1.4826  # times the median absolute deviation is a standard deviation, where there are no outliers


@dataclass(frozen=True)
class GateOptions:
    """What a clip must be like to be kept. None: the preset's."""

    drop_flags: tuple[str, ...] | None = setting(
        None, "Drop clips of segments with one of these flags; `any` for all flags, `none` for none."
    )
    max_hallucination: float | None = setting(None, "Largest probability that the text was invented.", within=SHARE)
    min_logprob: float | None = setting(None, "Least mean log-probability of a clip's segments.", "nats")
    max_second_wer: float | None = setting(
        None, "Largest word error rate of a second opinion on a segment of the clip.", within=NOT_NEGATIVE
    )
    max_second_edge_cer: float | None = setting(
        None,
        "Largest character error rate of a second opinion at the edges of its first and last segment.",
        within=NOT_NEGATIVE,
    )
    languages: tuple[str, ...] | None = setting(None, "Only clips in these languages.")
    min_language_probability: float | None = setting(None, "Least probability of the language.", within=SHARE)
    max_pace_deviation: float | None = setting(
        None,
        "How far the seconds a letter may be from their language's median over the corpus, in robust standard"
        " deviations of their logarithm.",
        within=NOT_NEGATIVE,
    )
    max_copies: int | None = setting(
        None, "Keep no more clips than this whose texts are nearly the same.", within=AT_LEAST_ONE
    )
    min_snr_db: float | None = setting(None, "Least estimated signal-to-noise ratio.", "dB")
    max_clipped: float | None = setting(None, "Largest share of clipped samples.", within=SHARE)
    min_bandwidth_hz: float | None = setting(
        None, "Least frequency up to which speech is heard, whatever the file's rate.", "Hz", within=NOT_NEGATIVE
    )
    min_loudness_lufs: float | None = setting(None, "Least loudness (ITU-R BS.1770).", "LUFS")
    max_loudness_lufs: float | None = setting(None, "Greatest loudness.", "LUFS")
    min_speech: float | None = setting(None, "Least share of detected speech.", within=SHARE)
    max_edge_db: float | None = setting(None, "Loudest that the first and last 30 ms may be, under the speech.", "dB")
    min_quality: float | None = setting(None, "Least estimated mean opinion score, 1 to 5 (DNSMOS).", within=(1.0, 5.0))


ASR = GateOptions(
    drop_flags=("any",),
    max_hallucination=0.5,
    min_logprob=-0.8,
    max_second_wer=0.5,
    max_second_edge_cer=math.inf,
    languages=(),
    min_language_probability=0.5,
    max_pace_deviation=4.0,
    max_copies=10,
    min_snr_db=0.0,
    max_clipped=0.05,
    min_bandwidth_hz=0.0,
    min_loudness_lufs=-50.0,
    max_loudness_lufs=0.0,
    min_speech=0.3,
    max_edge_db=-6.0,
    min_quality=0.0,
)
TTS = GateOptions(
    drop_flags=("any",),
    max_hallucination=0.2,
    min_logprob=-0.5,
    max_second_wer=0.2,
    max_second_edge_cer=0.3,
    languages=(),
    min_language_probability=0.8,
    max_pace_deviation=3.0,
    max_copies=2,
    min_snr_db=20.0,
    max_clipped=0.001,
    min_bandwidth_hz=5500.0,
    min_loudness_lufs=-35.0,
    max_loudness_lufs=-10.0,
    min_speech=0.5,
    max_edge_db=-15.0,
    min_quality=2.5,
)
LID = GateOptions(
    drop_flags=("any",),
    max_hallucination=0.5,
    min_logprob=-1.0,
    max_second_wer=math.inf,
    max_second_edge_cer=math.inf,
    languages=(),
    min_language_probability=0.8,
    max_pace_deviation=math.inf,
    max_copies=10,
    min_snr_db=0.0,
    max_clipped=0.05,
    min_bandwidth_hz=0.0,
    min_loudness_lufs=-50.0,
    max_loudness_lufs=0.0,
    min_speech=0.5,
    max_edge_db=math.inf,
    min_quality=0.0,
)

# Each reason with what it says of a clip.
REASONS: dict[str, str] = {
    "empty": "The text has no letters.",
    "translated": "The text is a translation, not what is said.",
    "short": "Its words take less than the shortest clip's time, silence around them not counted.",
    "long": "It is longer than the preset's clips: no place to cut it was found.",
    "flagged": "A segment that it has words of carries a flag.",
    "hallucination": "The text was probably invented.",
    "logprob": "The model found the text unlikely.",
    "second": "A second opinion has other words, in all or at the edges.",
    "language": "Its language was not asked for, or is not sure.",
    "pace": "It is spoken much faster or slower than its language in this corpus: text is missing, or too much.",
    "copies": "Enough clips with nearly this text are there.",
    "leak": "A clip with nearly this text is in another split, which keeps it.",
    "audio": "Its audio could not be read again: `audio_error` says why.",
    "noise": "The signal-to-noise ratio is low.",
    "clipped": "Samples are cut off at full scale.",
    "bandwidth": "The speech has no high frequencies: telephone audio, whatever the rate of the file.",
    "loudness": "It is too quiet or too loud.",
    "silence": "Little of it is detected speech.",
    "edge": "It begins or ends in sound: a word may be cut.",
    "quality": "Its estimated mean opinion score is low.",
}


def by_text(row: Row, gates: GateOptions, min_s: float, max_s: float) -> list[str]:
    """Return the reasons against a clip that its text and scores give, before its audio is read."""
    flags = set(row["flags"])
    wanted = set(gates.drop_flags or ())
    unsure = _below(row["language_probability"], gates.min_language_probability)
    found = {
        "empty": not row["letters"],
        "translated": row["task"] == "translate",
        "short": row["end"] - row["start"] < min_s,
        "long": row["end"] - row["start"] > max_s,
        "flagged": bool(flags) if "any" in wanted else bool(flags & wanted),
        "hallucination": _above(row["hallucination_probability"], gates.max_hallucination),
        "logprob": _below(row["avg_logprob"], gates.min_logprob),
        "second": _above(row["second_wer"], gates.max_second_wer)
        or _above(row["second_edge_cer"], gates.max_second_edge_cer),
        "language": unsure or bool(gates.languages and row["language"] not in gates.languages),
        "pace": _above(row["pace_deviation"] and abs(row["pace_deviation"]), gates.max_pace_deviation),
    }
    return [reason for reason, is_so in found.items() if is_so]


def by_sound(row: Row, gates: GateOptions) -> list[str]:
    """Return the reasons against a clip that its audio gives."""
    loudness = row["loudness_lufs"]
    found = {
        "audio": row["audio_error"] is not None,
        "noise": _below(row["snr_db"], gates.min_snr_db),
        "clipped": _above(row["clipped"], gates.max_clipped),
        "bandwidth": _below(row["bandwidth_hz"], gates.min_bandwidth_hz),
        "loudness": _below(loudness, gates.min_loudness_lufs) or _above(loudness, gates.max_loudness_lufs),
        "silence": _below(row["speech_share"], gates.min_speech),
        "edge": _above(row["edge_db"], gates.max_edge_db),
        "quality": _below(row["quality_mos"], gates.min_quality),
    }
    return [reason for reason, is_so in found.items() if is_so]


class Paces:
    """Takes seconds a letter, clip by clip; knows then how far one is from what its language's are."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._seen: defaultdict[str, list[float]] = defaultdict(list)
        self._of: dict[str, tuple[float, float]] = {}

    def note(self, language: str, seconds_per_letter: float | None) -> None:
        """Take a clip."""
        if seconds_per_letter:
            self._seen[language].append(math.log(seconds_per_letter))

    def settle(self) -> None:
        """Take no more: find the median of each language with enough clips, and how far they are from it."""
        for language, seen in self._seen.items():
            if len(seen) >= FEWEST:
                values = np.array(seen)
                median = float(np.median(values))
                self._of[language] = median, max(_MAD * float(np.median(np.abs(values - median))), 0.05)
        self._seen.clear()

    def deviation(self, language: str, seconds_per_letter: float | None) -> float | None:
        """Return how many robust standard deviations slower than usual it is; None where the usual is not known."""
        if not seconds_per_letter or language not in self._of:
            return None
        median, spread = self._of[language]
        return (math.log(seconds_per_letter) - median) / spread


def filled(options: GateOptions, preset: GateOptions) -> GateOptions:
    """Return the options with what they leave open as the preset has it."""
    return GateOptions(
        **{
            name: chosen if (chosen := getattr(options, name)) is not None else getattr(preset, name)
            for name in GateOptions.__dataclass_fields__
        }
    )


def _below(value: float | None, least: float | None) -> bool:
    return value is not None and least is not None and value < least


def _above(value: float | None, most: float | None) -> bool:
    return value is not None and most is not None and value > most
