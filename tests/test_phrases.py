"""Known inventions: found whole however they are written, judged by their surroundings; a corpus brings its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from outputs import finished, segment

from jobs import main
from pipeline import phrases, score
from pipeline.errors import UserError
from pipeline.ledger import Ledger
from pipeline.phrases import fold, known, parse
from pipeline.repeats import RepeatOptions, repeated
from pipeline.score import ScoreOptions
from pipeline.types import SAMPLE_RATE, Finished, Outcome, Recording, Segment, Span, Transcript

EXAMPLES = Path(__file__).parents[1] / "examples" / "audio"
JINGLE = "You are listening to Radio Nine."
INVENTED = "The ferry to Nowhere leaves at nine."


# --- the list -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Thanks for watching!",
        "THANKS FOR WATCHING",
        "  thanks, for watching... ",
        "Ｔｈａｎｋｓ　ｆｏｒ　ｗａｔｃｈｉｎｇ",
        "Thank you for watching. Please subscribe!",
        "Subtitles by the Amara.org community",
        "Untertitel im Auftrag des ZDF für funk, 2017",
        "Merci d’avoir regardé cette vidéo !",
        "Merci d'avoir regarde cette video",
        "Редактор субтитров А.Синецкая Корректор А.Егорова",
        "ご視聴ありがとうございました。",
        "最後までご視聴いただきありがとうございました",
        "字幕志愿者 杨栋梁",
        "시청해주셔서 감사합니다.",
        "اشتركوا في القناة",
    ],
)
def test_known_lines_are_found_however_they_are_written(text: str) -> None:
    assert known().weight(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "...",
        "Thanks for watching the children while I was away.",
        "I said thank you and left.",
        "Subtitles by nobody at all can replace what an actor does with his voice in a long and difficult scene.",
        "The end of the war was near.",
        "Danke, dass Sie gekommen sind.",
    ],
)
def test_sentences_that_only_hold_or_begin_with_a_known_line_are_not_found(text: str) -> None:
    assert known().weight(text) is None


def test_folding_keeps_letters_and_digits_of_every_script() -> None:
    assert fold("Ça, c'est l'ÉTÉ 2021!") == "cacestlete2021"
    assert fold("ｗｗｗ．Ａｍａｒａ．ｏｒｇ") == "wwwamaraorg"
    assert fold("— ♪ —") == ""


def test_the_list_has_many_languages_and_nothing_that_folds_to_nothing() -> None:
    table = pd.read_csv(Path(phrases.__file__).parent / "phrases.csv")
    assert table["language"].nunique() >= 15
    assert table["weight"].between(0, 1, inclusive="right").all()
    assert all(len(fold(text)) >= 2 for text in table["text"])


@pytest.mark.parametrize("content", ["text\nhello\n", "", "text,weight\nhello,2\n", "text,weight\nhello,many\n"])
def test_a_file_that_is_no_list_is_one_line_for_the_user(content: str) -> None:
    with pytest.raises(UserError, match=r"mine\.csv"):
        parse(content, "mine.csv")


# --- in context ---------------------------------------------------------------------------------------------------


def flagged(one: Segment, *after: Segment) -> bool:
    """Say whether a segment, with others after it, is flagged as a known invention in its finished recording."""
    marked = score.mark(
        Transcript("r", 0, Span(0, 99), (Span(0, 8 * SAMPLE_RATE),), (one, *after), "en", 0.9), ScoreOptions()
    )
    return "phrase" in score.finish([marked], Outcome(Recording("r", "r.mp3"), 1, 99, 8)).segments[0][1].flags


def line(
    text: str, evidence: float | None, per_token: float | None, no_speech: float = 0.0, end_s: float = 2
) -> Segment:
    return replace(segment(0, end_s, text), evidence=evidence, evidence_per_token=per_token, no_speech_prob=no_speech)


OTHER = replace(segment(5, 8, "And now the weather for the weekend."), evidence=60.0, evidence_per_token=6.0)


@pytest.mark.parametrize("text", ["Thanks for watching!", "Thank you.", "Untertitel von Anna Blume"])
def test_a_known_line_that_the_audio_says_is_not_flagged(text: str) -> None:
    assert not flagged(line(text, 40.0, 6.0))
    assert not flagged(line(text, 40.0, 6.0), OTHER)


@pytest.mark.parametrize("text", ["Thanks for watching!", "Untertitel von Anna Blume"])
def test_a_known_line_at_the_end_without_evidence_is_flagged(text: str) -> None:
    assert flagged(line(text, 2.0, 0.3))


def test_what_people_say_often_takes_more_signs() -> None:
    assert not flagged(line("Thank you.", 8.0, 2.0), OTHER)
    assert not flagged(line("Thank you.", 8.0, 2.0, no_speech=0.7), OTHER)
    assert flagged(line("Thank you.", 2.0, 0.5, no_speech=0.7, end_s=20))


def test_any_other_line_is_not_flagged_whatever_its_signs() -> None:
    assert not flagged(line("The ferry leaves at nine.", 1.0, 0.1, no_speech=0.99, end_s=29))


# --- of a corpus --------------------------------------------------------------------------------------------------


def recording(number: int, *segments: Segment, copy_of: int | None = None) -> Finished:
    """Return a recording whose file has a size of its own, unless it is a copy of another."""
    item = finished(f"{number:04x}", f"/radio/{number}.mp3", *segments)
    size = 1000 + (number if copy_of is None else copy_of)
    return replace(item, outcome=replace(item.outcome, recording=replace(item.outcome.recording, size=size)))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return an output of 20 recordings as a ledger commits it: a jingle, an invention, a line of copies."""
    items = []
    for number in range(20):
        own = line(f"Today we talk about number {number} and all that belongs to it.", 90.0, 5.0)
        said = [own, line(JINGLE, 45.0, 5.5)]
        if number < 8:
            said.append(line(INVENTED.upper() if number % 3 == 1 else INVENTED, 3.0, 0.3))
        if number == 19:
            said.append(line(INVENTED, 60.0, 6.0))  # somebody says it once
        if number >= 12:
            said.append(line("A line of one file and its copies.", 1.0, 0.1))
        if number in (2, 3):
            said.append(line("A line of two.", 1.0, 0.1))
        items.append(recording(number, *said, copy_of=12 if number >= 12 else None))
    folder = str(tmp_path_factory.mktemp("out"))
    with Ledger.open(folder, {"model": "base"}, model="base") as ledger:
        ledger.todo([item.outcome.recording for item in items])
        for item in items:
            segments = tuple(one for _, one in item.segments)
            whole = Span(0, item.outcome.duration)
            ledger.receive([Transcript(item.outcome.recording.id, 0, whole, (), segments, "en", 0.9), item.outcome])
            if len(ledger.missing()) == 10:
                ledger.flush()  # two parts
    return folder


def test_lines_that_repeat_without_evidence_are_found_in_their_usual_spelling(out: str) -> None:
    (found,) = repeated(out, RepeatOptions())
    assert (found.text, found.recordings, found.segments, found.language) == (INVENTED, 8, 9, "en")
    assert found.weight == pytest.approx(8 / 9, abs=0.001)


def test_fewer_recordings_may_be_asked_for(out: str) -> None:
    found = repeated(out, RepeatOptions(min_recordings=2))
    assert [one.text for one in found] == [INVENTED, "A line of two."]


def test_the_command_writes_a_list_that_marking_takes(out: str, tmp_path: Path) -> None:
    target = tmp_path / "mine.csv"
    done = CliRunner().invoke(main, ["phrases", out, "--out", str(target)])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"lines": 1, "new": 1, "out": str(target)}
    assert "The ferry to Nowhere" in done.stderr
    mine = known().with_lines(parse(target.read_text(encoding="utf-8"), "mine.csv"))
    assert mine.weight("the ferry to nowhere leaves at nine") == pytest.approx(8 / 9, abs=0.001)
    assert mine.weight("Thanks for watching!") == known().weight("Thanks for watching!")
    assert mine.fingerprint() != known().fingerprint()


def test_a_list_of_ones_own_steers_a_job_and_is_part_of_its_configuration(tmp_path: Path) -> None:
    mine, out = tmp_path / "mine.csv", tmp_path / "out"
    mine.write_text("language,weight,text\nen,0.9,Speech of 3.*\n", encoding="utf-8")
    base = [
        "transcribe",
        str(EXAMPLES / "en_switchboard.mp3"),
        "--out",
        str(out),
        "--model",
        "fake",
        "--runner",
        "local",
    ]
    done = CliRunner().invoke(main, [*base, "--phrases", str(mine)])
    assert done.exit_code == 0, done.output
    marked = pd.read_parquet(out / "segments").set_index("text")["phrase_weight"]
    assert {text.startswith("Speech of 3.") for text in marked.index[marked == 0.9]} == {True}
    again = CliRunner().invoke(main, base)
    assert again.exit_code == 2
    assert "phrases_sha256" in again.stderr


def test_a_list_that_is_not_there_is_one_line_for_the_user(tmp_path: Path) -> None:
    arguments = ["transcribe", str(EXAMPLES), "--out", str(tmp_path / "out"), "--model", "fake", "--runner", "local"]
    done = CliRunner().invoke(main, [*arguments, "--phrases", str(tmp_path / "none.csv")])
    assert done.exit_code == 2
    assert "error: cannot read" in done.stderr
