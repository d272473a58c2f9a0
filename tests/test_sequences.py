"""Examples for training as Whisper's paper makes them, and their tokens as two tokenizers read them."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
import reference

from pipeline import sequences
from pipeline.cues import Cue
from pipeline.examples import ExampleOptions, examples
from pipeline.sequences import Line
from pipeline.transcripts import Transcribed
from pipeline.whisper.locate import locate
from pipeline.whisper.tokens import Tokens

ALL = ExampleOptions(no_speech=1.0, prompts=1.0)
TEXT = "one two three four five"


def pair(**changes: Any) -> dict[str, Any]:
    return {"recording_id": "0a", "text": "", "language": "en", "task": "transcribe", "source": "radio"} | changes


def spoken(duration: float, *segments: tuple[float, float, str], start: float = 0.0) -> Transcribed:
    rows = tuple({"start": begin, "end": end, "text": text} for begin, end, text in segments)
    return Transcribed({"start_s": start, "duration_s": duration}, rows)


def of_cues(
    duration: float, *cues: tuple[float, float, str], heard: Any = None, **changes: Any
) -> list[dict[str, Any]]:
    one = spoken(duration, *(cues if heard is None else heard))
    return examples(pair(**changes), [Cue(*cue) for cue in cues], one, ALL, 0.9)


def test_a_line_that_does_not_fit_gives_its_start_and_begins_the_next_example() -> None:
    first, second = of_cues(40.0, (1.0, 9.0, "One two."), (10.0, 24.0, "Three four."), (28.4, 33.0, "Five six."))
    assert (first["start"], first["end"]) == (0.0, 30.0)
    assert first["sequence"] == (
        "<|startoftranscript|><|en|><|transcribe|><|1.00|> One two.<|9.00|>"
        "<|10.00|> Three four.<|24.00|><|28.40|><|endoftext|>"
    )
    assert (second["start"], second["end"]) == (28.4, 40.0)
    assert second["sequence"] == (
        "<|startofprev|> One two. Three four."
        "<|startoftranscript|><|en|><|transcribe|><|0.00|> Five six.<|4.60|><|endoftext|>"
    )


def test_stretches_lie_side_by_side_and_nothing_is_left_out() -> None:
    cues = [(4.0 * at, 4.0 * at + 3.0, f"{TEXT} {at}.") for at in range(40)]
    rows = of_cues(165.0, *cues)
    for left, right in pairwise(rows):
        assert left["start"] < right["start"] <= left["end"]
    assert (rows[0]["start"], rows[-1]["end"]) == (0.0, 165.0)
    assert all(row["end"] - row["start"] <= 30.0 for row in rows)
    assert " ".join(row["text"] for row in rows) == " ".join(text for *_, text in cues)


def test_audio_without_text_and_speech_is_an_example_of_that() -> None:
    first, second, third = of_cues(90.0, (1.0, 5.0, "One two."), (70.0, 75.0, "Three."))
    assert second["sequence"] == "<|startofprev|> One two.<|startoftranscript|><|nospeech|><|endoftext|>"
    assert (second["no_speech"], second["language"], second["text"]) == (True, None, "")
    assert not first["no_speech"]
    assert not third["no_speech"]


def test_examples_without_speech_are_few() -> None:
    few = ExampleOptions(no_speech=0.1)
    kept = sum(
        not row["reasons"]
        for at in range(100)
        for row in examples(pair(recording_id=f"{at:02x}"), [Cue(0, 1, "Hi.")], spoken(330.0, (0, 1, "Hi.")), few, 0.9)
        if row["no_speech"]
    )
    assert 60 <= kept <= 140  # of 1,000


def test_speech_without_text_is_no_example() -> None:
    heard = [(1.0, 5.0, "one two"), (40.0, 50.0, "somebody speaks here")]
    rows = of_cues(60.0, (1.0, 5.0, "One two."), heard=heard)
    assert [row["reasons"] for row in rows] == [[], ["untold"]]


def test_a_pause_between_lines_is_no_speech_without_text() -> None:
    """Heard segments stretch over pauses; what lies between two lines a second apart is told."""
    lines = [(6.0 * at, 6.0 * at + 4.0, f"{TEXT} {at}.") for at in range(5)]
    (row,) = of_cues(30.0, *lines, heard=[(0.0, 30.0, " ".join(text for *_, text in lines))])
    assert row["reasons"] == []


def test_text_of_something_else_is_no_example() -> None:
    rows = of_cues(20.0, (1.0, 9.0, "A quite different story."), heard=[(1.0, 9.0, "nothing of it is said")])
    assert [row["reasons"] for row in rows] == [["errors"]]


def test_a_line_longer_than_an_example_is_left_out_and_no_example_has_its_audio() -> None:
    rows = of_cues(60.0, (2.0, 5.0, "One two."), (6.0, 45.0, TEXT), (46.0, 50.0, "Three four."))
    assert [(row["start"], row["end"], row["reasons"]) for row in rows] == [
        (0.0, 6.0, []),
        (6.0, 45.0, ["long"]),
        (45.0, 60.0, []),
    ]
    assert rows[2]["prompt"] is None


def test_a_text_without_times_has_those_of_what_was_heard() -> None:
    one = spoken(20.0, (0.5, 4.0, "one two three"), (5.0, 9.0, "four five six"))
    (row,) = examples(pair(text="One, two, three. Four, five, six."), (), one, ALL, 0.9)
    said = "<|0.50|> One, two, three.<|4.00|><|5.00|> Four, five, six.<|9.00|>"
    assert row["sequence"] == f"<|startoftranscript|><|en|><|transcribe|>{said}<|endoftext|>"


@pytest.mark.parametrize(("duration", "reasons"), [(25.0, []), (31.0, ["long"])])
def test_a_translation_without_times_is_whole_or_nothing(duration: float, reasons: list[str]) -> None:
    one = spoken(duration, (0.5, 20.0, "Guten Abend zusammen"))
    (row,) = examples(pair(text="Good evening, all.", language="de", task="translate"), (), one, ALL, 0.9)
    assert row["sequence"] == "<|startoftranscript|><|de|><|translate|><|notimestamps|> Good evening, all.<|endoftext|>"
    assert row["reasons"] == reasons


def test_lines_that_are_shown_together_are_one() -> None:
    (row,) = of_cues(10.0, (1.0, 4.0, "Hello."), (1.0, 4.0, "Hi."), (3.9, 6.0, "Bye."))
    assert "<|1.00|> Hello. Hi.<|4.00|><|4.00|> Bye.<|6.00|>" in row["sequence"]


def test_credits_are_not_said() -> None:
    (row,) = of_cues(
        20.0, (1.0, 4.0, "Hello."), (15.0, 18.0, "Subtitles by the Amara.org community"), heard=[(1, 4, "Hello")]
    )
    assert row["text"] == "Hello."


def test_times_are_those_of_the_file_where_only_a_stretch_is_wanted() -> None:
    one = spoken(10.0, (101.0, 104.0, "one two"), start=100.0)
    (row,) = examples(pair(), [Cue(101.0, 104.0, "One two.")], one, ALL, 0.9)
    assert (row["start"], row["end"]) == (100.0, 110.0)
    assert "<|1.00|> One two.<|4.00|>" in row["sequence"]


def test_tokens_in_a_text_stay_text() -> None:
    assert sequences.spaced("a <|endoftext|> b") == " a < |endoftext|> b"


# --- as tokenizers read them ----------------------------------------------------------------------------------------

SEQUENCES = [
    sequences.transcript(
        [Line(0.0, 2.4, "Hello, world."), Line(2.4, 29.98, "It's 5 p.m."), Line(30.0, None, "")],
        "en",
        "transcribe",
        "Before.",
    ),
    sequences.transcript([Line(0.02, 7.12, "你好，世界。")], "zh", "transcribe"),
    sequences.untimed("Good evening.", "de", "translate"),
    sequences.nobody("What was said."),
]
SPECIAL = re.compile(r"<\|([^|]+)\|>")


def ids(sequence: str, tokens: Tokens) -> list[int]:
    """Return a sequence's tokens by the project's own layout."""
    layout = tokens.layout
    named = {
        "startofprev": layout.sot_prev,
        "startoftranscript": layout.sot,
        "transcribe": layout.transcribe,
        "translate": layout.translate,
        "notimestamps": layout.no_timestamps,
        "nospeech": layout.no_speech,
        "endoftext": layout.eot,
    }
    found: list[int] = []
    for at, part in enumerate(SPECIAL.split(sequence)):
        if at % 2 == 0:
            found += tokens.encode(part) if part else []
        elif part in named:
            found.append(named[part])
        elif re.fullmatch(r"\d+\.\d\d", part):
            found.append(layout.first_timestamp + round(float(part) / 0.02))
        else:
            found.append(tokens.language_token(part))
    return found


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_two_tokenizers_read_the_same(sequence: str) -> None:
    theirs = reference.tokenizer()
    ours = ids(sequence, Tokens(locate("base").tokenizer))
    assert ours == theirs.encoding.encode(sequence, allowed_special="all")
    assert theirs.encoding.decode(ours) == sequence


def test_a_prompt_is_the_engines_own() -> None:
    """What an example begins with is what the engine gives the model."""
    tokens = Tokens(locate("base").tokenizer)
    made = ids(sequences.untimed("Good evening.", "de", "translate", "Before."), tokens)
    prompt, _ = tokens.prompt("de", "translate", tokens.encode(" Before."), timestamps=False)
    assert made == [*prompt, *tokens.encode(" Good evening."), tokens.layout.eot]
