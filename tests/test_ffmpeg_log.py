"""The wording of ffmpeg, as recorded from versions 4.2, 5.1 and 9."""

from __future__ import annotations

import pytest

from pipeline.ffmpeg_log import FfmpegLog
from pipeline.types import Media

FLAC_42 = """\
[warning] Guessed Channel Layout for Input Stream #0.0 : mono
[info] Input #0, matroska,webm, from 'file:two_audio_tracks.mkv':
[info]   Metadata:
[info]     title           : Stream #0:7: Audio: mp3, 1 Hz, mono
[info]   Duration: 01:02:03.33, start: -0.002000, bitrate: 49 kb/s
[info]     Stream #0:0(eng): Video: h264 (High) (avc1 / 0x31637661), yuv420p, 160x120
[info]     Stream #0:1(eng): Audio: opus, 48000 Hz, 5.1(side), fltp (default)
[info]     Stream #0:2: Audio: pcm_s16le ([1][0][0][0] / 0x0001), 16000 Hz, 9 channels, s16, 2304 kb/s
[info] Stream mapping:
[info]   Stream #0:0 -> #0:0 (opus (native) -> pcm_s16le (native))
[info] Output #0, s16le, to 'pipe:1':
[info]     Stream #0:0: Audio: pcm_s16le, 16000 Hz, mono, s16, 256 kb/s (default)
"""
M4A_51 = """\
[info] Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'pipe:0':
[info]   Duration: N/A, start: 0.000000, bitrate: N/A
[info]   Stream #0:0[0x1](und): Audio: aac (LC) (mp4a / 0x6134706D), 44100 Hz, stereo, fltp, 69 kb/s (default)
"""
WAV_9 = """\
[in#0 @ 0x55d85227e0c0] [warning] Cannot check for SPDIF
[aist#0:0/pcm_s16le @ 0x55d852281540] [warning] Guessed Channel Layout: mono
[info] Input #0, wav, from 'file:line1
line2.wav':
[info]   Duration: 00:00:02.91, bitrate: 256 kb/s
[info]   Stream #0:0: Audio: pcm_s16le ([1][0][0][0] / 0x0001), 16000 Hz, mono, s16, 256 kb/s, start 0.005
"""

CUT = """\
[info] Input #0, {container}, from 'file:x':
[info]   Duration: 00:01:50.01, start: 100.013000, bitrate: 7 kb/s
[info]   Stream #0:0: Audio: {codec}, 48000 Hz, mono, fltp (start 100.01)
"""


def log_of(text: str, url: str = "file:x", piece: int = 7) -> FfmpegLog:
    log = FfmpegLog(url)
    data = text.encode()
    for start in range(0, len(data), piece):
        log.feed(data[start : start + piece])
    log.feed(b"")
    return log


@pytest.mark.parametrize(
    ("text", "media"),
    [
        (FLAC_42, Media("matroska,webm", "opus", 48000, 6, 2, 3723.33)),
        (M4A_51, Media("mov,mp4,m4a,3gp,3g2,mj2", "aac", 44100, 2, 1, None)),
        (WAV_9, Media("wav", "pcm_s16le", 16000, 1, 1, 2.91)),
        ("", Media()),
    ],
)
def test_headers_of_old_and_new_ffmpeg(text: str, media: Media) -> None:
    assert log_of(text).media == media


@pytest.mark.parametrize(
    ("layout", "channels"),
    [
        ("mono", 1),
        ("stereo", 2),
        ("2.1", 3),
        ("quad(side)", 4),
        ("5.1(side)", 6),
        ("7.1.4", 12),
        ("22.2", 24),
        ("hexadecagonal", 16),
        ("11 channels", 11),
        ("3 channels (FL+FR+LFE)", 3),
        ("ambisonic 2", 9),
        ("strange", None),
    ],
)
def test_channels_are_counted_from_the_layouts_name(layout: str, channels: int | None) -> None:
    text = f"[info] Input #0, wav, from 'x':\n[info]   Stream #0:0: Audio: flac, 48000 Hz, {layout}, s16\n"
    assert log_of(text).media.channels == channels


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[mov,mp4,m4a,3gp,3g2,mj2 @ 0x42d03640] [error] moov atom not found\n"
            "[error] file:/secret/path/a.m4a: Invalid data found when processing input\n",
            "moov atom not found; Invalid data found when processing input",
        ),
        (
            "[in#0 @ 0x561bc87080c0] [error] moov atom not found\n"
            "[in#0 @ 0x561bc8707d80] [error] Error opening input: Invalid data found when processing input\n"
            "[error] Error opening input file file:/secret/path/a.m4a.\n"
            "[fatal] Error opening input files: Invalid data found when processing input\n",
            "moov atom not found; Invalid data found when processing input",
        ),
        (
            "[pcm_s16le @ 0x55cb82a0d540] [error] Decoder requires channel layout to be set\n"
            "    Last message repeated 1 times\n"
            "[aist#0:0/pcm_s16le @ 0x55cb82a36b40] [dec:pcm_s16le @ 0x55cb82a39880] [error] "
            "Error while opening decoder: Invalid argument\n"
            "[error] Error opening output file pipe:1.\n"
            "[fatal] Error opening output files: Invalid argument\n",
            "Decoder requires channel layout to be set; Error while opening decoder: Invalid argument",
        ),
        ("[png_pipe @ 0x42361580] [error] Format not on whitelist 'mp3,wav'\n", "no container of audio or video"),
        ("[info] nothing wrong\n[warning] at all\n", ""),
    ],
)
def test_errors_come_without_paths_addresses_and_echoes(text: str, words: str) -> None:
    assert log_of(text, "file:/secret/path/a.m4a").words == words


def test_a_path_with_a_newline_is_taken_out_too() -> None:
    url = "file:/a\nb.m4a"
    assert log_of(f"[error] {url}: Invalid data found\n", url).words == "Invalid data found"


def test_a_path_that_is_not_utf8_is_taken_out_too() -> None:
    log = FfmpegLog("file:/caf\udce9.m4a")
    log.feed(b"[error] file:/caf\xe9.m4a: Invalid data found: \xe9\n")
    log.feed(b"")
    assert log.words == "Invalid data found: ?"


def test_endless_errors_keep_the_first_and_the_last() -> None:
    log = FfmpegLog("file:x")
    for number in range(100_000):
        log.feed(b"[mp3 @ 0x1] [error] Header missing at %d\n" % number)
    log.feed(b"")
    assert log.words.split("; ") == [f"Header missing at {number}" for number in (0, 1, 99_998, 99_999)]


def test_an_endless_line_takes_no_memory() -> None:
    log = FfmpegLog("file:x")
    for _ in range(1000):
        log.feed(b"x" * 10_000)
    assert len(log._rest) + len(log._entry) < 100_000


@pytest.mark.parametrize(
    ("container", "codec", "length_s"),
    [
        ("matroska,webm", "vorbis", 9.997),
        ("ogg", "opus", 9.997),
        ("ogg", "vorbis", 110.01),
        ("mov,mp4,m4a,3gp,3g2,mj2", "aac", 110.01),
    ],
)
def test_length_of_what_begins_late(container: str, codec: str, length_s: float) -> None:
    assert log_of(CUT.format(container=container, codec=codec)).media.stated_s == pytest.approx(length_s)
