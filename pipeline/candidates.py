"""All clips that a corpus of transcripts offers, with what their texts say: rows of the clips table without audio.

Duty: the first of two passes over the transcripts, which learns what only the whole corpus tells (the pace of each
language, texts that come again, which split keeps them), and then each recording's rows. About 30 bytes a clip stay in
memory, and 2 KB a distinct text. Knows no audio, and no files but the transcripts.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pipeline import clips, gates
from pipeline.clips import Clip, ClipOptions
from pipeline.dedup import TextGroups
from pipeline.gates import GateOptions, Paces
from pipeline.transcripts import Transcribed, corpus_speaker, recordings, reviews, transcripts
from pipeline.types import SHARE, setting

Row = dict[str, Any]  # of schemas.clips

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class SplitOptions:
    """How a corpus is divided."""

    validation: float = setting(0.02, "Share of the recordings whose clips are for validation.", within=SHARE)
    test: float = setting(0.02, "Share of the recordings whose clips are for testing.", within=SHARE)
    split_by: str | None = setting(
        None, "Column of the manifest (speaker, show, ...) whose recordings stay in one split together."
    )
    similarity: float = setting(
        0.8, "Share of common 5-letter pieces from which texts count as nearly the same.", within=SHARE
    )


@dataclass(frozen=True)
class Plan:
    """What clips are and which are kept."""

    clips: ClipOptions = field(default_factory=ClipOptions)
    gates: GateOptions = gates.ASR
    splits: SplitOptions = field(default_factory=SplitOptions)


PRESETS: dict[str, Plan] = {
    "asr": Plan(),
    "tts": Plan(ClipOptions(2.0, 15.0, 6.0, max_pause_s=1.0, by_speaker=True), gates.TTS),
    "lid": Plan(ClipOptions(3.0, 30.0, 10.0, max_pause_s=5.0), gates.LID),
}


def fingerprint(out: str) -> str:
    """Return a hash of which transcripts and opinions are in an output: a data set is made of one state of it."""
    seen = []
    for table in reviews(out, ["recording_id", "run_id", "asked"]):
        seen += [json.dumps(list(row.values())) for row in table.to_pylist() if row["asked"]]
    for table in recordings(out, ["recording_id", "version", "run_id", "segments"]):
        seen += [json.dumps(list(row.values())) for row in table.to_pylist()]
    return hashlib.sha256("\n".join(sorted(seen)).encode()).hexdigest()[:16]


class Corpus:
    """What is known of all clips once `survey` has seen them."""

    def __init__(self, out: str, plan: Plan) -> None:
        """Know nothing yet."""
        self._out, self._plan = out, plan
        self._first: dict[str, int] = {}  # by recording: the place of its first clip in what follows
        self._texts, self._splits = array("l"), array("b")
        self._late = np.empty(0, np.int8)  # 1: leak, 2: copies
        self._paces = Paces()
        self._groups = np.empty(0, np.int64)

    def survey(self, tick: Callable[[int], None] = lambda clips: None) -> None:
        """Look at all transcripts; `tick` is told how many clips were seen."""
        texts = TextGroups(self._plan.splits.similarity)
        fine, said = array("b"), []
        for one in transcripts(self._out, words=True, opinions=True):
            self._first[one.recording["recording_id"]] = len(fine)
            split = SPLITS.index(self.split(one.recording))
            for row in self._plain(one):
                self._paces.note(row["language"], row["seconds_per_letter"])
                self._texts.append(texts.add(row["text"]))
                self._splits.append(split)
                fine.append(not self._reasons(row))
                said.append((row["language"], row["seconds_per_letter"]))
            tick(len(fine))
        self._paces.settle()
        self._groups = texts.groups()
        most = self._plan.gates.max_pace_deviation
        for place, (language, pace) in enumerate(said):
            far = self._paces.deviation(language, pace)
            if far is not None and most is not None and abs(far) > most:
                fine[place] = 0
        self._late = self._come_again(fine)

    def rows(self, one: Transcribed) -> list[Row]:
        """Return a recording's clips, with all reasons against them that need no audio."""
        place = self._first[one.recording["recording_id"]]
        found = []
        for row in self._plain(one):
            row["pace_deviation"] = self._paces.deviation(row["language"], row["seconds_per_letter"])
            late = {1: ["leak"], 2: ["copies"]}.get(int(self._late[place]), [])
            group = int(self._groups[self._texts[place]])
            found.append(row | {"text_group": group, "reasons": self._reasons(row) + late})
            place += 1
        return found

    def split(self, recording: Row) -> str:
        """Return the split of a recording: by a hash, so that it never depends on which others are there."""
        options = self._plan.splits
        key = json.loads(recording["metadata"]).get(options.split_by) if options.split_by else None
        key = str(key) if key is not None else recording["recording_id"]
        share = int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48
        return (
            "test" if share < options.test else "validation" if share < options.test + options.validation else "train"
        )

    def _plain(self, one: Transcribed) -> Iterator[Row]:
        """Yield the rows of a recording's clips as far as it tells them alone."""
        begin = one.recording.get("start_s") or 0.0
        end = begin + (one.recording["duration_s"] or 0.0)
        for index, clip in enumerate(clips.cut(one.segments, one.words, end, self._plan.clips, begin=begin)):
            yield _row(one.recording["recording_id"], index, clip) | {"split": self.split(one.recording)}

    def _reasons(self, row: Row) -> list[str]:
        return gates.by_text(row, self._plan.gates, self._plan.clips.min_s, self._plan.clips.max_s)

    def _come_again(self, fine: array[int]) -> np.ndarray[Any, np.dtype[np.int8]]:
        """Say of each clip whether its text is another split's (1), or was there often enough before it (2)."""
        group_of = self._groups[np.array(self._texts, np.int64)] if len(self._texts) else self._texts
        owner: dict[int, int] = {}
        for group, split, good in zip(group_of, self._splits, fine, strict=True):
            if good:
                owner[group] = min(owner.get(group, split), split)
        copies: Counter[int] = Counter()
        late = np.zeros(len(fine), np.int8)
        most = self._plan.gates.max_copies
        for place, (group, split, good) in enumerate(zip(group_of, self._splits, fine, strict=True)):
            if owner.get(group, split) < split:
                late[place] = 1
            elif good:
                copies[group] += 1
                late[place] = 2 if most is not None and copies[group] > most else 0
        return late


def with_lengths(plan: Plan, min_s: float | None, max_s: float | None) -> Plan:
    """Return the plan with other lengths of clips."""
    lengths = plan.clips
    lengths = replace(lengths, min_s=min_s if min_s is not None else lengths.min_s)
    lengths = replace(lengths, max_s=max_s if max_s is not None else lengths.max_s)
    return replace(plan, clips=replace(lengths, target_s=min(max(lengths.target_s, lengths.min_s), lengths.max_s)))


def _row(recording_id: str, index: int, clip: Clip) -> Row:
    segments, words = clip.segments, clip.words
    letters = clips.letters(clip.text)
    speakers = {segment["speaker"] for segment in segments}
    return {
        "clip_id": f"{recording_id}-{index:05d}",
        "recording_id": recording_id,
        "index": index,
        "start": clip.start,
        "end": clip.end,
        "room": (clip.before, clip.after),
        "text": clip.text,
        "language": segments[0]["language"],
        "speaker": corpus_speaker(recording_id, speakers.pop()) if len(speakers) == 1 else None,
        "task": segments[0]["task"],
        "segments": [segment["index"] for segment in segments],
        "words": len(words),
        "flags": sorted({flag for segment in segments for flag in segment["flags"]}),
        "hallucination_probability": _worst(max, segments, "hallucination_probability"),
        "avg_logprob": _worst(min, segments, "avg_logprob"),
        "language_probability": _worst(min, segments, "language_probability"),
        "no_speech_prob": _worst(max, segments, "no_speech_prob"),
        "compression_ratio": _worst(max, segments, "compression_ratio"),
        "evidence_per_token": _worst(min, segments, "evidence_per_token"),
        "second_wer": _worst(max, segments, "second_wer"),
        "second_edge_cer": _worst(max, (segments[0], segments[-1]), "second_edge_cer"),
        "word_probability": sum(word["probability"] for word in words) / len(words) if words else None,
        "letters": letters,
        "seconds_per_letter": (clip.end - clip.start) / letters if letters else None,
        "pace_deviation": None,
    }


def _worst(choose: Callable[..., float], segments: tuple[clips.Row, ...], name: str) -> float | None:
    known = [value for segment in segments if (value := segment.get(name)) is not None]
    return choose(known) if known else None
