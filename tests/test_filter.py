"""`bulkscribe filter` as a user runs it: decisions, the manifest of what is kept, and other thresholds afterwards."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from jobs import main

EXAMPLES = Path(__file__).parents[1] / "examples" / "audio"
SHORT = [path for path in EXAMPLES.iterdir() if path.name != "episode.m4a"]
LANGUAGES = {
    "en_switchboard.mp3": "en",
    "es_centralita.opus": "es",
    "fr_standard.m4a": "fr",
    "it_centralino.flac": "it",
    "ru_kommutator.ogg": "ru",
}
OF_THE_RUN = {"part", "run_id", "config_hash", "keep", "reason"}


def run(command: str, *arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(main, [command, *map(str, arguments)])


def fake(*arguments: object) -> Result:
    return run("filter", *arguments, "--model", "fake", "--runner", "local")


def counts(done: Result) -> dict[str, Any]:
    """Return the JSON line: all that stdout holds."""
    assert done.exit_code == 0, done.output
    (line,) = done.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def decisions(out: Path) -> dict[str, dict[str, Any]]:
    """Return the rows by the file names of their recordings."""
    rows = pq.read_table(out / "decisions").to_pylist()
    assert len({row["recording_id"] for row in rows}) == len(rows)
    return {Path(row["uri"]).name: row for row in rows}


def kept(out: Path) -> list[dict[str, Any]]:
    """Return the lines of the manifest."""
    return [json.loads(line) for line in (out / "kept.jsonl").read_text(encoding="utf-8").splitlines()]


def content(out: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def filtered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what the real model makes of the examples, of which English and Russian is wanted.

    So many looks take in the longest whole: shorter ones lie at places that a path draws, and differ with the machine.
    """
    out = tmp_path_factory.mktemp("filter") / "out"
    done = run(
        "filter", *SHORT, "--out", out, "--language", "en,ru", "--min-speech", "0.5", "--runner", "local",
        "--threads", 1, "--looks", 4,
    )  # fmt: skip
    assert counts(done)["reasons"] == {"kept": 2, "language": 3, "speech": 2, "unreadable": 1}
    return out


def test_languages_are_heard(filtered: Path) -> None:
    rows = decisions(filtered)
    assert {name: rows[name]["language"] for name in LANGUAGES} == LANGUAGES
    for name in LANGUAGES:
        assert rows[name]["languages"][0]["probability"] == rows[name]["language_probability"] > 0.5
        assert rows[name]["speech_share"] > 0.5
        assert rows[name]["listened"][0]["speech_s"] > 5


def test_each_recording_has_a_row_with_its_reason(filtered: Path) -> None:
    rows = decisions(filtered)
    assert sorted(rows) == sorted(path.name for path in SHORT)
    assert {name for name, row in rows.items() if row["reason"] == "speech"} == {"music.mp3", "silence.wav"}
    assert rows["truncated.m4a"]["reason"] == "unreadable"
    assert "moov" in rows["truncated.m4a"]["error_message"]
    for row in rows.values():
        if row["status"] == "ok":
            assert row["speech_share"] + row["sound_share"] + row["silence_share"] == pytest.approx(1)


def test_transcribe_takes_what_is_kept(filtered: Path, tmp_path: Path) -> None:
    assert [Path(line["uri"]).name for line in kept(filtered)] == [
        "en_switchboard.mp3",
        "ru_kommutator.ogg",
    ]
    done = run("transcribe", filtered / "kept.jsonl", "--out", tmp_path / "t", "--model", "fake", "--runner", "local")
    assert counts(done)["recordings"] == 2
    languages = pq.read_table(tmp_path / "t" / "recordings")["language"].to_pylist()
    assert sorted(languages) == ["en", "ru"]


def test_the_same_command_does_nothing_more(tmp_path: Path) -> None:
    first = counts(fake(EXAMPLES, "--out", tmp_path))
    assert (first["kept"], first["dropped"], first["already_done"]) == (6, 3, 0)
    before = content(tmp_path)
    again = fake(EXAMPLES, "--out", tmp_path)
    assert "nothing to do" in again.stderr
    assert counts(again) | {"reasons": {}} == {
        **counts(again),
        "ok": 0,
        "failed": 0,
        "already_done": 9,
        "reasons": {},
    }
    assert counts(again)["reasons"] == first["reasons"]
    assert content(tmp_path) == before


def test_a_killed_filter_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    line = [sys.executable, "-m", "jobs", "filter", *SHORT[:3], "--out", out, "--runner", "local", "--threads", "1"]
    with subprocess.Popen([*map(str, line)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as killed:
        while not list((out / "runs").glob("*.json")):
            assert killed.poll() is None
            time.sleep(0.05)
        time.sleep(1)  # the first recordings are in hand, the model is being loaded
        killed.kill()
    again = subprocess.run([*map(str, line)], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert set(decisions(out)) == {Path(source).name for source in SHORT[:3]}


def test_other_thresholds_on_the_same_output_are_refused_by_name(tmp_path: Path) -> None:
    fake(EXAMPLES / "music.mp3", "--out", tmp_path)
    done = fake(EXAMPLES, "--out", tmp_path, "--min-speech", 0.9)
    assert done.exit_code == 2
    assert "min_speech was 0.25, is 0.9" in done.stderr


def test_other_thresholds_need_no_audio(tmp_path: Path) -> None:
    audio = tmp_path / "audio"
    shutil.copytree(EXAMPLES, audio)
    options = ("--min-speech", 0.96, "--language", "en")
    counts(fake(audio, "--out", tmp_path / "first"))
    counts(fake(audio, "--out", tmp_path / "direct", *options))
    shutil.rmtree(audio)
    told = counts(run("filter", "--from", tmp_path / "first", "--out", tmp_path / "second", *options))
    assert 0 < told["kept"] < 6
    direct, second = decisions(tmp_path / "direct"), decisions(tmp_path / "second")
    assert direct.keys() == second.keys()
    for name, row in direct.items():
        assert (row["keep"], row["reason"], row["config_hash"]) == (
            second[name]["keep"],
            second[name]["reason"],
            second[name]["config_hash"],
        )
        assert {key: row[key] for key in row.keys() - OF_THE_RUN} == {
            key: second[name][key] for key in row.keys() - OF_THE_RUN
        }
    assert (tmp_path / "direct" / "kept.jsonl").read_bytes() == (tmp_path / "second" / "kept.jsonl").read_bytes()
    before = content(tmp_path / "second")
    again = run("filter", "--from", tmp_path / "first", "--out", tmp_path / "second", *options)
    assert counts(again)["already_done"] == 9
    assert content(tmp_path / "second") == before


def test_columns_of_a_manifest_travel_into_that_of_the_kept(tmp_path: Path) -> None:
    manifest = tmp_path / "list.jsonl"
    line = {
        "uri": str(EXAMPLES / "fr_standard.m4a"),
        "language": "fr",
        "initial_prompt": "Oui.",
        "show": "Café",
        "n": 3,
    }
    manifest.write_text(json.dumps(line), encoding="utf-8")
    counts(fake(manifest, "--out", tmp_path / "out"))
    assert kept(tmp_path / "out") == [line]


def test_what_is_kept_of_a_tar_and_of_stretches_is_transcribed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        for name in ("fr_standard.m4a", "music.mp3", "ru_kommutator.ogg"):
            tar.add(EXAMPLES / name, name)
    lines = [{"uri": str(EXAMPLES / "es_centralita.opus"), "start": start, "end": start + 10} for start in (0, 20)]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    told = counts(fake(tmp_path / "some.tar", tmp_path / "list.jsonl", "--out", tmp_path / "out"))
    assert (told["kept"], told["reasons"]["speech"]) == (4, 1)
    done = run(
        "transcribe", tmp_path / "out" / "kept.jsonl", "--out", tmp_path / "t", "--model", "fake", "--runner", "local"
    )
    assert counts(done)["ok"] == 4
    looked = pq.read_table(tmp_path / "out" / "decisions").to_pylist()
    heard = pq.read_table(tmp_path / "t" / "recordings").to_pylist()
    keys = ("recording_id", "uri", "version", "start_s", "end_s")
    assert sorted(tuple(row[key] for key in keys) for row in heard) == sorted(
        tuple(row[key] for key in keys) for row in looked if row["keep"]
    )


def test_what_cannot_be_is_one_line_and_a_hint(tmp_path: Path) -> None:
    for arguments in (
        ("--out", tmp_path / "a"),
        (EXAMPLES, "--out", tmp_path / "a", "--from", tmp_path / "b"),
        ("--out", tmp_path / "a", "--from", tmp_path / "b"),
        (EXAMPLES, "--out", tmp_path / "a", "--model", "base", "--language", "xx", "--runner", "local"),
    ):
        done = run("filter", *arguments)
        assert done.exit_code == 2, arguments
        error, hint = done.stderr.splitlines()[-2:]
        assert error.startswith("error: ")
        assert hint.startswith("hint: ")


@pytest.mark.slow
def test_ray_decides_the_same(tmp_path: Path) -> None:
    counts(fake(EXAMPLES, "--out", tmp_path / "local"))
    counts(run("filter", EXAMPLES, "--out", tmp_path / "ray", "--model", "fake"))
    ours, rays = decisions(tmp_path / "local"), decisions(tmp_path / "ray")
    assert ours.keys() == rays.keys()
    for name, row in ours.items():
        assert {key: row[key] for key in row.keys() - {"part", "run_id"}} == {
            key: rays[name][key] for key in row.keys() - {"part", "run_id"}
        }
