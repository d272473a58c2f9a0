"""Cases -> segments of our engine, each held against what is said there: right, wrong, or in doubt.

Knows the engine and the cases of `conditions.py`; no scores and no thresholds. Two ways to listen: `detected`, as
`bulkscribe transcribe` does, by speech detection; and `all`, where each case is one passage, and all of it speech.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # before this folder, whose pipeline.py is not the library
from conditions import Case, cases, clips_of
from rapidfuzz.distance import Levenshtein

from pipeline import text
from pipeline.engines import load_engine
from pipeline.passages import PassageCutter, PassageOptions
from pipeline.score import ScoreOptions, mark
from pipeline.speech import SpeechOptions, detect
from pipeline.types import SAMPLE_RATE, Engine, Guess, Passage, Recording, Segment, Span, Transcript
from pipeline.whisper.options import WhisperOptions

WAYS = ("detected", "all")
INSIDE = 0.8  # a segment with this share of its time in a gap is in the gap
RIGHT, WRONG = 0.75, 0.2  # share of a segment's words that were said: from here on right; up to here wrong
# Characters in common with what stands opposite, from which on wrong words are only misspelt. Texts of other
# recordings in the same language have less in 97 of 100 cases, those below 15 letters in 92.
ALIKE = 0.4

Row = dict[str, Any]  # of a segment


@dataclass(frozen=True)
class Answer:
    """What was made of a task, as it stands in a file of rows."""

    id: str
    name: str
    group: str
    condition: str
    way: str
    language: str | None  # spoken
    forced: str | None
    noise_db: float | None
    text: str  # said
    duration_s: float
    rows: list[Row]


def answers(folders: Sequence[Path], file: Path, model: str, share: float) -> list[Answer]:
    """Return what is made of the folders' cases: from the file, or made now and added to it. No folders: the file's.

    What was heard stands in the file; the verdicts are made anew.
    """
    clips = [clip for folder in folders for clip in clips_of(folder)]
    tasks = [Task(case, way) for case in cases(clips, share) for way in _ways(case)]
    lines = file.open(encoding="utf-8") if file.exists() else ()
    known = {one.id: _judged_again(one) for one in (Answer(**json.loads(line)) for line in lines)}
    if not folders:
        return list(known.values())
    missing = [task for task in tasks if task.id not in known]
    if missing:
        engine = load_engine(WhisperOptions(model=model))
        with file.open("a", encoding="utf-8") as out:
            for answer in listen(engine, missing):
                known[answer.id] = answer
                out.write(json.dumps(asdict(answer), ensure_ascii=False) + "\n")
                out.flush()
    return [known[task.id] for task in tasks]


def _judged_again(answer: Answer) -> Answer:
    return replace(answer, rows=verdicts(answer.text, answer.language, answer.rows))


def segment_of(row: Row) -> Segment:
    """Return the segment that a row tells of, without attempts and words."""
    names = {field.name for field in fields(Segment)}
    kept = {name: value for name, value in row.items() if name in names}
    times = {name: round(row[name] * SAMPLE_RATE) for name in ("start", "end")}
    guesses = tuple(Guess(**one) for one in row.get("languages") or ())
    return Segment(**kept | times | {"attempts": (), "flags": tuple(row["flags"]), "languages": guesses})


def _ways(case: Case) -> Sequence[str]:
    """Return how a case is listened to: silence and its kin both ways, as detection mostly leaves nothing to judge."""
    return (random.Random(f"{case.name} {case.condition}").choice(WAYS),) if case.text else WAYS


@dataclass(frozen=True)
class Task:
    """A case, and how it is listened to."""

    case: Case
    way: str

    @property
    def id(self) -> str:
        parts = (self.case.name, self.case.condition, self.way, self.case.forced or "", str(self.case.noise_db or ""))
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def listen(engine: Engine, tasks: Iterable[Task]) -> Iterator[Answer]:
    """Yield what is made of each task; in groups, so that they share the engine's batch."""
    group: list[Task] = []
    for task in tasks:
        group.append(task)
        if len(group) == 16:
            yield from _listen(engine, group)
            group = []
    yield from _listen(engine, group)


def _listen(engine: Engine, tasks: Sequence[Task]) -> Iterator[Answer]:
    found: dict[str, list[Transcript]] = {task.id: [] for task in tasks}
    passages = [passage for task in tasks for passage in _passages(task)]
    for transcript in engine.transcribe(iter(passages)):
        if transcript is not None:
            found[transcript.recording_id].append(mark(transcript, ScoreOptions()))
    for task in tasks:
        ordered = sorted(found[task.id], key=lambda transcript: transcript.passage)
        rows = judged(task.case, [segment for transcript in ordered for segment in transcript.segments])
        case, seconds = task.case, len(task.case.pcm) / SAMPLE_RATE
        told = (case.name, case.group, case.condition, task.way, case.language, case.forced, case.noise_db, case.text)
        yield Answer(task.id, *told, seconds, rows)


def _passages(task: Task) -> list[Passage]:
    pcm, forced = task.case.pcm, task.case.forced
    if task.way == "all":
        return [Passage(task.id, 0, 0, pcm, (Span(0, len(pcm)),), forced)]
    recording = Recording(task.id, task.case.name, language=forced)
    return list(PassageCutter(recording, detect([pcm], SpeechOptions()), PassageOptions()))


def judged(case: Case, segments: Sequence[Segment]) -> list[Row]:
    """Return the segments as rows, with their verdicts."""
    rows = []
    for segment in segments:
        row = {name: value for name, value in asdict(segment).items() if name not in ("words", "attempts")}
        times = {"start": segment.start / SAMPLE_RATE, "end": segment.end / SAMPLE_RATE}
        rows.append(row | times | {"in_gap": _in_gap(segment, case.gaps)})
    return verdicts(case.text, case.language, rows)


def verdicts(said: str, language: str | None, rows: Sequence[Row]) -> list[Row]:
    """Return the rows with `invented` (None: in doubt) by what is said where they stand.

    `said` is the share of a row's words that were said, `alike` how many characters it has in common with what stands
    opposite to it when all that was heard is aligned with all that was said, character by character. Beside speech
    that was passed over, single characters may stray into that, and misheard words then count as invented.
    """
    spaceless = text.is_spaceless(said)
    words = text.words(said, language, text.AS_THE_PAPER, spaceless=spaceless)
    mine = [text.words(row["text"], language, text.AS_THE_PAPER, spaceless=spaceless) for row in rows]
    hits = _aligned(words, list(chain(*mine)), equal=True)
    plain = "".join(words)
    opposite = _aligned(plain, "".join(chain(*mine)))
    found, word, letter = [], 0, 0
    for row, its in zip(rows, mine, strict=True):
        letters = "".join(its)
        here = [opposite[i] for i in range(letter, letter + len(letters)) if i in opposite]
        share = sum(i in hits for i in range(word, word + len(its))) / len(its) if its else 0.0
        alike = float(Levenshtein.normalized_similarity(letters, plain[here[0] : here[-1] + 1])) if here else 0.0
        word, letter = word + len(its), letter + len(letters)
        told = {"said": share, "alike": alike, "other_language": bool(said) and row["language"] != language}
        found.append(row | told | {"invented": _invented(row | told, bool(said), bool(its))})
    return found


def _invented(row: Row, something_said: bool, has_words: bool) -> bool | None:
    if not something_said:
        return True
    if row["in_gap"]:
        return None if row["said"] > WRONG else True  # real words beside a gap may have times inside it
    if not has_words or row["other_language"]:  # misheard or translated: neither right nor invented
        return None
    if row["said"] >= RIGHT:
        return False
    return True if row["said"] <= WRONG and row["alike"] < ALIKE else None


def _aligned(said: Sequence[str], heard: Sequence[str], *, equal: bool = False) -> dict[int, int]:
    """Return the places in `heard` that stand opposite to one in `said`; `equal`: and hold the same."""
    found: dict[int, int] = {}
    for step in Levenshtein.opcodes(said, heard):
        if step.tag == "equal" or (step.tag == "replace" and not equal):  # both sides are equally long
            found |= zip(range(step.dest_start, step.dest_end), range(step.src_start, step.src_end), strict=True)
    return found


def _in_gap(segment: Segment, gaps: Iterable[tuple[float, float]]) -> bool:
    start, end = segment.start / SAMPLE_RATE, segment.end / SAMPLE_RATE
    inside = sum(max(0.0, min(end, b) - max(start, a)) for a, b in gaps)
    return end > start and inside / (end - start) >= INSIDE
