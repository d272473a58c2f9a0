"""Subtitle files as they come: tags, entities, dashes, byte-order marks, automatic captions, and what is none."""

from __future__ import annotations

import pytest

from pipeline.cues import Cue, parse, plain
from pipeline.subtitles import SubtitleOptions, srt, vtt

SRT = """1
00:00:01,000 --> 00:00:03,500
- Hello <i>there</i>.
- And you &amp; me.

2
00:01:00,250 --> 00:01:02,000
{\\an8}Far in.
"""
AUTOMATIC = """WEBVTT
Kind: captions

00:00:01.000 --> 00:00:03.500 align:start position:0%
so<00:00:01.500><c> it</c><00:00:02.000><c> is</c>
"""


def test_a_srt_gives_its_text_with_times() -> None:
    found = parse(SRT, ".srt")
    assert found.cues == (Cue(1.0, 3.5, "Hello there. And you & me."), Cue(60.25, 62.0, "Far in."))
    assert not found.automatic


def test_automatic_captions_are_known_by_the_times_of_their_words() -> None:
    found = parse(AUTOMATIC, ".vtt")
    assert found.automatic
    assert found.cues == (Cue(1.0, 3.5, "so it is"),)


@pytest.mark.parametrize(("write", "ending"), [(srt, ".srt"), (vtt, ".vtt")])
def test_what_export_writes_is_read_back(write: object, ending: str) -> None:
    rows = [
        {"start": 0.5, "end": 2.0, "text": "Good <evening> & welcome."},
        {"start": 2.0, "end": 4.25, "text": "好。"},
    ]
    found = parse(write(rows, SubtitleOptions()), ending)  # type: ignore[operator]
    if ending == ".vtt":  # a .srt has no way to write these signs
        assert [cue.text for cue in found.cues] == ["Good <evening> & welcome.", "好。"]
    assert [(cue.start, cue.end) for cue in found.cues] == [(0.5, 2.0), (2.0, 4.25)]


def test_cues_are_in_time_and_none_is_empty() -> None:
    late_first = "1\n00:00:05,000 --> 00:00:06,000\nB\n\n2\n00:00:01,000 --> 00:00:02,000\nA\n\n3\n00:00:07,000 --> "
    found = parse(late_first + "00:00:08,000\n<i></i>\n", ".srt")
    assert [cue.text for cue in found.cues] == ["A", "B"]


def test_what_has_no_times_is_no_subtitle_file() -> None:
    with pytest.raises(ValueError, match="no times"):
        parse("Just a text.", ".srt")


def test_an_empty_file_has_no_cues() -> None:
    assert parse("", ".srt").cues == parse("WEBVTT\n", ".vtt").cues == ()


def test_dashes_inside_words_stay() -> None:
    assert plain("- Well-known\n>> yes - no") == "Well-known yes - no"
