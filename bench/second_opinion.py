"""Does a second decoding tell wrong from right segments, beyond what the first one's numbers tell?

    python bench/second_opinion.py FOLDER... --rows rows.jsonl [--clips 10] [--share 0.5] [--second tiny.en] [--beam 5]

Folders and cases are those of `quality.py`; --rows keeps what both models heard, so that looking again takes seconds.
Each segment of the first model is held against what is said there (`judged.py`): right where at least three quarters of
its words were said, else wrong, invented or misheard. All segments are heard again, as `transcribe --second-opinion
MODEL --doubt-hallucination 0` does; what the default rule of doubt would have asked about is told beside.
Segments that were decoded in a language that is not spoken are left out.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from conditions import Case, cases, clips_of
from judged import RIGHT, Task, judged
from logistic import auroc

sys.path.insert(0, str(Path(__file__).parents[1]))  # before this folder, whose pipeline.py is not the library
from pipeline import doubts, engines
from pipeline.doubts import DoubtOptions, Question
from pipeline.engines import load_engine
from pipeline.reviews import review
from pipeline.score import ScoreOptions, mark
from pipeline.types import SAMPLE_RATE, Engine, Opinion, Outcome, Passage, Recording, Segment, Span, Transcript
from pipeline.whisper.options import WhisperOptions

Row = dict[str, Any]
LIKELIEST = (0.0,)  # without fallback, so that the worst texts are there, too
GROUP = 8  # cases that share the engine's batch
ALL = DoubtOptions(doubt_hallucination=0.0)
SCORES: dict[str, Callable[[Row], float]] = {
    "hallucination_probability": lambda r: r["hallucination_probability"],
    "avg_logprob": lambda r: -r["avg_logprob"],
    "text_logprob": lambda r: -r["text_logprob"],
    "wer": lambda r: min(r["wer"], 2.0),
    "cer": lambda r: min(r["cer"], 2.0),
    "edge_cer": lambda r: min(r["edge_cer"], 2.0),
    "second hallucination_probability": lambda r: r["second_hallucination"],
    "text_logprob and cer": lambda r: min(r["cer"], 1.0) - r["text_logprob"],
    "hallucination_probability and cer": lambda r: min(r["cer"], 1.0) + r["hallucination_probability"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="*", type=Path)
    parser.add_argument("--rows", type=Path, required=True, help="what was heard, made or gone on with")
    parser.add_argument("--share", type=float, default=1.0, help="of the cases that are made of the folders")
    parser.add_argument("--clips", type=int, default=sys.maxsize, help="of each folder, drawn by chance")
    parser.add_argument("--model", default="base")
    parser.add_argument("--second", default="base")
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop hearing after this; run again to go on")
    arguments = parser.parse_args()
    if arguments.folder:
        hear(arguments)
    rows = [row for line in arguments.rows.open(encoding="utf-8") for row in json.loads(line)["rows"]]
    tell([row for row in rows if not row["other_language"] and row["wer"] is not None])


def hear(arguments: argparse.Namespace) -> None:
    """Add what both models make of the cases to the file of rows."""
    file: Path = arguments.rows
    done = {json.loads(line)["id"] for line in file.open(encoding="utf-8")} if file.exists() else set()
    chosen = [
        clip
        for folder in arguments.folder
        for clip in sorted(clips_of(folder), key=lambda clip: random.Random(clip.name).random())[: arguments.clips]
    ]
    made = cases(chosen, arguments.share)
    second = WhisperOptions(model=arguments.second, beam=arguments.beam, temperatures=LIKELIEST)
    known = engines.languages(second)
    spoken = [case for case in made if known is None or not case.text or case.language in known]
    first = WhisperOptions(model=arguments.model, temperatures=LIKELIEST)
    both = load_engine(first), load_engine(second)
    until = time.monotonic() + arguments.minutes * 60
    with file.open("a", encoding="utf-8") as out:
        left = [task for task in (Task(case, "all") for case in spoken) if task.id not in done]
        while left and time.monotonic() < until:
            group, left = left[:GROUP], left[GROUP:]
            for task, rows in zip(group, asked(group, *both, known), strict=True):
                out.write(json.dumps({"id": task.id, "rows": rows}, ensure_ascii=False) + "\n")
            out.flush()


def asked(tasks: Sequence[Task], first: Engine, second: Engine, known: frozenset[str] | None) -> list[list[Row]]:
    """Return the segments of each case with what the second model says of them."""
    wholes = [Passage(task.id, 0, 0, task.case.pcm, (Span(0, len(task.case.pcm)),), task.case.forced) for task in tasks]
    heard = answered(first, wholes)
    told = {
        task.id: [_as_told(index, segment) for index, segment in enumerate(heard[task.id][0].segments)]
        for task in tasks
    }
    questions = {task.id: _question(task.case, told[task.id], known) for task in tasks}
    excerpts = [one for task in tasks for one in _excerpts(task, questions[task.id])]
    again = answered(second, excerpts)
    found = []
    for task in tasks:
        rows = judged(task.case, heard[task.id][0].segments)
        recording = Recording(task.id, task.case.name, asked=questions[task.id].json())
        answers = again.get(task.id, [])
        opinions = review(answers, Outcome(recording, len(answers), 0, 0)).opinions
        found.append([_row(rows[one.index], told[task.id][one.index], one) for one in opinions])
    return found


def _question(case: Case, told: list[Row], known: frozenset[str] | None) -> Question:
    found = doubts.stretches(told, ALL, duration=len(case.pcm), known=known)
    return Question("", None, len(case.pcm), len(told), found)


def _excerpts(task: Task, question: Question) -> Iterator[Passage]:
    for number, one in enumerate(question.stretches):
        language = task.case.forced or one.language
        yield Passage(task.id, number, one.start, task.case.pcm[one.start : one.end], (one.span,), language)


def answered(engine: Engine, passages: Sequence[Passage]) -> dict[str, list[Transcript]]:
    """Return what the engine makes of each case's passages, in order, marked."""
    found: dict[str, list[Transcript]] = defaultdict(list)
    for one in engine.transcribe(iter(passages)):
        if one is not None:
            found[one.recording_id].append(mark(one, ScoreOptions()))
    for several in found.values():
        several.sort(key=lambda transcript: transcript.passage)
    return found


def _as_told(index: int, segment: Segment) -> Row:
    row = {field.name: getattr(segment, field.name) for field in fields(Segment)}
    return row | {"index": index, "start": segment.start / SAMPLE_RATE, "end": segment.end / SAMPLE_RATE}


def _row(judgement: Row, told: Row, one: Opinion) -> Row:
    kept = ("text", "said", "in_gap", "other_language", "invented")
    row = {name: judgement[name] for name in kept}
    row |= {name: told[name] for name in ("hallucination_probability", "avg_logprob", "text_logprob", "start", "end")}
    row |= {"second": one.text, "wer": one.wer, "cer": one.cer, "edge_cer": one.edge_cer}
    second = one.hallucination_probability
    row |= {"second_hallucination": 1.0 if second is None else second}
    return row | {"doubtful": bool(doubts.reasons(told, DoubtOptions()))}


def tell(rows: Sequence[Row]) -> None:
    """Print how well each number ranks what is wrong above what is right."""
    wrong = np.array([row["said"] < RIGHT for row in rows])
    invented = np.array([row["invented"] is True for row in rows])
    doubtful = np.array([row["doubtful"] for row in rows])
    print(f"{len(rows)} segments, {wrong.sum()} wrong, {invented.sum()} of them invented; {doubtful.sum()} doubtful,")  # noqa: T201
    print(f"of these {(wrong & doubtful).sum()} wrong; {(wrong & ~doubtful).sum()} wrong ones are not doubtful\n")  # noqa: T201
    groups = {
        "all": (wrong, np.ones(len(rows), bool)),
        "invented": (wrong, invented | ~wrong),
        "misheard": (wrong, ~invented),
        "doubtful": (wrong, doubtful),
        "doubtful, misheard": (wrong, doubtful & ~invented),
    }
    print("AUROC".ljust(34), *(name.rjust(20) for name in groups))  # noqa: T201
    for name, score in SCORES.items():
        values = np.array([score(row) for row in rows])
        cells = [f"{auroc(values[inside], truth[inside]):.3f}" for truth, inside in groups.values()]
        print(name.ljust(34), *(cell.rjust(20) for cell in cells))  # noqa: T201
    wers = np.array([row["wer"] for row in rows])
    for over, most in pairwise((-1.0, 0.0, 0.2, 0.5, 1.0, math.inf)):
        inside = (wers > over) & (wers <= most) & doubtful
        share = wrong[inside].mean() if inside.any() else math.nan
        print(f"doubtful, wer up to {most:.1f}: {inside.sum()} segments, {100 * share:.1f} % wrong")  # noqa: T201


if __name__ == "__main__":
    main()
