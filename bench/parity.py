"""The engine in reference mode against openai-whisper with the same weights: texts, times, scores, words.

    python bench/parity.py FOLDER... [--beam 5] [--dtype int8] [--limit N] [--no-words] [--json FILE]

Each recording of a folder's manifest.jsonl goes through both, greedy (or with a beam) at temperature 0, float32, with
context. Printed are the windows whose texts and times are equal, as they are where tokens and seek are (a window of the
reference that we do not have counts as different, and so do all windows behind the first difference of a recording,
which start elsewhere or see another context), the largest difference of the scores in equal windows, and the words
within 20 ms.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # the project before bench/pipeline.py, and the reference of its tests

import reference  # noqa: E402

from pipeline.decode import Decoder  # noqa: E402
from pipeline.types import SAMPLE_RATE, Passage, Segment, Span  # noqa: E402
from pipeline.whisper.engine import WhisperEngine  # noqa: E402
from pipeline.whisper.options import WhisperOptions  # noqa: E402

CLOSE_S = 0.0201  # two times of a word this close are the same
SAME_S = 0.005  # and two of a segment: timestamps are 0.02 s apart
SCORES = ("avg_logprob", "no_speech_prob")


@dataclass
class Parity:
    """Counts that add up over recordings."""

    recordings: int = 0
    windows: int = 0
    equal: int = 0
    words: int = 0
    close: int = 0
    score_difference: float = 0.0

    def __add__(self, other: Parity) -> Parity:
        total = Parity(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))
        total.score_difference = max(self.score_difference, other.score_difference)
        return total

    def __str__(self) -> str:
        parts = [
            f"{self.recordings} recordings",
            f"{self.equal} of {self.windows} windows equal ({100 * self.equal / max(1, self.windows):.2f} %)",
            f"scores within {self.score_difference:.1e}",
        ]
        if self.words:
            parts.append(f"{100 * self.close / self.words:.2f} % of {self.words} words within 20 ms")
        return "; ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="+", type=Path)
    parser.add_argument("--model", default="base")
    parser.add_argument("--beam", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--limit", type=int, help="only the first recordings of each folder")
    parser.add_argument("--words", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    options = WhisperOptions(
        model=arguments.model,
        beam=arguments.beam,
        dtype=arguments.dtype,
        words=arguments.words,
        temperatures=(0.0,),
        reference=True,
    )
    engine = WhisperEngine(options)
    judge = WhisperEngine(WhisperOptions(model=arguments.model, dtype="float32")).model
    written = {}
    for folder in arguments.folder:
        total = Parity()
        for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()[: arguments.limit]:
            entry = json.loads(line)
            found = compare(engine, judge, passage(folder / entry["uri"], entry["language"]))
            if found.equal < found.windows:
                print(f"  {entry['uri']}: {found}", flush=True)  # noqa: T201
            total += found
        print(f"{folder.name}: {total}", flush=True)  # noqa: T201
        written[folder.name] = vars(total)
    if arguments.json:
        arguments.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


def passage(path: Path, language: str | None) -> Passage:
    """Return a recording as one passage."""
    pcm = np.concatenate(list(Decoder(lambda: open(path, "rb"), str(path)).blocks()))  # noqa: SIM115 (the decoder closes it)
    return Passage(path.name, 0, 0, pcm, (Span(0, len(pcm)),), language)


def compare(engine: WhisperEngine, judge: Any, one: Passage) -> Parity:
    """Run both over a recording."""
    options = engine.options
    ours = next(answer for answer in engine.transcribe(iter([one])) if answer).segments
    beam = {"beam_size": options.beam} if options.beam > 1 else {}
    theirs = reference.transcribe(judge, one.pcm, language=one.language, word_timestamps=options.words, **beam)
    length = len(one.pcm) / SAMPLE_RATE
    return held(ours, [s for s in theirs if s["start"] < length], length)


def held(ours: tuple[Segment, ...], theirs: list[dict[str, Any]], length: float) -> Parity:
    """Compare segments in order, window by window of the reference (segments of one window share its seek)."""
    found = Parity(recordings=1)
    windows: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for segment in theirs:
        windows[segment["seek"]].append(segment)
    at, parted = 0, False
    for segments in windows.values():
        mine = ours[at : at + len(segments)]
        at += len(segments)
        parted = parted or not alike(mine, segments, length)
        found.windows += 1
        found.equal += not parted
        for segment, other in () if parted else zip(mine, segments, strict=True):
            differences = (abs(getattr(segment, name) - other[name]) for name in SCORES)
            found.score_difference = max(found.score_difference, *differences)
            for word, expected in zip(segment.words, other.get("words", ()), strict=True):
                times = ((word.start, expected["start"]), (word.end, expected["end"]))
                found.words += 1
                found.close += all(abs(s / SAMPLE_RATE - min(t, length)) < CLOSE_S for s, t in times)
    found.windows += at < len(ours)  # text of which the reference has nothing
    return found


def alike(ours: tuple[Segment, ...], theirs: list[dict[str, Any]], length: float) -> bool:
    """Say whether segments have the same texts and, up to the recording's end, times."""
    return len(ours) == len(theirs) and all(
        mine.text == other["text"].strip()
        and abs(mine.start / SAMPLE_RATE - other["start"]) < SAME_S
        and abs(mine.end / SAMPLE_RATE - min(other["end"], length)) < SAME_S
        for mine, other in zip(ours, theirs, strict=True)
    )


if __name__ == "__main__":
    main()
