"""The stages: what is done to a table of recordings until it is a table of transcripts. All speak Arrow.

    Recording --cut--> Passage --Transcribe--> Transcript --mark--> Transcript --> ledger

A job is a tuple of Stages. `in_process` runs it in a loop, `run.py` on Ray; neither changes what comes out.
Knows no Ray and no files of the output.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePosixPath

import pyarrow as pa

from pipeline import metrics, rows, score, storage
from pipeline.decode import DecodeOptions, Decoder, Selection, alternatives
from pipeline.engines import load_engine
from pipeline.errors import DataError
from pipeline.passages import PassageCutter, PassageOptions
from pipeline.score import ScoreOptions
from pipeline.speech import SpeechOptions, detect
from pipeline.types import SAMPLE_RATE, Outcome, Passage, Recording, Transcript
from pipeline.whisper.options import WhisperOptions

Transform = Callable[[Iterable[pa.Table]], Iterator[pa.Table]]


@dataclass(frozen=True)
class Stage:
    """A transform of tables, beside the resources that one worker of it takes."""

    name: str
    make: Callable[[], Transform]  # called once in each worker
    cpus: float = 1.0
    gpus: float = 0.0
    actors: tuple[int, int] | None = None  # smallest and largest pool, for what is loaded once; None for plain tasks
    labels: Mapping[str, str] = field(default_factory=dict)  # that a machine must carry to be given a worker


Plan = tuple[Stage, ...]


def in_process(plan: Plan, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Run `tables` through `plan` in this process, lazily. Closing the iterator stops what works in threads."""
    with ExitStack() as stack:
        for stage in plan:
            transform = stage.make()
            if isinstance(transform, Transcribe):
                stack.callback(transform.close)
            tables = transform(tables)
        yield from tables


@dataclass(frozen=True)
class CutOptions:
    """All that steers the way from a recording to its passages."""

    decode: DecodeOptions = field(default_factory=DecodeOptions)
    speech: SpeechOptions = field(default_factory=SpeechOptions)
    passages: PassageOptions = field(default_factory=PassageOptions)


def cut_stage(options: CutOptions, labels: Mapping[str, str] | None = None) -> Stage:
    """Recordings -> passages and closing rows. One CPU: ffmpeg and speech detection work in turn."""
    return Stage("cut", partial(partial, _cut_tables, options), cpus=1, labels=labels or {})


def transcribe_stage(
    options: WhisperOptions, *, actors: tuple[int, int] = (1, 1), cpus: float = 0.0, gpus: float = 0.0
) -> Stage:
    """Passages -> transcripts, by an engine that each actor loads once."""
    return Stage("transcribe", partial(Transcribe, options), cpus=cpus, gpus=gpus, actors=actors)


def mark_stage(options: ScoreOptions) -> Stage:
    """Transcripts -> transcripts with flags."""
    return Stage("mark", partial(partial, _mark_tables, options), cpus=0.25)


def cut(recording: Recording, options: CutOptions) -> Iterator[Passage | Outcome]:
    """Yield the recording's passages, then its Outcome. A recording that cannot be read has only that."""
    outcome = yield from _listen(recording, options, Selection())
    if outcome.failure is None and not outcome.speech:
        # The mix is silent: its channels may cancel, or another track holds the speech.
        others = {other: _exhaust(_listen(recording, options, other)) for other in alternatives(outcome.media)}
        best = max(others, key=lambda other: others[other].speech, default=None)
        if best is not None and others[best].speech:
            outcome = yield from _listen(recording, options, best)
    yield outcome


def _listen(recording: Recording, options: CutOptions, selection: Selection) -> Generator[Passage, None, Outcome]:
    """Yield the passages of one channel or track, and return how it ended: storage, decode, speech, passages."""
    uri = recording.uri
    opener = partial(storage.open_audio, uri, recording.version)
    decoder = Decoder(opener, storage.local_path(uri), options.decode, selection, suffix=PurePosixPath(uri).suffix)
    cutter = PassageCutter(recording, detect(decoder.blocks(), options.speech), options.passages)
    passages, failure = 0, None
    try:
        for passage in cutter:
            passages += 1
            yield passage
    except DataError as error:  # what was decoded before it is kept
        failure = error.failure
    media = replace(decoder.media, selection=selection.name)
    return Outcome(recording, passages, cutter.duration, cutter.speech, cutter.speechless, media, failure)


def _exhaust(listening: Generator[Passage, None, Outcome]) -> Outcome:
    while True:
        try:
            next(listening)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome


PACK_SAMPLES = 60 * SAMPLE_RATE  # of audio in a table: passages of short recordings travel together


def _cut_tables(options: CutOptions, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    pack: list[Passage | Outcome] = []
    for recording in (recording for table in tables for recording in rows.read_recordings(table)):
        for item in metrics.timed("cut", cut(recording, options)):
            pack.append(item)
            if sum(len(one.pcm) for one in pack if isinstance(one, Passage)) >= PACK_SAMPLES or len(pack) >= 100:
                yield rows.passages_table(pack)
                pack = []
    if pack:
        yield rows.passages_table(pack)


def _mark_tables(options: ScoreOptions, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    for table in tables:
        items = rows.read_transcripts(table)
        yield rows.transcripts_table(item if isinstance(item, Outcome) else score.mark(item, options) for item in items)


POLL_S = 0.5  # between two looks at whether the other side is still there
Answer = Transcript | BaseException
Inbox = queue.SimpleQueue[tuple[Passage, queue.SimpleQueue[Answer]]]


class Transcribe:
    """Passages in, transcripts out, in any order. Several callers (threads) share one engine and so one batch.

    The engine runs in a thread of its own; it takes passages as its slots fall free, whoever they come from.
    """

    def __init__(self, options: WhisperOptions, ahead: int = 64) -> None:
        """Load the engine. A caller hands over at most `ahead` passages before it waits for an answer."""
        # Threads that wait for each other by spinning took cores from other processes: all were 3 to 6 times slower.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read once, when the engine loads torch
        self._engine = load_engine(options)
        self._meter = metrics.meter("transcribe")
        self._ahead = ahead
        self._inbox: Inbox = queue.SimpleQueue()
        self._waiting: dict[tuple[str, int], deque[queue.SimpleQueue[Answer]]] = defaultdict(deque)
        self._broken: BaseException | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def __call__(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yield a table for each answer, and closing rows as they come."""
        answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        pending = 0
        for item in (item for table in tables for item in rows.read_passages(table)):
            if isinstance(item, Outcome):
                yield rows.transcripts_table([item])
                continue
            while pending and (pending >= self._ahead or not answers.empty()):
                yield self._answer(answers)
                pending -= 1
            self._meter.take()
            self._inbox.put((item, answers))
            pending += 1
        for _ in range(pending):
            yield self._answer(answers)

    def close(self) -> None:
        """Stop the engine after its current step: a process must not end while torch works in another thread."""
        self._closing = True
        self._thread.join()

    def _answer(self, answers: queue.SimpleQueue[Answer]) -> pa.Table:
        while True:
            try:
                answer: Answer | None = answers.get(timeout=POLL_S)
            except queue.Empty:
                answer = self._broken  # the engine broke before it saw the passage
            if isinstance(answer, BaseException):
                raise answer
            if answer is not None:
                return rows.transcripts_table([answer])

    def _run(self) -> None:
        try:
            for transcript in self._engine.transcribe(self._feed()):
                if self._closing:
                    return
                if transcript is None:
                    continue
                key = (transcript.recording_id, transcript.passage)
                self._meter.give()
                self._waiting[key].popleft().put(transcript)
                if not self._waiting[key]:
                    del self._waiting[key]
            if not self._closing:
                raise RuntimeError("the engine ended before its input did")
        except BaseException as error:  # noqa: BLE001 (a thread's error would be lost: it is raised in every caller)
            self._broken = error
            for answers in [answers for line in self._waiting.values() for answers in line]:
                answers.put(error)

    def _feed(self) -> Iterator[Passage | None]:
        """Yield what comes in; None while there is nothing and the engine has work."""
        while not self._closing:
            try:
                passage, answers = self._inbox.get(timeout=0 if self._waiting else POLL_S)
            except queue.Empty:
                if self._waiting:
                    yield None
                continue
            self._waiting[passage.recording_id, passage.index].append(answers)
            yield passage
