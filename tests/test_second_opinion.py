"""`transcribe --second-opinion`: doubtful segments are heard again, exactly once, and both texts are compared."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from tables import assert_whole, read_table

from jobs import main
from pipeline import run_files
from pipeline.books import REVIEWS, TRANSCRIPTS
from pipeline.check import Finding, check
from pipeline.decode import DecodeOptions
from pipeline.doubts import Doubt, Question, Stretch
from pipeline.hearing import hear
from pipeline.sources import resolve
from pipeline.types import SAMPLE_RATE, Outcome, Passage

EXAMPLES = Path(__file__).parents[1] / "examples" / "audio"
SPANISH, MUSIC = EXAMPLES / "es_centralita.opus", EXAMPLES / "music.mp3"
ALL = ("--doubt-hallucination", 0)
ASK = ("--second-opinion", "fake", *ALL)


def transcribe(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["transcribe", *map(str, arguments)])


def fake(*arguments: object) -> Result:
    return transcribe(*arguments, "--model", "fake", "--runner", "local")


def counts(done: Result) -> dict[str, Any]:
    """Return the JSON line: all that stdout holds."""
    assert done.exit_code == 0, done.output
    (line,) = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def findings(out: Path) -> list[str]:
    return [item.kind for item in check(str(out)) if isinstance(item, Finding)]


def keys(out: Path, table: str) -> list[tuple[str, int]]:
    return sorted((row["recording_id"], row["index"]) for row in read_table(str(out), table))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two recordings."""
    folder = tmp_path_factory.mktemp("sound")
    shutil.copy(SPANISH, folder)
    shutil.copy(MUSIC, folder)
    return folder


@pytest.fixture(scope="module")
def transcribed(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an output without opinions, for copies of it."""
    out = tmp_path_factory.mktemp("transcribed") / "out"
    assert "second_opinion" not in counts(fake(sound, "--out", out))
    return out


@pytest.fixture
def out(transcribed: Path, tmp_path: Path) -> Path:
    """Return an output of one's own without opinions."""
    return Path(shutil.copytree(transcribed, tmp_path / "out"))


@pytest.fixture(scope="module")
def asked(sound: Path, transcribed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an output with opinions on everything, for copies of it."""
    out = Path(shutil.copytree(transcribed, tmp_path_factory.mktemp("asked") / "out"))
    fake(sound, "--out", out, *ASK)
    return out


def test_each_doubtful_segment_has_an_opinion_and_the_same_command_does_nothing_more(sound: Path, out: Path) -> None:
    before = content(out / "segments") | content(out / "recordings")
    done = counts(fake(sound, "--out", out, *ASK))
    assert done["already_done"] == 2  # opinions can be asked for later
    told = done["second_opinion"]
    segments = read_table(str(out), "segments")
    assert told["doubtful"] == told["asked"] == len(segments) > 0
    assert told["recordings"] == 2
    assert 0 < told["share_heard_again"] < 1
    assert told["share_heard_again"] == pytest.approx(told["heard_again_s"] / told["audio_s"], abs=0.01)
    assert content(out / "segments") | content(out / "recordings") == before
    assert keys(out, "opinions") == keys(out, "segments")
    assert len(read_table(str(out), "reviews")) == 2
    assert_whole(str(out))
    assert findings(out) == []
    run = json.loads(sorted((out / "runs").iterdir())[-1].read_text())
    assert run["counts"]["asked"] == len(segments)
    assert run["work"]["transcribe"]["busy_s"] >= 0
    whole = content(out)
    again = fake(sound, "--out", out, *ASK)
    assert counts(again)["second_opinion"]["recordings"] == 0
    assert "nothing to do" in again.stderr
    assert content(out) == whole


def test_without_doubt_nothing_is_heard_again(sound: Path, out: Path) -> None:
    told = counts(fake(sound, "--out", out, "--second-opinion", "fake"))["second_opinion"]
    assert (told["asked"], told["heard_again_s"], told["recordings"]) == (0, 0, 2)
    assert findings(out) == []


def test_other_options_of_the_second_pass_are_refused_by_name(sound: Path, asked: Path) -> None:
    before = content(asked)
    refused = fake(sound, "--out", asked, *ASK, "--second-beam", 3)
    assert refused.exit_code == 2
    assert "second opinions of another configuration: beam was 5, is 3" in refused.stderr
    assert content(asked) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--second-opinion", "nonsense"), "no model is called 'nonsense'"),
        (("--second-opinion", "fake", "--add-noise", 5), "--add-noise"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_done(
    tmp_path: Path, arguments: tuple[object, ...], words: str
) -> None:
    refused = fake(MUSIC, "--out", tmp_path / "out", *arguments)
    assert refused.exit_code == 2
    assert words in refused.stderr
    assert not (tmp_path / "out").exists()


def test_transcript_that_is_made_anew_is_asked_about_anew(tmp_path: Path) -> None:
    folder, out = tmp_path / "sound", tmp_path / "out"
    folder.mkdir()
    shutil.copy(SPANISH, folder)
    shutil.copy(MUSIC, folder)
    fake(folder, "--out", out, *ASK)
    os.utime(folder / SPANISH.name, (1, 1))  # another version
    assert counts(fake(folder, "--out", out))["ok"] == 1
    assert findings(out) == ["outdated"]
    told = counts(fake(folder, "--out", out, *ASK))["second_opinion"]
    assert (told["recordings"], told["asked"]) == (1, len(read_table(str(out), "segments")))
    assert findings(out) == []
    assert keys(out, "opinions") == keys(out, "segments")


def test_pieces_and_stretches_of_files_are_heard_again_in_their_place(tmp_path: Path) -> None:
    audio = SPANISH.read_bytes()
    with tarfile.open(tmp_path / "audio.tar", "w") as tar:
        member = tarfile.TarInfo("a/spanish.opus")
        member.size = len(audio)
        tar.addfile(member, io.BytesIO(audio))
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"uri,start,end\n{SPANISH},10,30\n", encoding="utf-8")
    out = tmp_path / "out"
    told = counts(fake(tmp_path / "audio.tar", manifest, "--out", out, *ASK))["second_opinion"]
    assert (told["recordings"], told["failed"], told["partial"]) == (2, 0, 0)
    bounds = {
        row["recording_id"]: (row["start_s"], row["start_s"] + row["duration_s"])
        for row in read_table(str(out), "recordings")
    }
    opinions = read_table(str(out), "opinions")
    assert {row["recording_id"] for row in opinions} == set(bounds)
    for row in opinions:
        least, most = bounds[row["recording_id"]]
        assert least <= row["start"] < row["end"] <= most + 1e-6
        assert row["text"]
    assert findings(out) == []


def test_audio_that_ends_early_leaves_the_rest_unheard() -> None:
    (recording,) = resolve([str(SPANISH)]).recordings
    places = [(5, 10), (200, 205)]
    stretches = tuple(
        Stretch(
            a * SAMPLE_RATE, b * SAMPLE_RATE, "es", "es", (Doubt(i, a * SAMPLE_RATE, b * SAMPLE_RATE, "x", ("flag",)),)
        )
        for i, (a, b) in enumerate(places)
    )
    question = Question("run", "mix", 300 * SAMPLE_RATE, 2, stretches)
    passage, outcome = hear(replace(recording, asked=question.json()), DecodeOptions())
    assert isinstance(passage, Passage)
    assert (passage.start, len(passage.pcm), passage.language) == (5 * SAMPLE_RATE, 5 * SAMPLE_RATE, "es")
    assert isinstance(outcome, Outcome)
    assert (outcome.status, outcome.passages) == ("partial", 1)
    assert outcome.failure
    assert outcome.failure.kind == "audio_missing"
    review = REVIEWS.whole([], outcome)
    assert [one.text for one in review.opinions] == [None, None]


def test_configuration_of_the_transcripts_is_found_behind_later_opinions(transcribed: Path, asked: Path) -> None:
    before = run_files.latest_config(str(transcribed), TRANSCRIPTS.what)
    assert run_files.latest_config(str(asked), TRANSCRIPTS.what) == before
    assert run_files.latest_config(str(asked), REVIEWS.what) != before


def alter(path: Path, how: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Write the rows of a part anew, by the schema that it had."""
    (part,) = path.iterdir()
    table = pq.read_table(part)
    pq.write_table(pa.Table.from_pylist(how(table.to_pylist()), schema=table.schema), part)


BREAKS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a lost opinion": ("count", lambda out: alter(out / "opinions", lambda rows: rows[1:])),
    "a lost review": ("orphan", lambda out: alter(out / "reviews", lambda rows: [r for r in rows if not r["asked"]])),
    "an opinion twice": ("index", lambda out: alter(out / "opinions", lambda rows: [rows[0], *rows])),
    "an opinion on nothing": (
        "orphan",
        lambda out: alter(out / "opinions", lambda rows: [*rows[:-1], rows[-1] | {"index": 99}]),
    ),
    "a review twice": ("double", lambda out: alter(out / "reviews", lambda rows: [*rows, rows[0]])),
    "another configuration": (
        "config",
        lambda out: alter(out / "reviews", lambda rows: [rows[0] | {"config_hash": "dead"}, *rows[1:]]),
    ),
    "no reviews part": ("torn", lambda out: next((out / "reviews").iterdir()).unlink()),
    "a transcript made anew": (
        "outdated",
        lambda out: alter(out / "reviews", lambda rows: [rows[0] | {"transcript": "another"}, *rows[1:]]),
    ),
}


@pytest.mark.parametrize("how", BREAKS)
def test_check_finds_each_break(how: str, asked: Path, tmp_path: Path) -> None:
    kind, break_ = BREAKS[how]
    broken = Path(shutil.copytree(asked, tmp_path / "out"))
    break_(broken)
    assert kind in findings(broken)
    assert set(findings(broken)) <= {kind, "count"}


@pytest.mark.parametrize("step", [18, pytest.param(3, marks=pytest.mark.slow)])
def test_killed_at_any_change_the_second_pass_goes_on(
    step: int, sound: Path, transcribed: Path, tmp_path: Path
) -> None:
    driver = Path(__file__).with_name("opinions_driver.py")
    done = subprocess.run(
        [sys.executable, str(driver), str(sound), str(transcribed), str(tmp_path), str(step)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outs = list(tmp_path.iterdir())
    assert len(outs) >= 2
    for one in outs:
        assert findings(one) == []
        assert keys(one, "opinions") == keys(one, "segments")
        assert len(read_table(str(one), "reviews")) == 2


@pytest.mark.slow
def test_real_model_agrees_with_itself_on_clear_speech(tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = counts(
        transcribe(
            EXAMPLES / "en_switchboard.mp3", "--out", out, "--runner", "local", "--threads", 1,
            "--second-opinion", "base", *ALL,
        )
    )["second_opinion"]  # fmt: skip
    assert told["model"] == "base"
    opinions = pq.read_table(out / "opinions").to_pylist()
    segments = {row["index"]: row for row in pq.read_table(out / "segments").to_pylist()}
    assert len(opinions) == len(segments) == told["asked"]
    assert told["agreed"] >= len(segments) / 2
    assert sum(row["wer"] for row in opinions) / len(opinions) < 0.2
    for row in opinions:
        assert row["start"] <= segments[row["index"]]["start"] < segments[row["index"]]["end"] <= row["end"] + 1
        assert row["avg_logprob"] < 0
        assert row["hallucination_probability"] < 0.5


def test_pseudo_label_asks_and_leaves_out_what_a_second_opinion_contradicts(asked: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(asked, tmp_path / "out"))
    shutil.rmtree(out / "opinions")
    shutil.rmtree(out / "reviews")
    command = ["pseudo-label", out, "--out", tmp_path / "data", "--min-speech", 0, "--max-edge-db", 99, "--min-s", 1]
    done = CliRunner().invoke(main, [*map(str, command), *map(str, ASK), "--max-second-edge-cer", "0.5"])
    told = counts(done)
    segments = {row["index"]: row for row in read_table(str(out), "opinions")}
    assert told["second_opinion"]["asked"] == len(segments) > 0
    assert findings(out) == []
    clips = pq.read_table(tmp_path / "data" / "clips").to_pylist()
    assert clips
    for clip in clips:
        own = [segments[index] for index in clip["segments"]]
        assert clip["second_wer"] == max(one["wer"] for one in own)
        assert clip["second_edge_cer"] == max(own[0]["edge_cer"], own[-1]["edge_cer"])
        assert ("second" in clip["reasons"]) == (clip["second_wer"] > 0.5 or clip["second_edge_cer"] > 0.5)
    assert {"second" in clip["reasons"] for clip in clips} == {True, False}
    again = counts(CliRunner().invoke(main, [*map(str, command), *map(str, ASK), "--max-second-edge-cer", "0.5"]))
    assert again["second_opinion"]["recordings"] == 0
