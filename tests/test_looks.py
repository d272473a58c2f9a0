"""The cheap look: which stretches are decoded, that they are where they are said to be, and how much is read for it."""

from __future__ import annotations

import subprocess
import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from range_server import counting_server
from web_server import web_server

from pipeline.ffmpeg_process import find_ffmpeg
from pipeline.looks import LookingOptions, LookOptions, look
from pipeline.sources import resolve
from pipeline.speech import SpeechOptions
from pipeline.types import SAMPLE_RATE, Outcome, Passage, Recording, Span

EXAMPLES = Path(__file__).parents[1] / "examples" / "audio"
SPEECH = EXAMPLES / "en_switchboard.mp3"
LONG_S, SLOPE = 300, 10  # the pitch of these files tells the time: 200 Hz at first, and 10 Hz more each second
# Each frame counts as speech, so that all stretches come out.
DEFAULTS = LookingOptions()
EVERYTHING = LookingOptions(LookOptions(listen=10), speech=SpeechOptions(threshold=0.0, end_threshold=0.0))
FORMATS = {
    "wav": [],
    "mp3": ["-b:a", "64k"],
    "flac": [],
    "m4a": ["-c:a", "aac", "-b:a", "48k"],  # its index lies behind the audio
    "opus": ["-c:a", "libopus", "-b:a", "32k"],
    "mkv": ["-c:a", "libopus", "-b:a", "32k"],
}


def ffmpeg(*arguments: object) -> None:
    """Make a file."""
    command = [find_ffmpeg(), "-y", "-hide_banner", "-loglevel", "error", *map(str, arguments)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def chirps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the chirp in each format."""
    folder = tmp_path_factory.mktemp("chirps")
    write_chirp(folder / "chirp.wav", LONG_S)
    for ending, options in FORMATS.items():
        if ending != "wav":
            ffmpeg("-i", folder / "chirp.wav", *options, folder / f"chirp.{ending}")
    return folder


def write_chirp(path: Path, seconds: int) -> None:
    """Write a tone that rises, as 16 kHz mono."""
    t = np.arange(seconds * SAMPLE_RATE) / SAMPLE_RATE
    pcm = (10_000 * np.sin(2 * np.pi * (200 * t + SLOPE / 2 * t * t))).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, len(pcm), "NONE", ""))
        file.writeframes(pcm.tobytes())


def only(source: object) -> Recording:
    """Return the only recording of a source."""
    (recording,) = resolve([str(source)]).recordings
    return recording


def looked(recording: Recording, options: LookingOptions = DEFAULTS) -> tuple[list[Passage], Outcome]:
    """Look at a recording."""
    *passages, outcome = look(recording, options)
    assert isinstance(outcome, Outcome)
    return [one for one in passages if isinstance(one, Passage)], outcome


def time_s(passage: Passage) -> float:
    """Return the time in the chirp at which a stretch begins, by its pitch."""
    second = passage.pcm[:SAMPLE_RATE].astype(float)
    pitch = int(np.abs(np.fft.rfft(second * np.hanning(len(second)))).argmax())
    return (pitch - 200) / SLOPE - 0.5


def stretches(passages: list[Passage], outcome: Outcome) -> list[Span]:
    """Return what was decoded, in order."""
    return sorted([*(one.span for one in passages), *outcome.speechless], key=lambda span: span.start)


def test_a_short_recording_is_decoded_whole() -> None:
    passages, outcome = looked(only(SPEECH))
    assert outcome.status == "ok"
    assert all(a.end == b.start for a, b in pairwise(stretches(passages, outcome)))
    assert stretches(passages, outcome)[-1].end == outcome.duration == pytest.approx(39.4 * SAMPLE_RATE, rel=0.01)
    assert outcome.speech > 0.9 * outcome.duration
    assert len(passages) == 1  # of each minute one


@pytest.mark.parametrize("ending", FORMATS)
def test_a_long_recording_is_looked_at_where_it_is_said_to_be(chirps: Path, ending: str) -> None:
    passages, outcome = looked(only(chirps / f"chirp.{ending}"), EVERYTHING)
    assert outcome.status == "ok"
    found = stretches(passages, outcome)
    assert len(found) == 10
    parts = [int(span.start / SAMPLE_RATE / (LONG_S / 10)) for span in found]
    assert parts == list(range(10))
    assert outcome.duration == pytest.approx(100 * SAMPLE_RATE, rel=0.02)
    for passage in passages:
        assert time_s(passage) == pytest.approx(passage.start / SAMPLE_RATE, abs=1)


def test_a_length_that_is_a_guess_promises_nothing(chirps: Path) -> None:
    raw = chirps / "chirp.aac"  # frames without an index or a count
    ffmpeg("-i", chirps / "chirp.wav", "-c:a", "aac", "-b:a", "48k", raw)
    passages, outcome = looked(only(raw), EVERYTHING)
    assert outcome.status == "ok"
    assert 5 <= len(passages) <= 10


def test_the_same_recording_is_looked_at_in_the_same_places(chirps: Path) -> None:
    first, second = (looked(only(chirps / "chirp.mp3"), EVERYTHING)[0] for _ in range(2))
    assert [one.start for one in first] == [one.start for one in second]
    assert all(np.array_equal(a.pcm, b.pcm) for a, b in zip(first, second, strict=True))


def test_a_store_is_read_by_range(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "long.wav"), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        for _ in range(60):
            file.writeframes(bytes(30 * SAMPLE_RATE * 2))
    with counting_server(tmp_path) as (address, sent):
        passages, outcome = looked(only(f"{address}/long.wav"), LookingOptions(speech=EVERYTHING.speech))
    assert outcome.status == "ok"
    assert len(outcome.speechless) + len(passages) == 10
    # Some of what waits in sockets of this machine was never wanted.
    assert sent["long.wav"] < 0.5 * (tmp_path / "long.wav").stat().st_size


def test_an_index_behind_the_audio_is_read_from_a_store_first(chirps: Path) -> None:
    with counting_server(chirps) as (address, _):
        passages, outcome = looked(only(f"{address}/chirp.m4a"), EVERYTHING)
    assert outcome.status == "ok"
    assert len(passages) == 5  # of each minute one
    for passage in passages:
        assert time_s(passage) == pytest.approx(passage.start / SAMPLE_RATE, abs=1)


def test_where_no_range_can_be_had_the_start_stands_for_the_whole(chirps: Path) -> None:
    with web_server(chirps) as address:
        passages, outcome = looked(only(f"{address}/chirp.mp3"), EVERYTHING)
    assert outcome.status == "ok"
    assert stretches(passages, outcome)[-1].end == outcome.duration == 200 * SAMPLE_RATE


def test_channels_that_cancel_are_heard_one_by_one(tmp_path: Path) -> None:
    ffmpeg("-i", SPEECH, "-af", "pan=stereo|c0=c0|c1=-1*c0", tmp_path / "cancels.flac")
    passages, outcome = looked(only(tmp_path / "cancels.flac"))
    assert outcome.media.selection == "channel 0"
    assert len(passages) == 1


def test_sound_without_speech_is_told_from_silence() -> None:
    for name, share in (("music.mp3", 0.9), ("silence.wav", 0.0)):
        passages, outcome = looked(only(EXAMPLES / name))
        assert passages == []
        assert outcome.speech == 0
        assert outcome.sound >= share * outcome.duration
        assert outcome.sound <= (share + 0.1) * outcome.duration


def test_what_cannot_be_read_has_an_outcome_with_the_reason() -> None:
    passages, outcome = looked(only(EXAMPLES / "truncated.m4a"))
    assert (passages, outcome.status) == ([], "failed")
    assert outcome.failure is not None
    assert "moov atom not found" in outcome.failure.message


def test_stretches_that_are_missing_make_it_partial(chirps: Path, tmp_path: Path) -> None:
    whole = (chirps / "chirp.mp3").read_bytes()  # whose header counts all of it
    (tmp_path / "cut.mp3").write_bytes(whole[: len(whole) // 2])
    passages, outcome = looked(only(tmp_path / "cut.mp3"), EVERYTHING)
    assert outcome.status == "partial"
    assert outcome.failure is not None
    assert outcome.failure.kind == "audio_missing"
    assert 4 <= len(stretches(passages, outcome)) <= 6
