"""Lines, times and formats of subtitles."""

from __future__ import annotations

import itertools
import json
import random
import unicodedata
from typing import Any

import pytest

from pipeline.subtitles import FORMATS, Cue, SubtitleOptions, as_json, cues, srt, vtt

OPTIONS = SubtitleOptions()
SENTENCE = (
    "Like a normal PBX, you will navigate this demonstration by dialing digits. If you are using a console channel "
    "driver instead of a real phone, you can use the dial, answer, and hang up commands."
)
CHINESE = (
    "这是一个非常长的句子，里面没有任何空格，我们需要把它分成几行。模型在去年发布，可以识别「多种」语言，效果很好。"
)


def row(text: str, start: float = 0.0, end: float = 10.0) -> dict[str, Any]:
    return {"start": start, "end": end, "text": text}


def shown(text: str, options: SubtitleOptions = OPTIONS) -> list[tuple[str, ...]]:
    return [cue.lines for cue in cues([row(text)], options)]


def test_short_text_is_one_line() -> None:
    assert shown("Weasels have eaten our phone system.") == [("Weasels have eaten our phone system.",)]


def test_long_text_keeps_lines_subtitles_and_words_whole() -> None:
    blocks = shown(SENTENCE)
    assert all(len(line) <= 42 for block in blocks for line in block)
    assert all(len(block) <= 2 for block in blocks)
    assert " ".join(line for block in blocks for line in block) == SENTENCE


def test_as_few_subtitles_as_can_be() -> None:
    assert len(shown(SENTENCE)) == 3  # 193 characters, 84 a subtitle


def test_lines_are_of_even_length() -> None:
    (lines,) = shown("The number you have dialed is not in service now.")
    assert abs(len(lines[0]) - len(lines[1])) <= 8


def test_subtitles_end_with_sentences_where_they_can() -> None:
    first, *_ = shown("Congratulations! You have successfully installed and executed the Asterisk open source PBX.")
    assert first == ("Congratulations!",)


def test_options_are_obeyed() -> None:
    blocks = shown(SENTENCE, SubtitleOptions(max_line_chars=20, max_lines=3))
    assert all(len(line) <= 20 for block in blocks for line in block)
    assert max(map(len, blocks)) == 3


def test_word_longer_than_a_line_stands_alone_and_whole() -> None:
    url = "https://example.org/" + "path/" * 10
    lines = [line for block in shown(f"See {url} for more about it") for line in block]
    assert url in lines


@pytest.mark.parametrize(
    "text",
    [
        CHINESE,
        "コンピューターのデータベースをチェックしてください。ちょっとまって、きゃりーぱみゅぱみゅ。" * 3,
        "ประเทศไทยมีประชากรมากกว่าหกสิบล้านคนและมีภาษาไทยเป็นภาษาราชการซึ่งเขียนโดยไม่มีช่องว่าง" * 2,
        "ພາສາລາວເປັນພາສາທີ່ໃຊ້ໃນປະເທດລາວແລະມີຜູ້ເວົ້າຫຼາຍລ້ານຄົນໃນໂລກນີ້" * 2,
        "မြန်မာဘာသာစကားသည်မြန်မာနိုင်ငံ၏ရုံးသုံးဘာသာစကားဖြစ်သည်။" * 3,
        "ភាសាខ្មែរគឺជាភាសាផ្លូវការរបស់ព្រះរាជាណាចក្រកម្ពុជា។" * 3,
    ],
    ids=["zh", "ja", "th", "lo", "my", "km"],
)
def test_scripts_without_spaces_break_between_characters(text: str) -> None:
    blocks = shown(text)
    lines = [line for block in blocks for line in block]
    assert len(blocks) > 1
    assert "".join(lines) == text
    assert all(len(line) <= 42 for line in lines)
    for line in lines:
        assert not unicodedata.category(line[0]).startswith("M"), "a mark was cut from its letter"
        assert line[0] not in "。、，！？」』）ゃゅょっー"
        assert line[-1] not in "「『（เแโใไ\u1039\u17d2"


def test_full_width_characters_count_twice() -> None:
    assert max(len(line) for block in shown(CHINESE) for line in block) <= 21


def test_latin_words_inside_chinese_stay_whole() -> None:
    text = "我们使用" * 4 + "OpenAI" + "的模型" * 4 + "Whisper" + "进行识别" * 4
    lines = [line for block in shown(text) for line in block]
    assert sum("OpenAI" in line for line in lines) == 1
    assert sum("Whisper" in line for line in lines) == 1


def test_katakana_words_stay_whole() -> None:
    lines = [line for block in shown("これはとてもながい" + "データベース" + "のなまえです" * 3) for line in block]
    assert sum("データベース" in line for line in lines) == 1


def test_combined_emoji_stay_whole() -> None:
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    text = "家族" * 9 + family + "家族" * 9
    assert sum(family in line for block in shown(text) for line in block) == 1


def test_newlines_and_control_characters_become_spaces() -> None:
    assert shown(" two\r\nlines\x00and\ta tab ") == [("two lines and a tab",)]


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_empty_segments_are_left_out(text: str) -> None:
    rows = [row(text), row("Something.", 10, 12)]
    assert [cue.lines for cue in cues(rows, OPTIONS)] == [("Something.",)]


def test_time_is_shared_out_by_characters() -> None:
    first, second, third = cues([row("a" * 42 + " " + "b" * 42 + " " + "c" * 42, 10.0, 22.6)], SubtitleOptions(42, 1))
    assert [first, second, third] == [
        Cue(10_000, 14_200, ("a" * 42,)),
        Cue(14_200, 18_400, ("b" * 42,)),
        Cue(18_400, 22_600, ("c" * 42,)),
    ]


def test_overlapping_segments_are_cut_where_the_next_begins() -> None:
    first, second = cues([row("First.", 0.0, 9.0), row("Second.", 4.0, 6.0)], OPTIONS)
    assert (first.end, second.start, second.end) == (4_000, 4_000, 6_000)


def test_no_subtitle_overlaps_another_whatever_the_times_are() -> None:
    chance = random.Random(0)
    for _ in range(300):
        rows = [
            row("word " * chance.randint(1, 60), chance.uniform(-2, 20), chance.uniform(-2, 20))
            for _ in range(chance.randint(1, 8))
        ]
        made = list(cues(rows, OPTIONS))
        assert all(0 <= cue.start < cue.end for cue in made)
        assert all(before.end <= after.start for before, after in itertools.pairwise(made))
        assert sum(line.count("word") for cue in made for line in cue.lines) == sum(
            r["text"].count("word") for r in rows
        )


def test_srt_text() -> None:
    assert srt([row("Hello.", 1.5, 2.25), row("Again.", 3661.001, 3662)], OPTIONS) == (
        "1\n00:00:01,500 --> 00:00:02,250\nHello.\n\n2\n01:01:01,001 --> 01:01:02,000\nAgain.\n"
    )


def test_hours_beyond_99() -> None:
    assert "123:00:00.000 --> 123:00:01.000" in vtt([row("Late.", 123 * 3600, 123 * 3600 + 1)], OPTIONS)


def test_vtt_escapes_markup_and_arrows() -> None:
    text = vtt([row("AT&T <b> --> here")], OPTIONS)
    assert text == "WEBVTT\n\n00:00:00.000 --> 00:00:10.000\nAT&amp;T &lt;b&gt; --&gt; here\n"


def test_json_keeps_all_columns_and_has_no_nan() -> None:
    full = row("é") | {"language": "fr", "avg_logprob": float("nan"), "attempts": [{"temperature": 0.0}], "flags": []}
    (read,) = json.loads(as_json([full], OPTIONS))
    assert read == full | {"avg_logprob": None}


@pytest.mark.parametrize(("kind", "empty"), [("srt", ""), ("vtt", "WEBVTT\n"), ("json", "[]\n")])
def test_recording_without_segments(kind: str, empty: str) -> None:
    assert FORMATS[kind]([], OPTIONS) == empty
