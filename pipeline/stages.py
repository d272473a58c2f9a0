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
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pyarrow as pa

from pipeline import hops, logs, metrics, pieces, score, storage
from pipeline.attempts import DEATHS, attempts, key_of
from pipeline.decode import SEEK_S, DecodeOptions, Decoder
from pipeline.engines import load_engine, load_listener
from pipeline.errors import DataError
from pipeline.levels import Meter
from pipeline.noise import NoiseOptions, noisy
from pipeline.passages import PassageCutter, PassageOptions
from pipeline.phrases import Phrases
from pipeline.ranges import Served, served
from pipeline.score import ScoreOptions
from pipeline.selection import MIX, Selection, alternatives
from pipeline.speech import SpeechOptions, detect
from pipeline.storage import StoreOptions
from pipeline.types import SAMPLE_RATE, Engine, Failure, Look, Outcome, Passage, Pcm, Recording, Transcript, Voice
from pipeline.voices.options import VoiceOptions
from pipeline.whisper.options import WhisperOptions

Transform = Callable[[Iterable[pa.Table]], Iterator[pa.Table]]
Listening = Generator[Passage, None, Outcome]


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
    noise: NoiseOptions = field(default_factory=NoiseOptions)


def cut_stage(options: CutOptions, labels: Mapping[str, str] | None = None) -> Stage:
    """Recordings -> passages and closing rows. One CPU: ffmpeg and speech detection work in turn."""
    one = partial(settled, partial(cut, options=options), storage.configured())
    return Stage("cut", partial(partial, cut_tables, one), cpus=1, labels=labels or {})


def transcribe_stage(
    options: WhisperOptions,
    *,
    voices: VoiceOptions | None = None,
    actors: tuple[int, int] = (1, 1),
    cpus: float = 0.0,
    gpus: float = 0.0,
) -> Stage:
    """Passages -> transcripts, by an engine that each actor loads once, and with the voices in them if asked for."""
    make = partial(Transcribe, options, voices=voices)
    return Stage("transcribe", make, cpus=cpus, gpus=gpus, actors=actors)


def mark_stage(options: ScoreOptions, known: Phrases | None = None) -> Stage:
    """Transcripts -> transcripts with flags. `known`: lines taken for inventions, by default those that ship."""
    return Stage("mark", partial(partial, _mark_tables, options, known), cpus=0.25)


def cut(recording: Recording, options: CutOptions) -> Iterator[Passage | Outcome]:
    """Yield the recording's passages, then its Outcome. A recording that cannot be read has only that."""
    yield from best_selection(partial(_listen, recording, options))


SELECTIONS = 32  # heard beside the mix: a file can have a thousand tracks, and each means to read all of it


def best_selection(listen: Callable[[Selection], Listening]) -> Iterator[Passage | Outcome]:
    """Yield the passages and the Outcome of the mix, or of the channel or track that holds speech when it has none."""
    outcome = yield from listen(MIX)
    if outcome.failure is None and not outcome.speech:
        # The mix is silent: its channels may cancel, or another track holds the speech.
        others = alternatives(outcome.media)
        heard = {other: _exhaust(listen(other)) for other in others[:SELECTIONS]}
        best = max(heard, key=lambda other: heard[other].speech, default=None)
        if best is not None and heard[best].speech:
            outcome = yield from listen(best)
        elif len(others) > SELECTIONS:
            words = (
                f"no speech in {SELECTIONS + 1} of its {len(others) + 1} channels and tracks; the others were not heard"
            )
            outcome = replace(outcome, failure=Failure("decode", "too_many_tracks", words))
    yield outcome


def _listen(recording: Recording, options: CutOptions, selection: Selection) -> Listening:
    """Yield the passages of one channel or track, and return how it ended: storage, decode, speech, passages."""
    meter, passages, failure = Meter(), 0, None
    with within_reach(recording) if far_in(recording) else nullcontext() as remote:
        decoder, blocks = decoding(recording, options.decode, selection, remote)
        if options.noise.add_noise is not None and (power := _power(recording, options, selection)):
            blocks = noisy(blocks, power, options.noise.add_noise, recording.id)
        cutter = PassageCutter(recording, meter.listen(detect(blocks, options.speech)), options.passages)
        try:
            for passage in cutter:
                passages += 1
                yield passage
        except DataError as error:  # what was decoded before it is kept
            failure = error.failure
    media = replace(decoder.media, selection=selection.name)
    duration, speech = cutter.duration, cutter.speech
    return Outcome(recording, passages, duration, speech, cutter.speechless, media, failure, meter.snr_db)


def far_in(recording: Recording) -> bool:
    """Say whether what lies before the stretch is worth not reading."""
    return recording.start >= SEEK_S * SAMPLE_RATE


@contextmanager
def within_reach(recording: Recording) -> Iterator[Served | None]:
    """Serve ffmpeg a recording of a store that it can read by range; None where there is nothing to serve."""
    part = not recording.inside or recording.inside.startswith("bytes=")
    remote, ranged = storage.local_path(recording.location) is None, False
    if remote and part and recording.size:
        with suppress(DataError):  # the reader of the stream meets it again, and tells
            ranged = storage.ranged(recording.location)
    if not ranged or not recording.size:
        yield None
        return
    opener = partial(pieces.open_piece, recording.location, recording.version, recording.inside)
    with served(opener, recording.size) as file:
        yield file


def decoding(
    recording: Recording,
    options: DecodeOptions,
    selection: Selection,
    remote: Served | None = None,
    glimpse: tuple[float, float] | None = None,
) -> tuple[Decoder, Iterator[Pcm]]:
    """Return what decodes the recording, or a glimpse of its file, and the blocks that it yields."""
    path, window = pieces.local_window(recording.location, recording.inside) or (None, None)
    decoder = Decoder(
        partial(pieces.open_piece, recording.location, recording.version, recording.inside),
        path,
        options,
        selection,
        suffix=storage.suffix(recording.uri),
        stretch=(recording.start, recording.end),
        window=window,
        glimpse=glimpse,
        url=remote.url if remote else None,
    )
    blocks = decoder.blocks()
    return decoder, remote.told(blocks) if remote else blocks


def _power(recording: Recording, options: CutOptions, selection: Selection) -> float | None:
    """Return the power of a recording's speech: it is read to its end, or to where that fails."""
    meter = Meter()
    with suppress(DataError):  # the second reading meets it again, and tells
        _, blocks = decoding(recording, options.decode, selection)
        deque(meter.listen(detect(blocks, options.speech)), maxlen=0)
    return meter.power


def _exhaust(listening: Listening) -> Outcome:
    while True:
        try:
            next(listening)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome


def settled(
    work: Callable[[Recording], Iterator[Passage | Outcome]], stores: StoreOptions, recording: Recording
) -> Iterator[Passage | Outcome]:
    """Do `work` on a recording, wherever this worker is."""
    storage.configure(stores)  # of this worker
    logs.subject(recording_id=recording.id, uri=recording.uri)
    yield from work(recording)
    logs.subject()


PACK_SAMPLES = 60 * SAMPLE_RATE  # of audio in a table: passages of short recordings travel together


def cut_tables(
    cut_one: Callable[[Recording], Iterator[Passage | Outcome]], tables: Iterable[pa.Table], name: str = "cut"
) -> Iterator[pa.Table]:
    """Cut recording after recording with `cut_one`; yield tables of about PACK_SAMPLES of audio.

    What too many workers have died at is left out: the runner tells of it.
    """
    pack: list[Passage | Outcome] = []
    for recording in _spared(tables):
        for item in metrics.timed(name, cut_one(recording)):
            pack.append(item)
            if sum(len(one.pcm) for one in pack if isinstance(one, Passage)) >= PACK_SAMPLES or len(pack) >= 100:
                yield hops.passages_table(pack)
                pack = []
    if pack:
        yield hops.passages_table(pack)


def _spared(tables: Iterable[pa.Table]) -> Iterator[Recording]:
    """Yield the recordings that may be tried, and tell when they begin and end."""
    told = attempts()
    for table in tables:
        recordings = list(hops.read_recordings(table))
        suspects = told.begin([recording.id for recording in recordings])
        for recording in recordings:
            if recording.id not in suspects:
                yield recording
            elif suspects[recording.id] < DEATHS:
                told.retry(recording.id)
                yield recording
                told.end([recording.id])
        told.end([recording.id for recording in recordings if recording.id not in suspects])


def _mark_tables(options: ScoreOptions, known: Phrases | None, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    for table in tables:
        yield hops.transcripts_table(
            item if isinstance(item, Outcome) else score.mark(item, options, known)
            for item in hops.read_transcripts(table)
        )


@dataclass(frozen=True)
class Task:
    """What an engine is asked to do with passages."""

    name: str  # of the stage
    ask: Callable[[Engine, Iterable[Passage | None]], Iterator[Any]]
    table: Callable[[Iterable[Any]], pa.Table]  # of its answers and of closing words


def _transcribed(engine: Engine, passages: Iterable[Passage | None]) -> Iterator[Transcript | None]:
    return engine.transcribe(passages)


def _screened(engine: Engine, passages: Iterable[Passage | None]) -> Iterator[Look | None]:
    return engine.screen(passages)


TRANSCRIBE = Task("transcribe", _transcribed, hops.transcripts_table)
SCREEN = Task("screen", _screened, hops.looks_table)

POLL_S = 0.5  # between two looks at whether the other side is still there
Answer = Transcript | Look | BaseException
Inbox = queue.SimpleQueue[tuple[Passage, queue.SimpleQueue[Answer]]]


class Transcribe:
    """Passages in, an engine's answers out, in any order. Several callers (threads) share one engine and so one batch.

    The engine runs in a thread of its own; it takes passages as its slots fall free, whoever they come from.
    """

    def __init__(
        self,
        options: WhisperOptions,
        ahead: int = 64,
        task: Task = TRANSCRIBE,
        voices: VoiceOptions | None = None,
    ) -> None:
        """Load the engine. A caller hands over at most `ahead` passages before it waits for an answer."""
        # Threads that wait for each other by spinning took cores from other processes: all were 3 to 6 times slower.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read once, when the engine loads torch
        self._engine, self._task = load_engine(options), task
        self._voices_of = load_listener(voices, options) if voices is not None else None
        self._meter = metrics.meter(task.name)
        self._ahead = ahead
        self._inbox: Inbox = queue.SimpleQueue()
        self._suspects: Inbox = queue.SimpleQueue()  # at which a worker has died: each has the engine for itself
        self._waiting: dict[str, deque[tuple[queue.SimpleQueue[Answer], tuple[Voice, ...]]]] = defaultdict(deque)
        self._broken: BaseException | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def __call__(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yield answers and closing rows as they come: what is there at the same time in one table."""
        answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        pending = 0
        for table in tables:
            closing: list[Outcome] = []
            items = list(hops.read_passages(table))
            suspects = attempts().begin([_key(item) for item in items if isinstance(item, Passage)])
            for item in items:
                if isinstance(item, Outcome):
                    closing.append(item)
                    continue
                died = suspects.get(_key(item), 0)
                if died >= DEATHS:
                    continue
                while pending >= self._ahead:
                    ready = self._answers(answers)
                    pending -= len(ready)
                    yield self._task.table(ready)
                self._meter.take()
                (self._suspects if died else self._inbox).put((item, answers))
                pending += 1
            if closing or not answers.empty():
                ready = self._answers(answers) if not answers.empty() else []
                pending -= len(ready)
                yield self._task.table([*ready, *closing])
        while pending:
            ready = self._answers(answers)
            pending -= len(ready)
            yield self._task.table(ready)

    def close(self) -> None:
        """Stop the engine after its current step: a process must not end while torch works in another thread."""
        self._closing = True
        self._thread.join()

    def _answers(self, answers: queue.SimpleQueue[Answer]) -> list[Transcript | Look]:
        """Wait for an answer; return it with all that are there by then."""
        ready: list[Transcript | Look] = []
        while not ready or not answers.empty():
            try:
                answer: Answer | None = answers.get(timeout=POLL_S)
            except queue.Empty:
                answer = self._broken  # the engine broke before it saw the passage
            if isinstance(answer, BaseException):
                raise answer
            if answer is not None:
                ready.append(answer)
        attempts().end([key_of(one.recording_id, one.passage) for one in ready])
        return ready

    def _run(self) -> None:
        try:
            for answer in self._task.ask(self._engine, self._feed()):
                if self._closing:
                    return
                if answer is None:
                    continue
                self._meter.give()
                key = key_of(answer.recording_id, answer.passage)
                answers, voices = self._waiting[key].popleft()
                answers.put(replace(answer, voices=voices) if voices else answer)
                if not self._waiting[key]:
                    del self._waiting[key]
            if not self._closing:
                raise RuntimeError("the engine ended before its input did")
        except BaseException as error:  # noqa: BLE001 (a thread's error would be lost: it is raised in every caller)
            self._broken = error
            for answers in [answers for line in self._waiting.values() for answers, _ in line]:
                answers.put(error)

    def _feed(self) -> Iterator[Passage | None]:
        """Yield what comes in; None while there is nothing and the engine has work, or a suspect has it for itself."""
        while not self._closing:
            if not self._suspects.empty():
                if not self._waiting:
                    passage, answers = self._suspects.get()
                    attempts().retry(_key(passage))
                    yield self._take(passage, answers)
                while self._waiting and not self._closing:
                    yield None
                continue
            try:
                passage, answers = self._inbox.get(timeout=0 if self._waiting else POLL_S)
            except queue.Empty:
                if self._waiting:
                    yield None
                continue
            yield self._take(passage, answers)

    def _take(self, passage: Passage, answers: queue.SimpleQueue[Answer]) -> Passage:
        """Note who waits for the passage. Its voices are heard here, in the engine's thread: one at a time on a GPU."""
        voices = self._voices_of(passage) if self._voices_of is not None else ()
        self._waiting[_key(passage)].append((answers, voices))
        return passage


def _key(passage: Passage) -> str:
    return key_of(passage.recording_id, passage.index)
