"""What the flags and the probability of inventions are worth, on any folders of recordings with references.

    python bench/quality.py [FOLDER...] --rows rows.jsonl [--share 0.5] [--peers --peer-python .peers/bin/python]

Folders are as in `accuracy.py`; without any, --rows is taken as it is. Clips with the text "" are what is taken for
noise, too. The cases are those of `conditions.py`: clean, noisy, quiet, telephone, cut, with gaps, in a wrongly forced
language, and nothing said. Each segment is held against what is said there (`judged.py`); segments in doubt count
nowhere. --rows keeps what was heard, so that looking again takes seconds. Rules of others are written down here from
their descriptions, and judge the same segments; --peers lets faster-whisper hear the clips in which nothing is said,
with its speech filter and without.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from judged import Answer, answers, segment_of
from logistic import auroc

sys.path.insert(0, str(Path(__file__).parents[1]))  # before this folder, whose pipeline.py is not the library
from pipeline import phrases
from pipeline.hallucination import probability
from pipeline.score import ScoreOptions, mark
from pipeline.types import Segment, Span, Transcript

DEFAULTS = ScoreOptions()
BINS = (0.0, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 1.0)  # of the reliability table
# A short list of the kind that public pipelines ship: well-known lines, compared without case and punctuation.
PHRASES = {
    "thank you", "thanks for watching", "thank you for watching", "thank you very much", "please subscribe", "you",
    "bye", "the end", "subtitles by the amara org community", "sous titres realises par la communaute damara org",
    "ご視聴ありがとうございました", "字幕by索兰娅", "продолжение следует", "untertitel der amara org community",
}  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """A segment, and what is true of it."""

    segment: Segment
    answer: Answer
    invented: bool
    nothing: bool  # nothing is said there


SCORES: dict[str, Callable[[Segment], float]] = {
    "hallucination_probability": lambda s: s.hallucination_probability or 0.0,
    "  the same without evidence": lambda s: probability(_without_evidence(s)),
    "evidence": lambda s: -(s.evidence or 0.0),
    "evidence_per_token": lambda s: -(s.evidence_per_token or 0.0),
    "avg_logprob": lambda s: -s.avg_logprob,
    "no_speech_prob": lambda s: s.no_speech_prob,
    "compression_ratio": lambda s: s.compression_ratio,
    "variety": lambda s: -(s.variety or 0.0),
    "speech_ratio": lambda s: -(1.0 if s.speech_ratio is None else s.speech_ratio),
}
RULES: dict[str, Callable[[Segment], bool]] = {
    "flag hallucination": lambda s: "hallucination" in s.flags,
    "flag low_logprob": lambda s: "low_logprob" in s.flags,
    "flag repetitive": lambda s: "repetitive" in s.flags,
    "flag no_speech": lambda s: "no_speech" in s.flags,
    "flag phrase": lambda s: "phrase" in s.flags,
    "flag hallucination or phrase": lambda s: bool({"hallucination", "phrase"} & set(s.flags)),
    "any flag": lambda s: bool(s.flags),
    "reference: no speech and unlikely": lambda s: s.no_speech_prob > 0.6 and s.avg_logprob < -1,
    "packs above 2.4 or unlikely": lambda s: s.compression_ratio > 2.4 or s.avg_logprob < -1,
    "below 2 or above 25 characters/s": lambda s: not 2 <= (s.characters_per_second or 0.0) <= 25,
    "a list of phrases": lambda s: _folded(s.text) in PHRASES,
    "a word of over 25 letters": lambda s: any(len(word) > 25 for word in s.text.split()),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="*", type=Path)
    parser.add_argument("--rows", type=Path, help="what was heard, made or gone on with")
    parser.add_argument(
        "--without", nargs="*", default=[], metavar="SOURCE", help="packages whose recordings count nowhere"
    )
    parser.add_argument("--share", type=float, default=1.0, help="of the cases that are made of the folders")
    parser.add_argument("--model", default="base")
    parser.add_argument("--peers", action="store_true", help="let faster-whisper hear where nothing is said, too")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that has faster-whisper")
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = arguments.rows or Path(scratch) / "rows.jsonl"
        found = answers(arguments.folder, rows, arguments.model, arguments.share)
        heard = [marked(one) for one in found if not any(source in one.group for source in arguments.without)]
    figures = {
        "scores": scores(list(judged(heard))),
        "rules": rules(heard),
        "reliability": reliability(list(judged(heard))),
        "languages": languages(list(judged(heard))),
    }
    if arguments.peers:
        figures["peers"] = peers(arguments)
    for name, table in figures.items():
        print(f"{name}\n{lines(table)}\n", flush=True)  # noqa: T201
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


Heard = tuple[Answer, list[Segment]]
Table = list[dict[str, Any]]


def marked(answer: Answer) -> Heard:
    """Return the answer with its segments, marked by the library as it is now; where speech was found, as it was."""
    found = []
    for row in answer.rows:
        segment = segment_of(row)
        # The row knows the share of it that lay under speech, not where.
        speech = Span(
            segment.start, segment.start + round((row["speech_ratio"] or 0.0) * (segment.end - segment.start))
        )
        spans = (speech,) if len(speech) else ()
        whole = Transcript(answer.id, 0, Span(0, segment.end), spans, (segment,), segment.language, None)
        found += mark(whole, DEFAULTS).segments
    return answer, [_with_phrase(segment, last=segment is found[-1]) for segment in found]


def _with_phrase(segment: Segment, *, last: bool) -> Segment:
    """Return the segment with the flag `phrase`, which asks whether anything follows in the recording."""
    known = phrases.invented(segment, last=last)
    return replace(segment, flags=(*segment.flags, "phrase")) if known else segment


def judged(heard: Sequence[Heard]) -> Iterator[Judged]:
    """Yield the segments that are surely right or surely invented."""
    for answer, segments in heard:
        for segment, row in zip(segments, answer.rows, strict=True):
            if row["invented"] is not None:
                yield Judged(segment, answer, row["invented"], not answer.text or row["in_gap"])


def scores(segments: Sequence[Judged]) -> Table:
    """Return how well each number ranks inventions above what is right."""
    table = []
    for name, score in SCORES.items():
        values = np.array([score(one.segment) for one in segments])
        invented = np.array([one.invented for one in segments])
        nothing = np.array([one.nothing for one in segments])
        of_nothing, of_words = ~invented | nothing, ~invented | ~nothing
        table.append(
            {
                "score": name,
                "AUROC": auroc(values, invented),
                "nothing said": auroc(values[of_nothing], invented[of_nothing]),
                "wrong words": auroc(values[of_words], invented[of_words]),
            }
        )
    return table


def rules(heard: Sequence[Heard]) -> Table:
    """Return for each rule what it finds and what it flags in vain, all in percent."""
    segments = list(judged(heard))
    silent = [one for one in heard if not one[0].text]
    detected = [one for one in silent if one[0].way == "detected"]
    table = []
    for name, rule in {"none": lambda _: False, **RULES}.items():
        flagged = [one for one in segments if rule(one.segment)]
        right = [one for one in segments if not one.invented]
        row = {
            "rule": name,
            "precision": _percent([one.invented for one in flagged]),
            "recall, nothing said": _percent([rule(one.segment) for one in segments if one.nothing]),
            "recall, wrong words": _percent(
                [rule(one.segment) for one in segments if one.invented and not one.nothing]
            ),
            "clips with text left": _percent([_left(one, rule) > 0 for one in silent if one[0].way == "all"]),
            "seconds left": _share_of_seconds([one for one in silent if one[0].way == "all"], rule),
            "clips left, detected": _percent([_left(one, rule) > 0 for one in detected]),
        }
        for condition in ("clean", "noisy", "quiet", "telephone", "cut", "gap"):
            mine = [rule(one.segment) for one in right if one.answer.condition == condition]
            row[f"false, {condition}"] = _percent(mine)
        table.append(row)
    return table


def reliability(segments: Sequence[Judged]) -> Table:
    """Return how many are invented of those with a probability between two bounds."""
    table = []
    for low, high in pairwise(BINS):
        found = [(one.segment.hallucination_probability or 0.0, one) for one in segments]
        mine = [(p, one) for p, one in found if low <= p < high or (p == high == 1.0)]
        table.append(
            {
                "probability": f"{low:g} to {high:g}",
                "segments": len(mine),
                "mean %": 100 * float(np.mean([p for p, _ in mine])) if mine else math.nan,
                "invented %": _percent([one.invented for _, one in mine]),
            }
        )
    return table


def languages(segments: Sequence[Judged]) -> Table:
    """Return precision, recall and false flags of the flag by the language that is spoken."""
    spoken = [one for one in segments if one.answer.text]
    table = []
    for language in sorted({one.answer.language or "" for one in spoken}):
        mine = [one for one in spoken if one.answer.language == language]
        flag = RULES["flag hallucination"]
        table.append(
            {
                "language": language,
                "segments": len(mine),
                "precision": _percent([one.invented for one in mine if flag(one.segment)]),
                "recall": _percent([flag(one.segment) for one in mine if one.invented]),
                "false": _percent([flag(one.segment) for one in mine if not one.invented]),
            }
        )
    return table


def peers(arguments: argparse.Namespace) -> Table:
    """Return in how many of the clips where nothing is said faster-whisper writes text, and leaves it undoubted."""
    from checkpoints import write
    from conditions import clips_of
    from engines import HERE, WARM
    from workers import Worker

    from pipeline.ffmpeg_process import find_ffmpeg

    clips = [clip for folder in arguments.folder for clip in clips_of(folder) if not clip.text]
    asked = [{"uri": str(clip.path.absolute()), "language": None, "multilingual": False} for clip in clips]
    table = []
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = str(write("faster-whisper", arguments.model, Path(scratch)))
        for system in ("faster-whisper beam_size=5", "faster-whisper beam_size=5 vad_filter=true"):
            kind, *options = system.split()
            command = [arguments.peer_python, str(HERE / "peer.py"), kind, checkpoint, "1", *options]
            with Worker(system, command, 1, find_ffmpeg(), WARM) as worker:
                found, _ = worker.hear(asked)
            texts = [[line for line in one["lines"] if line["text"].strip()] for one in found]
            table.append(
                {
                    "system": system,
                    "clips": len(texts),
                    "clips with text": _percent([bool(one) for one in texts]),
                    "not doubted": _percent([any(not line["doubtful"] for line in one) for one in texts]),
                }
            )
    return table


# --- figures ----------------------------------------------------------------------------------------------------------


def lines(table: Table) -> str:
    """Return a table as aligned text; "-" for one without rows."""
    if not table:
        return "-"
    cells = [list(table[0])] + [[_shown(value) for value in row.values()] for row in table]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    aligned = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join(aligned)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4f}" if abs(value) <= 1 else f"{value:.1f}"
    return str(value)


def _percent(flags: Sequence[bool]) -> float:
    return 100 * sum(flags) / len(flags) if flags else math.nan


def _left(one: Heard, rule: Callable[[Segment], bool]) -> int:
    """Return the samples of text that a rule leaves unflagged."""
    return sum(max(1, s.end - s.start) for s in one[1] if s.text.strip() and not rule(s))


def _share_of_seconds(heard: Sequence[Heard], rule: Callable[[Segment], bool]) -> float:
    whole = sum(one[0].duration_s for one in heard)
    return 100 * sum(_left(one, rule) for one in heard) / 16_000 / whole if whole else math.nan


def _without_evidence(segment: Segment) -> Segment:
    return replace(segment, evidence=None)


def _folded(text: str) -> str:
    return " ".join(re.sub(r"[^\w\s]", "", text.casefold()).split())


if __name__ == "__main__":
    main()
