from __future__ import annotations

import gc
import io
import math
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from s3_server import s3_server

from pipeline import decode, headers, storage
from pipeline.decode import DecodeOptions, Decoder
from pipeline.errors import DataError, DecodeError, OpenError, UserError
from pipeline.ffmpeg_process import MEMORY, find_ffmpeg
from pipeline.selection import MIX, Selection, alternatives
from pipeline.types import Media, Pcm

RATE = 16_000


@pytest.fixture(autouse=True, scope="module")
def _nothing_was_there() -> None:
    """Let go of what errors of other modules' tests still hold: here ffmpegs are counted."""
    gc.collect()


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """After each test no ffmpeg runs, no feeder lives and no spool file lies about."""
    folder = tmp_path_factory.mktemp("spools")  # others run on this machine, and have theirs where all have
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    deadline = time.monotonic() + 2
    while any(thread.name == "feed ffmpeg" for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [thread for thread in threading.enumerate() if thread.name == "feed ffmpeg"] == []
    assert psutil.Process().children() == []
    assert list(folder.iterdir()) == []


def make(path: Path, *output: str, tone: str = "sine=440:d=2", more: tuple[str, ...] = ()) -> Path:
    """Let ffmpeg write a file: two seconds of 440 Hz, unless told otherwise."""
    command = [find_ffmpeg(), "-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", tone, *more, *output, str(path)]
    subprocess.run(command, check=True)
    return path


def write_wav(path: Path, channels: list[Pcm], rate: int = RATE) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.stack(channels, axis=1).astype("<i2").tobytes())
    return path


def tone(hertz: float, seconds: float = 2.0, rate: int = RATE) -> Pcm:
    return (8000 * np.sin(2 * math.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.int16)


def decoder(path: Path, how: str = "path", selection: Selection = MIX, **options: float) -> Decoder:
    local = str(path) if how == "path" else None
    return Decoder(lambda: storage.open_audio(str(path)), local, DecodeOptions(**options), selection)


def heard(found: Decoder) -> Pcm:
    return np.concatenate([np.zeros(0, np.int16), *found.blocks()])


def pitch(pcm: Pcm) -> float:
    """Return the strongest frequency in Hz."""
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(len(pcm))))
    return float(spectrum.argmax()) * RATE / len(pcm)


both_ways = pytest.mark.parametrize("how", ["path", "stream"])


# --- formats ------------------------------------------------------------------------------------------------------

FORMATS = {
    "mp3": ["-c:a", "libmp3lame"],
    "m4a": ["-c:a", "aac"],
    "m4b": ["-c:a", "aac", "-f", "ipod"],
    "aac": ["-c:a", "aac", "-f", "adts"],
    "ogg": ["-c:a", "libvorbis"],
    "opus": ["-c:a", "libopus"],
    "flac": ["-c:a", "flac"],
    "oga": ["-c:a", "flac", "-f", "ogg"],
    "wav": ["-c:a", "pcm_s16le"],
    "aiff": ["-c:a", "pcm_s16be"],
    "caf": ["-c:a", "pcm_s16be"],
    "wma": ["-c:a", "wmav2"],
    "webm": ["-c:a", "libopus"],
    "mka": ["-c:a", "flac"],
    "wv": ["-c:a", "wavpack"],
    "tta": ["-c:a", "tta"],
    "au": ["-c:a", "pcm_mulaw"],
}


@both_ways
@pytest.mark.parametrize("ending", FORMATS)
def test_formats(tmp_path: Path, ending: str, how: str) -> None:
    pcm = heard(decoder(make(tmp_path / f"tone.{ending}", "-ar", "48000", *FORMATS[ending]), how))
    assert len(pcm) / RATE == pytest.approx(2.0, abs=0.1)
    assert pitch(pcm) == pytest.approx(440, abs=2)


@both_ways
@pytest.mark.parametrize(("ending", "video"), [("mp4", "mpeg4"), ("mov", "mpeg4"), ("mkv", "mpeg4"), ("avi", "mpeg4")])
def test_the_audio_of_videos(tmp_path: Path, ending: str, video: str, how: str) -> None:
    picture = ("-f", "lavfi", "-i", "testsrc=d=2:s=64x48:r=5")
    path = make(tmp_path / f"film.{ending}", "-c:v", video, "-c:a", "aac", "-map", "1:v", "-map", "0:a", more=picture)
    found = decoder(path, how)
    assert pitch(heard(found)) == pytest.approx(440, abs=2)
    assert (found.media.codec, found.media.tracks) == ("aac", 1)


@both_ways
def test_amr(tmp_path: Path, how: str) -> None:
    frame = bytes([0x3C]) + bytes(31)  # 12.2 kbit/s, 20 ms
    (tmp_path / "phone.amr").write_bytes(b"#!AMR\n" + frame * 50)
    found = decoder(tmp_path / "phone.amr", how)
    assert len(heard(found)) == RATE
    assert (found.media.codec, found.media.sample_rate) == ("amr_nb", 8000)


@pytest.mark.parametrize("rate", [7350, 8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000])
def test_sample_rates(tmp_path: Path, rate: int) -> None:
    found = decoder(write_wav(tmp_path / "x.wav", [tone(440, rate=rate)], rate))
    pcm = heard(found)
    assert len(pcm) == pytest.approx(2 * RATE, abs=2)
    assert pitch(pcm) == pytest.approx(440, abs=1)
    assert found.media.sample_rate == rate


@pytest.mark.parametrize("channels", range(1, 9))
def test_channels_mix_down(tmp_path: Path, channels: int) -> None:
    found = decoder(write_wav(tmp_path / "x.wav", [tone(440)] * channels))
    pcm = heard(found)
    assert pitch(pcm) == pytest.approx(440, abs=1)
    assert np.abs(pcm).max() > 2000
    assert found.media.channels == channels


@pytest.mark.parametrize(
    "codec",
    ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_alaw", "pcm_mulaw", "adpcm_ms"],
)
def test_sample_formats(tmp_path: Path, codec: str) -> None:
    found = decoder(make(tmp_path / "x.wav", "-c:a", codec))
    assert pitch(heard(found)) == pytest.approx(440, abs=2)
    assert found.media.codec == codec


def test_int16_comes_through_unchanged(tmp_path: Path) -> None:
    pcm = np.random.default_rng(1).integers(-32768, 32768, 50_000).astype(np.int16)
    assert np.array_equal(heard(decoder(write_wav(tmp_path / "x.wav", [pcm]))), pcm)


# --- what is told of a file -----------------------------------------------------------------------------------------


def test_media_is_whole_when_the_first_block_is_there(tmp_path: Path) -> None:
    found = decoder(make(tmp_path / "x.mp3", "-ar", "44100", "-ac", "2"), block_s=0.5)
    blocks = found.blocks()
    next(blocks)
    stated = found.media.stated_s
    assert stated == pytest.approx(2.0, abs=0.1)
    assert found.media == Media("mp3", "mp3", 44100, 2, 1, stated, "mix")
    blocks.close()


def test_blocks_are_of_one_length_whatever_the_pipe_delivers(tmp_path: Path) -> None:
    path = make(tmp_path / "x.flac")
    blocks = list(decoder(path, block_s=0.3).blocks())
    assert {len(block) for block in blocks[:-1]} == {4800}
    assert 0 < len(blocks[-1]) <= 4800
    assert {block.dtype for block in blocks} == {np.dtype(np.int16)}
    assert np.array_equal(np.concatenate(blocks), heard(decoder(path)))


def test_channels_that_cancel_are_heard_one_by_one(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "x.wav", [tone(440), -tone(440)])
    mix = decoder(path)
    assert np.abs(heard(mix)).max() <= 1
    others = alternatives(mix.media)
    assert [other.name for other in others] == ["channel 0", "channel 1"]
    for other in others:
        assert pitch(heard(decoder(path, selection=other))) == pytest.approx(440, abs=1)


@pytest.mark.parametrize("channels", [2, 3, 6, 8])
def test_each_channel_can_be_heard(tmp_path: Path, channels: int) -> None:
    path = write_wav(tmp_path / "x.wav", [tone(300 + 100 * number) for number in range(channels)])
    for number in range(channels):
        found = decoder(path, selection=Selection(0, number))
        assert pitch(heard(found)) == pytest.approx(300 + 100 * number, abs=1)
        assert found.media.selection == f"channel {number}"


def test_each_track_can_be_heard_and_the_first_is_first(tmp_path: Path) -> None:
    second = ("-f", "lavfi", "-i", "sine=880:d=2")
    path = make(tmp_path / "x.mkv", "-map", "0", "-map", "1", "-c:a", "flac", "-ac:a:1", "2", more=second)
    first = decoder(path)
    assert pitch(heard(first)) == pytest.approx(440, abs=1)
    (other,) = alternatives(first.media)
    assert other.name == "track 1 mix"
    assert pitch(heard(decoder(path, selection=other))) == pytest.approx(880, abs=1)


# --- streams ------------------------------------------------------------------------------------------------------


def test_an_index_in_front_needs_no_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "x.m4a", "-movflags", "+faststart")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    assert pitch(heard(decoder(path, "stream"))) == pytest.approx(440, abs=2)


def test_an_index_at_the_end_is_spooled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "x.m4a")
    (tmp_path / "spool").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "spool"))
    found = decoder(path, "stream", block_s=0.5)
    blocks = found.blocks()
    next(blocks)
    assert len(os.listdir(tmp_path / "spool")) == 1
    blocks.close()
    assert os.listdir(tmp_path / "spool") == []


def test_a_full_disk_under_the_spool_is_the_users_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "x.m4a")
    with open("/dev/full", "wb") as full:
        monkeypatch.setattr(tempfile, "NamedTemporaryFile", lambda **_: full)
        with pytest.raises(UserError) as caught:
            heard(decoder(path, "stream"))
    assert "TMPDIR" in caught.value.hint


@pytest.mark.parametrize("faststart", [[], ["-movflags", "+faststart"]])
def test_a_stream_from_a_store(tmp_path: Path, faststart: list[str]) -> None:
    path = make(tmp_path / "x.m4a", *faststart)
    with s3_server():
        storage.write_bytes("s3://audio/x.m4a", path.read_bytes())
        found = Decoder(lambda: storage.open_audio("s3://audio/x.m4a"))
        pcm = heard(found)
        storage.delete("s3://audio/x.m4a")
    assert np.array_equal(pcm, heard(decoder(path)))


class Failing(io.RawIOBase):
    """Half a file, then the store's error."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        chunk = self._data.read(min(size, 20_000))
        if not chunk:
            raise OpenError("unavailable", "the store is gone", retryable=True)
        return chunk


def test_audio_before_the_stores_error_is_kept(tmp_path: Path) -> None:
    data = write_wav(tmp_path / "x.wav", [tone(440, 20)]).read_bytes()
    kept: list[Pcm] = []
    with pytest.raises(OpenError, match="the store is gone"):
        kept.extend(Decoder(lambda: Failing(data[: len(data) // 2])).blocks())
    assert sum(map(len, kept)) == pytest.approx(10 * RATE, rel=0.01)


def test_the_stores_error_in_a_spool_comes_through(tmp_path: Path) -> None:
    data = make(tmp_path / "x.m4a").read_bytes()
    with pytest.raises(OpenError, match="the store is gone"):
        heard(Decoder(lambda: Failing(data[:-100])))


def test_a_bug_in_the_opener_is_not_swallowed(tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(size) or str(1 / 0).encode()

    with pytest.raises(ZeroDivisionError):
        heard(Decoder(lambda: Broken(write_wav(tmp_path / "x.wav", [tone(440)]).read_bytes())))


# --- broken and hostile files ---------------------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (b"just a text, nothing more\n" * 50, "not_audio"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "not_audio"),
        (bytes(50_000), "not_audio"),
        (b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80\x3e\0\0\0\x7d\0\0\2\0\x10\0data\0\0\0\0", "empty"),
        (struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0) + struct.pack(">I4s", 5000, b"mdat"), "not_audio"),
    ],
)
def test_what_is_no_audio_is_told_so(tmp_path: Path, content: bytes, kind: str, how: str) -> None:
    (tmp_path / "a secret.mp3").write_bytes(content)
    with pytest.raises(DecodeError) as caught:
        heard(decoder(tmp_path / "a secret.mp3", how))
    assert caught.value.kind == kind
    assert str(caught.value)
    assert "secret" not in str(caught.value)
    assert " @ 0x" not in str(caught.value)


@both_ways
def test_a_video_without_audio_says_what_it_has(tmp_path: Path, how: str) -> None:
    path = make(tmp_path / "x.mkv", "-c:v", "mpeg4", tone="testsrc=d=1:s=64x48")
    with pytest.raises(DecodeError, match="Video: mpeg4") as caught:
        heard(decoder(path, how))
    assert caught.value.kind == "no_audio_stream"


@both_ways
def test_half_a_file_gives_half_the_audio(tmp_path: Path, how: str) -> None:
    data = make(tmp_path / "x.mp3", tone="sine=440:d=10").read_bytes()
    (tmp_path / "half.mp3").write_bytes(data[: len(data) // 2])
    assert_missing(decoder(tmp_path / "half.mp3", how), 5, of=10)


def assert_missing(half: Decoder, seconds: float, of: float, at_most: float | None = None) -> None:
    """Hold that all audio comes but so many seconds, and then the error says how much did not."""
    blocks: list[Pcm] = []
    with pytest.raises(DecodeError) as caught:
        blocks.extend(half.blocks())
    came = sum(map(len, blocks)) / RATE
    assert seconds - 0.2 < of - came < (at_most or seconds) + 0.2
    assert caught.value.kind == "audio_missing"
    told = re.match(r"([\d.]+) s of ([\d.]+) s could not be decoded", str(caught.value))
    assert told
    assert float(told[1]) == pytest.approx(of - came, abs=0.2)
    assert float(told[2]) == pytest.approx(of, abs=0.1)


TELLING = {"mp3": [], "flac": [], "m4a": ["-movflags", "+faststart"], "mka": ["-c:a", "flac"], "wav": [], "aiff": []}
TELLING |= {"caf": ["-c:a", "pcm_s16be"], "w64": []}


@both_ways
@pytest.mark.parametrize("ending", TELLING)
def test_containers_that_know_their_length_tell_what_is_cut_off(tmp_path: Path, ending: str, how: str) -> None:
    whole = make(tmp_path / f"x.{ending}", *TELLING[ending], tone="anoisesrc=d=20:a=0.3:r=16000")
    data = whole.read_bytes()
    (tmp_path / f"cut.{ending}").write_bytes(data[: len(data) * 3 // 4])
    assert_missing(decoder(tmp_path / f"cut.{ending}", how), 5, of=20)


LATE = {
    "mka": "flac",
    "webm": "libopus",
    "ogg": "libvorbis",
    "opus": "libopus",
    "wma": "wmav2",
    "m4a": "aac",
    "ts": "aac",
}


@both_ways
@pytest.mark.parametrize("ending", LATE)
def test_what_begins_late_lacks_nothing(tmp_path: Path, ending: str, how: str) -> None:
    """Pieces of a stream keep its clock, and some containers tell when they end by it."""
    output = "-c:a", LATE[ending], "-output_ts_offset", "100"
    path = make(tmp_path / f"x.{ending}", *output, tone="anoisesrc=d=20:a=0.3:r=16000")
    whole = decoder(path, how)
    assert len(heard(whole)) == pytest.approx(20 * RATE, abs=RATE // 4)
    if whole.media.stated_s is not None:
        assert whole.media.stated_s == pytest.approx(20, abs=0.5)
    if ending == "mka":
        (tmp_path / "cut.mka").write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
        assert_missing(decoder(tmp_path / "cut.mka", how), 5, of=20)


@pytest.mark.parametrize(
    ("ending", "how", "lost"),  # seconds at most, where 2 are hurt: an Ogg loses pages, a Matroska clusters
    [
        ("ogg", "path", 3.2),  # it tells its length at its end, which a stream does not see in time
        *((ending, how, 2.0) for ending in ("mp3", "flac") for how in ("path", "stream")),
        *(("mka", how, 7.2) for how in ("path", "stream")),
    ],
)
def test_damage_in_the_middle_is_passed_over_and_told(tmp_path: Path, ending: str, how: str, lost: float) -> None:
    output = TELLING.get(ending, [])
    data = bytearray(make(tmp_path / f"x.{ending}", *output, tone="anoisesrc=d=20:a=0.3:r=16000").read_bytes())
    middle = slice(len(data) * 2 // 5, len(data) // 2)
    data[middle] = random.Random(3).randbytes(middle.stop - middle.start)
    (tmp_path / f"hurt.{ending}").write_bytes(data)
    assert_missing(decoder(tmp_path / f"hurt.{ending}", how), 2, of=20, at_most=lost)


@both_ways
@pytest.mark.parametrize("ending", ["mp3", "aac", "ac3", "ts"])
def test_sample_rate_that_changes_half_way_loses_nothing(tmp_path: Path, ending: str, how: str) -> None:
    path = tmp_path / f"x.{ending}"
    path.write_bytes(two_in_a_row(tmp_path, ending, *(["-c:a", "aac"] if ending == "ts" else [])))
    pcm = heard(decoder(path, how))
    assert len(pcm) == pytest.approx(6 * RATE, abs=RATE // 4)
    assert pitch(pcm[: 2 * RATE]) == pytest.approx(440, abs=2)
    assert pitch(pcm[-2 * RATE :]) == pytest.approx(880, abs=2)


@both_ways
def test_change_that_ffmpeg_cannot_follow_is_told(tmp_path: Path, how: str) -> None:
    """Radio is recorded so: a stream in Ogg behind the other, of whatever rate."""
    (tmp_path / "x.ogg").write_bytes(two_in_a_row(tmp_path, "ogg", "-c:a", "libvorbis"))
    blocks: list[Pcm] = []
    with pytest.raises(DecodeError, match=r"all behind 3\.00 s could not be decoded: .*change is not supp") as caught:
        blocks.extend(decoder(tmp_path / "x.ogg", how).blocks())
    assert caught.value.kind == "audio_missing"
    assert sum(map(len, blocks)) == pytest.approx(3 * RATE, abs=RATE // 4)


@both_ways
def test_codec_that_changes_is_told(tmp_path: Path, how: str) -> None:
    """ffmpeg stops there, and tells the length of the first stream as that of the file."""
    first = make(tmp_path / "a.ogg", "-c:a", "libvorbis", tone="sine=440:d=3")
    second = make(tmp_path / "b.ogg", "-c:a", "libopus", tone="sine=880:d=5")
    (tmp_path / "x.ogg").write_bytes(first.read_bytes() + second.read_bytes())
    blocks: list[Pcm] = []
    with pytest.raises(DecodeError, match=r"all behind 3\.00 s could not be decoded") as caught:
        blocks.extend(decoder(tmp_path / "x.ogg", how).blocks())
    assert caught.value.kind == "audio_missing"
    assert sum(map(len, blocks)) == pytest.approx(3 * RATE, abs=RATE // 4)


def two_in_a_row(folder: Path, ending: str, *output: str) -> bytes:
    """Return a file of three seconds, and one of another rate behind it."""
    rates = {"48000": "sine=440:d=3:r=48000", "32000": "sine=880:d=3:r=32000"}
    made = [make(folder / f"{rate}.{ending}", *output, "-ar", rate, tone=tone) for rate, tone in rates.items()]
    return b"".join(path.read_bytes() for path in made)


def test_mp3_behind_a_large_picture_still_tells_its_length(tmp_path: Path) -> None:
    sound = make(tmp_path / "x.mp3", tone="sine=440:d=10").read_bytes()
    frames = sound[headers.tag_size(sound) :]
    size = 300_000
    tag = b"ID3\x04\x00\x00" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + bytes(size)
    (tmp_path / "half.mp3").write_bytes(tag + frames[: len(frames) // 2])
    assert_missing(decoder(tmp_path / "half.mp3", "stream"), 5, of=10)


def test_rf64_and_wav_without_a_length_are_read_to_their_end(tmp_path: Path) -> None:
    whole = make(tmp_path / "x.wav", "-rf64", "always", tone="sine=440:d=10")
    assert headers.counted_s(whole.read_bytes()) == pytest.approx(10)
    data = bytearray(make(tmp_path / "y.wav", tone="sine=440:d=10").read_bytes())
    size = data.index(b"data") + 4
    for unknown in (0, 0x7FFF_FFFF, 0xFFFF_FFFF):
        data[size : size + 4] = unknown.to_bytes(4, "little")
        (tmp_path / "y.wav").write_bytes(data)
        assert len(heard(decoder(tmp_path / "y.wav"))) == 10 * RATE


@pytest.mark.parametrize("kind", ["caf", "wav"])
def test_what_was_written_to_a_pipe_has_no_length_and_misses_nothing(tmp_path: Path, kind: str) -> None:
    command = [find_ffmpeg(), "-v", "error", "-f", "lavfi", "-i", "sine=440:d=10:r=16000", "-c:a"]
    command += ["pcm_s16be" if kind == "caf" else "pcm_s16le", "-f", kind, "pipe:1"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    assert headers.counted_s(data) is None
    (tmp_path / f"x.{kind}").write_bytes(data)
    assert len(heard(decoder(tmp_path / f"x.{kind}", "stream"))) == 10 * RATE


@pytest.mark.parametrize("size", [0, 3, 9, 200, 4000])
def test_no_count_is_found_in_what_tells_none(size: int) -> None:
    assert headers.counted_s(random.Random(size).randbytes(size)) is None


def test_recording_without_end_is_cut_at_the_limit(tmp_path: Path) -> None:
    found = decoder(make(tmp_path / "x.flac", tone="anullsrc=d=600:r=16000"), max_hours=0.1)
    blocks: list[Pcm] = []
    with pytest.raises(DecodeError) as caught:
        blocks.extend(found.blocks())
    assert caught.value.kind == "too_long"
    assert sum(map(len, blocks)) == 360 * RATE


class Endless(io.RawIOBase):
    """What begins as a file and goes on with zeros for ever."""

    def __init__(self, head: bytes) -> None:
        self.given = 0
        self._head = head

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        time.sleep(0)  # whoever reads for ever must at least be heard of
        data = self._head[self.given : self.given + size] or bytes(size)
        self.given += len(data)
        return data


def test_stream_without_end_and_audio_is_left_after_so_many_bytes(tmp_path: Path) -> None:
    head = make(tmp_path / "x.ogg", "-c:a", "libvorbis").read_bytes()[:5000]  # its zeros are searched for a next page
    endless = Endless(head)
    blocks: list[Pcm] = []
    with pytest.raises(DecodeError) as caught:
        blocks.extend(Decoder(lambda: endless, options=DecodeOptions(max_hours=0.002)).blocks())
    assert caught.value.kind == "too_large"
    assert 25e6 < endless.given < 40e6


def test_files_without_end_do_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index_is_missing = b"\0\0\0\x10ftypM4A \0\0\0\0" + b"\0\0\0\1mdat" + (1 << 60).to_bytes(8, "big")
    endless = [Endless(index_is_missing) for _ in range(3)]  # at once
    disk, usage = 40_000_000, shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=disk - sum(one.given for one in endless)))

    def failure(one: Endless) -> DecodeError:
        with pytest.raises(DecodeError) as caught:
            heard(Decoder(lambda: one))
        return caught.value

    with ThreadPoolExecutor(len(endless)) as pool:
        failures = list(pool.map(failure, endless))
    assert {one.kind for one in failures} == {"too_large"}
    assert all("TMPDIR" in str(one) and one.retryable for one in failures)
    assert sum(one.given for one in endless) < disk


@pytest.mark.skipif(sys.platform != "linux", reason="limits of another process")
def test_ffmpeg_works_under_limits(tmp_path: Path) -> None:
    import resource

    blocks = decoder(make(tmp_path / "x.wav", tone="sine=440:d=600"), block_s=1).blocks()
    next(blocks)
    (ffmpeg,) = psutil.Process().children()
    limits = {kind: ffmpeg.rlimit(kind) for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_AS)}
    blocks.close()  # type: ignore[attr-defined]
    assert limits == {
        resource.RLIMIT_FSIZE: (0, 0), resource.RLIMIT_CORE: (0, 0), resource.RLIMIT_AS: (MEMORY, MEMORY)
    }  # fmt: skip


def test_an_absent_file_is_an_open_error(tmp_path: Path) -> None:
    with pytest.raises(OpenError) as caught:
        heard(decoder(tmp_path / "no.wav"))
    assert caught.value.kind == "not_found"


@pytest.mark.parametrize("name", ["-i.wav", "a\nb.wav", 'it\'s "$x" `y`.wav', "100%d [a]*?.wav", "http:x.wav", " x "])
def test_odd_names(tmp_path: Path, name: str) -> None:
    assert len(heard(decoder(write_wav(tmp_path / name, [tone(440)])))) == 2 * RATE


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9.wav")))
    uri = storage.canonical(str(write_wav(path, [tone(440)])))
    assert len(heard(Decoder(lambda: storage.open_audio(uri), storage.local_path(uri)))) == 2 * RATE


def test_plain_ffmpeg_follows_a_script_that_is_named_wav(tmp_path: Path) -> None:
    """The danger that the next test is about is real."""
    script = concat_script(tmp_path)
    command = [find_ffmpeg(), "-v", "error", "-nostdin", "-i", f"file:{script}", "-f", "s16le", "pipe:1"]
    assert len(subprocess.run(command, capture_output=True, check=True).stdout) > 10_000


def concat_script(folder: Path) -> Path:
    write_wav(folder / "private.wav", [tone(440)])
    (folder / "script.wav").write_text("ffconcat version 1.0\nfile private.wav\n")
    return folder / "script.wav"


def playlist(folder: Path) -> Path:
    make(folder / "private.ts", "-c:a", "aac", "-f", "mpegts")
    text = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nprivate.ts\n#EXT-X-ENDLIST\n"
    (folder / "list.mp3").write_text(text)
    return folder / "list.mp3"


def session(folder: Path) -> Path:
    (folder / "call.wav").write_text("v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n")
    return folder / "call.wav"


@both_ways
@pytest.mark.parametrize("hostile", [concat_script, playlist, session])
def test_scripts_and_playlists_are_refused(tmp_path: Path, hostile: object, how: str) -> None:
    assert callable(hostile)
    with pytest.raises(DecodeError) as caught:
        heard(decoder(hostile(tmp_path), how))
    assert caught.value.kind == "not_audio"


# --- the process ----------------------------------------------------------------------------------------------------


def test_ffmpeg_that_waits_for_ever_is_ended(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never.wav")  # opening it blocks until someone writes
    stuck = Decoder(lambda: io.BytesIO(b"x"), str(tmp_path / "never.wav"), DecodeOptions(stall_s=0.5))
    started = time.monotonic()
    with pytest.raises(DecodeError) as caught:
        heard(stuck)
    assert caught.value.kind == "stuck"
    assert 0.5 <= time.monotonic() - started < 3


@pytest.mark.parametrize("ending", ["wav", "m4a"])
def test_a_store_that_stops_giving_is_an_open_error(tmp_path: Path, ending: str) -> None:
    data = make(tmp_path / f"x.{ending}").read_bytes()
    reading, writing = os.pipe()
    os.write(writing, data[:5000])
    with pytest.raises(OpenError) as caught:
        heard(Decoder(lambda: os.fdopen(reading, "rb", buffering=0), options=DecodeOptions(stall_s=0.5)))
    os.close(writing)
    assert (caught.value.kind, caught.value.retryable) == ("unavailable", True)


def test_a_slow_store_is_not_stuck(tmp_path: Path) -> None:
    data = write_wav(tmp_path / "x.wav", [tone(440)]).read_bytes()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            time.sleep(0.4)  # far less than what is stuck, in all far more
            return super().read(8_000)

    assert len(heard(Decoder(lambda: Slow(data), options=DecodeOptions(stall_s=2)))) == 2 * RATE


def test_a_slow_reader_of_the_audio_is_not_stuck(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "x.wav", [tone(440, 30)])
    count = 0
    for block in decoder(path, "stream", stall_s=1, block_s=10).blocks():
        time.sleep(1.3)
        count += len(block)
    assert count == 30 * RATE


@both_ways
def test_closing_early_ends_everything(tmp_path: Path, how: str) -> None:
    blocks = decoder(write_wav(tmp_path / "x.wav", [tone(440, 120)]), how, block_s=1).blocks()
    next(blocks)
    assert len(psutil.Process().children()) == 1
    blocks.close()  # the fixture looks after the rest


def test_a_long_file_takes_no_more_memory_than_a_block(tmp_path: Path) -> None:
    path = make(tmp_path / "long.flac", "-t", "1200", tone="anullsrc=r=16000:cl=mono")
    tracemalloc.start()
    count = sum(len(block) for block in decoder(path, "stream").blocks())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 1200 * RATE
    assert peak < 4_000_000  # of 38 MB


def test_ffmpeg_that_dies_is_an_error_after_its_audio(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "x.wav", [tone(440, 600)])
    kept: list[Pcm] = []

    def listen() -> None:
        for block in decoder(path, block_s=1).blocks():
            if not kept:
                psutil.Process().children()[0].kill()
            kept.append(block)

    with pytest.raises(DataError, match="SIGKILL") as caught:
        listen()
    assert (caught.value.kind, caught.value.retryable) == ("decode_failed", True)
    assert kept


def test_the_named_ffmpeg_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULKSCRIBE_FFMPEG", "/no/such/ffmpeg")
    with pytest.raises(UserError) as caught:
        find_ffmpeg()
    assert caught.value.hint


def test_an_ffmpeg_on_the_path_comes_before_the_bundled_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BULKSCRIBE_FFMPEG", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "imageio_ffmpeg" in find_ffmpeg()
    (tmp_path / "ffmpeg").symlink_to("/bin/sh")
    assert find_ffmpeg() == str(tmp_path / "ffmpeg")


# --- stretches ------------------------------------------------------------------------------------------------------

LONG = "anoisesrc=d=36:a=0.3:r=44100:seed=7"
AT, UNTIL = 31.123, 34.5  # far enough in to be sought
STRETCHED = {name: FORMATS[name] for name in FORMATS if name not in ("m4b", "oga", "aac")} | {
    "mp2": ["-c:a", "mp2"],
    "ts": ["-c:a", "aac", "-f", "mpegts"],
    "w64": [],
    "ac3": ["-c:a", "ac3"],
    "vbr.mp3": ["-c:a", "libmp3lame", "-q:a", "5", "-write_xing", "0"],
    "adpcm.wav": ["-c:a", "adpcm_ms"],
    "aac": ["-c:a", "aac", "-f", "adts"],
}


def stretch(path: Path, start: float, end: float | None, how: str = "path") -> Decoder:
    samples = (round(start * RATE), None if end is None else round(end * RATE))
    local = str(path) if how == "path" else None
    return Decoder(lambda: storage.open_audio(str(path)), local, stretch=samples)


def lag(whole: Pcm, part: Pcm, at: int, around: int = 4000) -> int:
    """Return by how many samples `part` comes late, where `whole` has it at `at`."""
    size = 1 << (len(part) + 2 * around).bit_length()
    wide = np.fft.rfft(whole[at - around : at + len(part) + around].astype(float), size)
    return int(np.fft.irfft(wide * np.conj(np.fft.rfft(part.astype(float), size)))[: 2 * around].argmax()) - around


@pytest.mark.parametrize(
    ("ending", "how"),
    [
        *((ending, "path") for ending in ("mp3", "m4a", "ogg")),
        *(pytest.param(ending, how, marks=pytest.mark.slow) for ending in STRETCHED for how in ("path", "stream")),
    ],
)
def test_a_stretch_is_that_of_the_whole_to_the_millisecond(tmp_path: Path, ending: str, how: str) -> None:
    path = make(tmp_path / f"x.{ending}", *STRETCHED[ending], tone=LONG)
    part = heard(stretch(path, AT, UNTIL, how))
    assert abs(len(part) - round((UNTIL - AT) * RATE)) <= 1
    assert abs(lag(heard(decoder(path)), part, round(AT * RATE))) <= 0.002 * RATE


def test_a_stretch_of_one_sample_format_is_exact(tmp_path: Path) -> None:
    pcm = np.random.default_rng(1).integers(-32768, 32768, 50 * RATE).astype(np.int16)
    path = write_wav(tmp_path / "x.wav", [pcm])
    for start, end in ((0.0, 1.5), (2.25, 2.5), (29.99, 31.0), (30.0, 31.0), (45.0001, None)):
        wanted = pcm[round(start * RATE) : None if end is None else round(end * RATE)]
        for how in ("path", "stream"):
            assert np.array_equal(heard(stretch(path, start, end, how)), wanted), (start, how)


def test_far_in_the_audio_before_a_stretch_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "x.mp3", tone=LONG)
    commands: list[list[str]] = []
    running = decode.running

    def seen(command: list[str], feeder: object) -> object:
        commands.append(command)
        return running(command, feeder)  # type: ignore[arg-type]

    monkeypatch.setattr(decode, "running", seen)
    heard(stretch(path, AT, UNTIL))
    assert "-ss" in commands[-1]


def test_speech_beside_pictures_is_not_sought_but_exact(tmp_path: Path) -> None:
    picture = ("-f", "lavfi", "-i", "testsrc=d=36:s=64x48:r=5")
    output = ("-c:v", "mpeg4", "-c:a", "aac", "-map", "1:v", "-map", "0:a", "-af", "adelay=0")
    path = make(tmp_path / "x.mp4", *output, tone=LONG, more=picture)
    part = heard(stretch(path, AT, UNTIL))
    assert lag(heard(decoder(path)), part, round(AT * RATE)) == 0


@both_ways
@pytest.mark.parametrize("ending", ["mp3", "flac"])
@pytest.mark.parametrize(("start", "end", "comes"), [(5.0, 8.0, 3.0), (17.0, 40.0, 3.0), (19.0, None, 1.0)])
def test_a_stretch_misses_nothing_of_a_whole_file(
    tmp_path: Path, ending: str, how: str, start: float, end: float | None, comes: float
) -> None:
    path = make(tmp_path / f"x.{ending}", tone="sine=440:d=20")
    assert len(heard(stretch(path, start, end, how))) / RATE == pytest.approx(comes, abs=0.1)


@both_ways
def test_a_stretch_tells_what_is_missing_of_it_and_no_more(tmp_path: Path, how: str) -> None:
    data = make(tmp_path / "x.wav", tone="sine=440:d=40").read_bytes()
    (tmp_path / "half.wav").write_bytes(data[: len(data) // 2])
    path = tmp_path / "half.wav"
    assert len(heard(stretch(path, 5, 15, how))) == 10 * RATE
    assert_missing(stretch(path, 15, 30, how), 10, of=15)
    assert_missing(stretch(path, 15, None, how), 20, of=25)


@both_ways
def test_a_stretch_behind_the_end_is_empty_and_says_so(tmp_path: Path, how: str) -> None:
    path = make(tmp_path / "x.flac")
    with pytest.raises(DecodeError, match="it ends before 90 s") as caught:
        heard(stretch(path, 90, 100, how))
    assert caught.value.kind == "empty"


@pytest.mark.parametrize("selection", [Selection(), Selection(0, 1), Selection(2), Selection(1, 0)])
def test_a_selection_is_found_by_its_name(selection: Selection) -> None:
    assert Selection.of(selection.name) == selection
