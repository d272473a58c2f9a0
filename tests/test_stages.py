"""The stages on real files: what is cut, what is listened to, and who gets the answers."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from range_server import counting_server

from pipeline import hops, stages, storage
from pipeline.engines import FAKE
from pipeline.ffmpeg_process import find_ffmpeg
from pipeline.score import ScoreOptions
from pipeline.sources import resolve
from pipeline.speech import SpeechOptions
from pipeline.stages import (
    CutOptions,
    Plan,
    Transcribe,
    cut,
    cut_stage,
    in_process,
    mark_stage,
    transcribe_stage,
)
from pipeline.storage import StoreOptions
from pipeline.types import SAMPLE_RATE, Failure, Outcome, Passage, Recording, Span, Transcript
from pipeline.whisper.options import WhisperOptions

EXAMPLES = Path(__file__).parents[1] / "examples" / "audio"
FAKE_PLAN: Plan = (
    cut_stage(CutOptions()),
    transcribe_stage(WhisperOptions(model=FAKE)),
    mark_stage(ScoreOptions()),
)


def recording(path: Path) -> Recording:
    return Recording(path.name, str(path), path.stat().st_size)


def listened(path: Path) -> tuple[list[Passage], Outcome]:
    *passages, outcome = cut(recording(path), CutOptions())
    assert isinstance(outcome, Outcome)
    assert all(isinstance(passage, Passage) for passage in passages)
    return [passage for passage in passages if isinstance(passage, Passage)], outcome


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run([find_ffmpeg(), "-v", "error", "-y", *map(str, arguments)], check=True, stdin=subprocess.DEVNULL)


def test_every_sample_is_in_a_passage_or_in_a_speechless_stretch() -> None:
    passages, outcome = listened(EXAMPLES / "episode.m4a")
    stretches = sorted([*(p.span for p in passages), *outcome.speechless], key=lambda span: span.start)
    assert stretches[0].start == 0
    assert [span.end for span in stretches[:-1]] == [span.start for span in stretches[1:]]
    assert stretches[-1].end == outcome.duration
    assert outcome.passages == len(passages)
    assert outcome.status == "ok"


def test_broken_file_has_only_its_closing_row_with_the_words_of_ffmpeg() -> None:
    passages, outcome = listened(EXAMPLES / "truncated.m4a")
    assert passages == []
    assert outcome.status == "failed"
    assert outcome.failure is not None
    assert "moov atom not found" in outcome.failure.message


def test_absent_file_has_only_its_closing_row() -> None:
    *passages, outcome = cut(Recording("gone", "/nowhere/gone.mp3"), CutOptions())
    assert passages == []
    assert isinstance(outcome, Outcome)
    assert outcome.failure is not None
    assert outcome.failure.kind == "not_found"


def test_silence_and_music_have_no_passages() -> None:
    for name in ("silence.wav", "music.mp3"):
        passages, outcome = listened(EXAMPLES / name)
        assert passages == []
        assert outcome.speechless == (Span(0, outcome.duration),)


def test_channels_that_cancel_are_heard_through_one_of_them(tmp_path: Path) -> None:
    path = tmp_path / "inverted.flac"
    ffmpeg("-i", EXAMPLES / "fr_standard.m4a", "-af", "pan=stereo|c0=c0|c1=-1*c0", path)
    passages, outcome = listened(path)
    assert passages
    assert outcome.media.selection == "channel 0"


def test_speech_in_the_second_track_only_is_found(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    silence = ("-f", "lavfi", "-t", "35", "-i", "anullsrc=r=16000:cl=mono")
    ffmpeg(*silence, "-i", EXAMPLES / "fr_standard.m4a", "-map", "0:a", "-map", "1:a", "-c:a", "flac", path)
    passages, outcome = listened(path)
    assert passages
    assert outcome.media.selection == "track 1 mix"


def test_tracks_without_number_are_not_all_listened_to_and_that_is_told(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "anullsrc=d=0.5:r=8000:cl=mono", *["-map", "0:a"] * 40, tmp_path / "x.mka")
    passages, outcome = listened(tmp_path / "x.mka")
    assert passages == []
    assert outcome.media.tracks == 40
    assert outcome.status == "partial"
    assert outcome.failure == Failure(
        "decode", "too_many_tracks", "no speech in 33 of its 40 channels and tracks; the others were not heard"
    )


def test_packing_of_the_input_does_not_change_the_rows() -> None:
    recordings = [recording(path) for path in sorted(EXAMPLES.iterdir())]
    alone = in_process(FAKE_PLAN, (hops.recordings_table([one]) for one in recordings))
    together = in_process(FAKE_PLAN, [hops.recordings_table(recordings)])

    def content(tables: Iterator[object]) -> set[str]:
        return {repr(item) for table in tables for item in hops.read_transcripts(table)}

    assert content(alone) == content(together) != set()


def test_plan_that_is_left_early_leaves_no_engine_at_work() -> None:
    before = set(threading.enumerate())
    tables = in_process(FAKE_PLAN, [hops.recordings_table([recording(EXAMPLES / "episode.m4a")])])
    next(tables)
    assert "engine" in {thread.name for thread in set(threading.enumerate()) - before}
    tables.close()
    assert "engine" not in {thread.name for thread in set(threading.enumerate()) - before}


def test_callers_that_share_an_engine_get_their_own_answers() -> None:
    shared = Transcribe(WhisperOptions(model=FAKE), ahead=2)
    passages, _ = listened(EXAMPLES / "fr_standard.m4a")
    answers: dict[str, set[str]] = {}

    def call(name: str) -> None:
        own = [Passage(name, i, 0, passages[0].pcm, passages[0].spans) for i in range(20)]
        tables = shared([hops.passages_table([one]) for one in own])
        items = [item for table in tables for item in hops.read_transcripts(table)]
        answers[name] = {f"{item.recording_id} {item.passage}" for item in items if isinstance(item, Transcript)}

    callers = [threading.Thread(target=call, args=(str(n),)) for n in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
    shared.close()
    assert answers == {str(n): {f"{n} {i}" for i in range(20)} for n in range(4)}


class Breaking:
    """An engine that ends at its second passage: with an error of these words, or, where there are none, too early."""

    def __init__(self, words: str | None) -> None:
        self.words = words

    def transcribe(self, passages: Iterable[Passage | None]) -> Iterator[Transcript | None]:
        for number, passage in enumerate(one for one in passages if one is not None):
            if number and self.words:
                raise RuntimeError(self.words)
            if number:
                return
            yield Transcript(passage.recording_id, passage.index, passage.span, (), (), "en", None)


ENDS = [
    pytest.param("the GPU is on fire", "on fire", id="broken"),
    pytest.param(None, "ended before its input", id="ended"),
]


def ends_with(call: Callable[[], object]) -> list[str]:
    """Call it in a thread; return a list that gets the words of its RuntimeError. It has half a minute."""
    words: list[str] = []

    def run() -> None:
        try:
            call()
        except RuntimeError as raised:
            words.append(str(raised))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout=30)
    return words


@pytest.mark.parametrize(("error", "words"), ENDS)
def test_engine_that_ends_stops_the_job(monkeypatch: pytest.MonkeyPatch, error: str | None, words: str) -> None:
    monkeypatch.setattr(stages, "load_engine", lambda options: Breaking(error))
    tables = [hops.recordings_table([recording(EXAMPLES / "episode.m4a")])] * 3
    assert words in "".join(ends_with(lambda: list(in_process(FAKE_PLAN, tables))))


@pytest.mark.parametrize(("error", "words"), ENDS)
def test_engine_that_ends_stops_each_of_its_callers(
    monkeypatch: pytest.MonkeyPatch, error: str | None, words: str
) -> None:
    monkeypatch.setattr(stages, "load_engine", lambda options: Breaking(error))
    shared = Transcribe(WhisperOptions(model=FAKE))
    table = hops.passages_table([Passage("", index, 0, np.zeros(SAMPLE_RATE, np.int16), ()) for index in range(5)])
    with ThreadPoolExecutor() as pool:
        ended = list(pool.map(ends_with, [lambda: list(shared([table]))] * 4))
    assert all(words in "".join(said) for said in ended)
    assert words in "".join(ends_with(lambda: list(shared([table]))))  # of one who comes later, too
    shared.close()


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with half an hour of noise, in a format that can be sought in and in one that cannot."""
    folder = tmp_path_factory.mktemp("long")
    ffmpeg("-f", "lavfi", "-i", "anoisesrc=d=1800:r=16000:a=0.1:seed=7", folder / "long.wav")
    ffmpeg("-i", folder / "long.wav", "-c:a", "adpcm_ima_wav", folder / "long.adpcm.wav")
    return folder


def all_of(uri: str, start_s: int, end_s: int) -> tuple[list[np.ndarray], Outcome]:
    """Return the audio of a stretch, each frame of which is taken for speech."""
    (whole,) = resolve([uri]).recordings
    stretch = replace(whole, start=start_s * SAMPLE_RATE, end=end_s * SAMPLE_RATE)
    *passages, outcome = cut(stretch, CutOptions(speech=SpeechOptions(threshold=0.0, end_threshold=0.0)))
    assert isinstance(outcome, Outcome)
    return [passage.pcm for passage in passages if isinstance(passage, Passage)], outcome


@pytest.mark.parametrize(("name", "most"), [("long.wav", 0.1), ("long.adpcm.wav", 1.2)])
def test_a_stretch_far_into_a_file_of_a_store_is_read_by_range(long: Path, name: str, most: float) -> None:
    here, _ = all_of(str(long / name), 1700, 1720)
    with counting_server(long) as (address, sent):
        there, outcome = all_of(f"{address}/{name}", 1700, 1720)
    assert outcome.status == "ok"
    assert outcome.duration == 20 * SAMPLE_RATE
    assert np.array_equal(np.concatenate(here), np.concatenate(there))
    assert sent[name] < most * (long / name).stat().st_size


def test_a_store_that_fails_in_a_stretch_is_what_its_row_tells(long: Path) -> None:
    with counting_server(long) as (address, _):
        (whole,) = resolve([f"{address}/long.wav"]).recordings
    stretch = replace(whole, start=1700 * SAMPLE_RATE)  # the server is gone by now
    storage.configure(StoreOptions(store_attempts=1))
    try:
        *_, outcome = cut(stretch, CutOptions())
    finally:
        storage.configure(StoreOptions())
    assert isinstance(outcome, Outcome)
    assert outcome.failure
    assert (outcome.failure.stage, outcome.failure.retryable) == ("open", True)
