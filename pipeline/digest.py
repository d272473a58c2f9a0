"""An output -> what there is to tell of it: hours by reason and language, distributions of scores, failures, examples.

Duty: count, part by part, in memory that goes with the number of languages, kinds of failure and examples, not with
that of recordings, but for 8 bytes each where there are second opinions. Knows no page and no charts.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import opinions, storage, transcripts
from pipeline.opinions import Opinions
from pipeline.picks import PickOptions, Picks
from pipeline.score import FLAGS

KEPT, SPEECHLESS, TEXTLESS, FAILED = "kept", "speechless", "no text", "failed"
REASONS = {
    FAILED: "Recordings, or ends of them, that could not be read.",
    SPEECHLESS: "No speech was detected there, so nothing was transcribed.",
    TEXTLESS: "Pauses around speech, and stretches in which the model wrote nothing.",
    **FLAGS,
    KEPT: "Text without any flag.",
}
RUNS = 20  # the latest ones

_RECORDING = [
    "recording_id", "uri", "version", "part", "size_bytes", "status", "error_stage", "error_kind", "error_message",
    "retryable", "duration_s", "speech_s", "speechless", "language", "segments", "model", "run_id", "codec",
    "sample_rate", "selection",
]  # fmt: skip
_SEGMENT = [
    "recording_id", "index", "passage", "start", "end", "text", "language", "avg_logprob",
    "compression_ratio", "no_speech_prob", "attempts", "evidence_per_token", "speech_ratio",
    "language_probability", "hallucination_probability", "flags",
]  # fmt: skip


@dataclass(frozen=True)
class Score:
    """A number of each segment whose distribution is told."""

    name: str
    doc: str
    low: float
    high: float  # what lies beyond either counts into the last bin
    bins: int = 40
    threshold: str | None = None  # the option that flags by it


SCORES = (
    Score("avg_logprob", "mean log-probability, nats", -2.0, 0.0, threshold="flag_logprob"),
    Score("compression_ratio", "compression ratio", 0.0, 4.0, threshold="flag_compression_ratio"),
    Score("no_speech_prob", "no-speech probability", 0.0, 1.0, threshold="flag_no_speech"),
    Score("evidence_per_token", "evidence a token, nats", -2.0, 8.0),
    Score("speech_ratio", "share under detected speech", 0.0, 1.0),
    Score("language_probability", "language probability", 0.0, 1.0),
    Score("hallucination_probability", "probability that it was invented", 0.0, 1.0),
    Score("characters_a_second", "characters a second", 0.0, 40.0),
    Score("seconds", "length of a segment, s", 0.0, 30.0, bins=30),
)


@dataclass
class Histogram:
    """Counts of segments by a score: `unflagged` and `flagged` ones."""

    score: Score
    unflagged: NDArray[np.int64]
    flagged: NDArray[np.int64]
    threshold: float | None = None

    @property
    def edges(self) -> NDArray[np.float64]:
        return np.linspace(self.score.low, self.score.high, self.score.bins + 1)

    def add(self, values: NDArray[np.float64], flagged: NDArray[np.bool_]) -> None:
        """Count values; those that are no number are left out."""
        known = np.isfinite(values)
        inside = np.clip(values[known], self.score.low, self.score.high)
        for counts, chosen in ((self.flagged, flagged[known]), (self.unflagged, ~flagged[known])):
            counts += np.histogram(inside[chosen], self.edges)[0]


@dataclass
class Failures:
    """Recordings that failed, wholly or from some place on, in one way."""

    stage: str
    kind: str
    count: int = 0
    bytes: int = 0
    retryable: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)  # uri, message


@dataclass
class Digest:
    """What is counted; hours are sums of seconds / 3600."""

    recordings: int = 0
    segments: int = 0
    flagged_segments: int = 0
    characters: int = 0
    size_bytes: int = 0
    duration_s: float = 0.0
    speech_s: float = 0.0
    failed_s: float = 0.0  # estimated by size from the recordings that could be read
    statuses: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)  # recordings, by codec and rate
    seconds: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))  # by language, reason
    flag_s: dict[str, float] = field(
        default_factory=lambda: defaultdict(float)
    )  # by flag; a segment counts for each of its own
    languages: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(float)))
    failures: dict[tuple[str, str], Failures] = field(default_factory=dict)
    histograms: list[Histogram] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    picks: Picks = field(default_factory=Picks)
    opinions: Opinions | None = None

    def by_reason(self) -> dict[str, float]:
        """Return seconds by reason, in the order in which they are lost; what is kept comes last."""
        found = {FAILED: self.failed_s}
        for (_, reason), seconds in self.seconds.items():
            found[reason] = found.get(reason, 0.0) + seconds
        order = [*REASONS, *sorted(found.keys() - REASONS.keys())]
        order.remove(KEPT)
        return {reason: found.get(reason, 0.0) for reason in [*order, KEPT] if found.get(reason) or reason == KEPT}

    @property
    def kept_s(self) -> float:
        return sum(seconds for (_, reason), seconds in self.seconds.items() if reason == KEPT)


def digest(out: str, options: PickOptions) -> Digest:
    """Read an output and count. Raises UserError where there is none."""
    found = Digest(picks=Picks(options))
    found.runs = _runs(out)
    config = found.runs[0].get("config", {}) if found.runs else {}
    for score in SCORES:
        none = np.zeros(score.bins, np.int64)
        found.histograms.append(Histogram(score, none, none.copy(), config.get(score.threshold)))
    sizes, judged, keys = _Sizes(), opinions.are_in(out), list[opinions.Keys]()
    for recordings, segments in transcripts.parts(out, _RECORDING, _SEGMENT):
        _count(found, sizes, recordings, segments)
        keys += [opinions.keys(recordings, "run_id")] if judged else []
    found.opinions = opinions.opinions(out, keys) if judged else None
    found.failed_s = sizes.failed_s()
    found.histograms = [one for one in found.histograms if one.flagged.any() or one.unflagged.any()]
    return found


def _count(found: Digest, sizes: _Sizes, recordings: pa.Table, segments: pa.Table) -> None:
    listed = recordings.drop_columns("speechless").to_pandas()
    listed["speechless_s"] = _speechless_s(recordings["speechless"])
    listed["language"] = listed["language"].fillna("")
    spoken = spoken_segments(segments)
    spoken = spoken.merge(listed[["recording_id", "language"]], on="recording_id", suffixes=("_own", ""))
    _count_recordings(found, listed)
    _count_failures(found, listed)
    sizes.add(listed)
    _count_hours(found, listed, spoken)
    for histogram in found.histograms:
        values = spoken[histogram.score.name].to_numpy(np.float64, na_value=np.nan)
        histogram.add(values, spoken["flagged"].to_numpy())
    found.picks.add(listed, spoken)


def spoken_segments(segments: pa.Table) -> pd.DataFrame:
    """Return the segments with seconds, reason (first flag, or kept), decodings of a window and more."""
    table: pd.DataFrame = segments.drop_columns(["attempts"]).to_pandas()
    table["flags"] = segments["flags"].to_pylist()
    table["seconds"] = (table["end"] - table["start"]).clip(lower=0)
    table["characters"] = pc.utf8_length(segments["text"]).to_numpy()
    table["characters_a_second"] = table["characters"] / table["seconds"].where(table["seconds"] > 0.2)
    table["flagged"] = pc.list_value_length(segments["flags"]).to_numpy() > 0
    table["reason"] = [_reason(flags) for flags in table["flags"]]
    attempts = pc.list_value_length(segments["attempts"]).to_numpy()
    # Segments of one window have its scores in common: the window's decodings count once.
    same = table[["recording_id", "passage", "avg_logprob", "compression_ratio", "no_speech_prob"]]
    table["decodings"] = np.where((same == same.shift()).all(axis=1), 0, attempts)
    return table


def _reason(flags: Sequence[str]) -> str:
    return next((flag for flag in FLAGS if flag in flags), flags[0] if flags else KEPT)


def _speechless_s(column: pa.ChunkedArray) -> NDArray[np.float64]:
    stretches = column.combine_chunks()
    total = np.zeros(len(stretches))
    inner = pc.list_flatten(stretches)
    lengths = pc.subtract(pc.struct_field(inner, "end"), pc.struct_field(inner, "start")).to_numpy(zero_copy_only=False)
    np.add.at(total, pc.list_parent_indices(stretches).to_numpy(), lengths)
    return total


def _count_recordings(found: Digest, listed: pd.DataFrame) -> None:
    found.recordings += len(listed)
    found.statuses.update(listed["status"])
    found.models.update(listed["model"])
    found.size_bytes += int(listed["size_bytes"].fillna(0).sum())
    found.duration_s += float(listed["duration_s"].fillna(0).sum())
    found.speech_s += float(listed["speech_s"].fillna(0).sum())
    read = listed[listed["codec"].notna()]
    rates = read["sample_rate"].fillna(0).astype(int)
    found.formats.update(f"{codec}, {rate / 1000:g} kHz" for codec, rate in zip(read["codec"], rates, strict=True))
    for language, count in listed["language"].value_counts().items():
        found.languages[str(language)]["recordings"] += int(count)
    for language, speech in listed.groupby("language")["speech_s"].sum().items():
        found.languages[str(language)]["speech_s"] += float(speech)


def _count_failures(found: Digest, listed: pd.DataFrame) -> None:
    for row in listed[listed["error_kind"].notna()].fillna({"size_bytes": 0}).to_dict("records"):
        key = str(row["error_stage"]), str(row["error_kind"])
        one = found.failures.setdefault(key, Failures(*key))
        one.count += 1
        one.bytes += int(row["size_bytes"])
        one.retryable += bool(row["retryable"])
        if len(one.examples) < found.picks.options.examples:
            one.examples.append((str(row["uri"]), str(row["error_message"])))


def _count_hours(found: Digest, listed: pd.DataFrame, spoken: pd.DataFrame) -> None:
    found.segments += len(spoken)
    found.flagged_segments += int(spoken["flagged"].sum())
    found.characters += int(spoken["characters"].sum())
    for row in spoken.groupby(["language", "reason"])["seconds"].sum().reset_index().to_dict("records"):
        found.seconds[row["language"], row["reason"]] += row["seconds"]
    for language, characters in spoken.groupby("language")["characters"].sum().items():
        found.languages[str(language)]["characters"] += int(characters)
    for flag, seconds in spoken[["flags", "seconds"]].explode("flags").groupby("flags")["seconds"].sum().items():
        found.flag_s[str(flag)] += float(seconds)
    told = spoken.groupby("recording_id")["seconds"].sum()
    decoded = listed["duration_s"].fillna(0)
    texted = listed["recording_id"].map(told).fillna(0)
    textless = (decoded - listed["speechless_s"] - texted).clip(lower=0)
    for reason, column in ((SPEECHLESS, listed["speechless_s"]), (TEXTLESS, textless)):
        for language, seconds in column.groupby(listed["language"]).sum().items():
            found.seconds[str(language), reason] += float(seconds)


class _Sizes:
    """How many seconds a byte is, by the ending of the name: what has failed has no length."""

    def __init__(self) -> None:
        self._read: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])  # bytes, seconds
        self._failed: Counter[str] = Counter()  # bytes

    def add(self, listed: pd.DataFrame) -> None:
        endings = [storage.suffix(uri).lower() for uri in listed["uri"]]
        sizes = listed["size_bytes"].fillna(0)
        for ending, size, seconds, status in zip(endings, sizes, listed["duration_s"], listed["status"], strict=True):
            if status == "ok" and size and seconds:
                self._read[ending][0] += size
                self._read[ending][1] += seconds
            elif status == "failed":
                self._failed[ending] += int(size)

    def failed_s(self) -> float:
        """Estimate the seconds of what failed; by all files where none with that ending could be read."""
        everything = [sum(column) for column in zip(*self._read.values(), strict=True)] or [0.0, 0.0]
        pace = {ending: seconds / size for ending, (size, seconds) in self._read.items()}
        overall = everything[1] / everything[0] if everything[0] else 0.0
        return sum(size * pace.get(ending, overall) for ending, size in self._failed.items())


def _runs(out: str) -> list[dict[str, Any]]:
    """Return what the latest runs have left, the latest first."""
    folder = storage.join(out, "runs")
    names: Iterable[str] = [name for name in storage.names(folder) if name.endswith(".json")][-RUNS:]
    return [json.loads(storage.read_bytes(storage.join(folder, name))) for name in reversed(list(names))]
