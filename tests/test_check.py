"""`check` finds each way in which an output can break, and nothing in a sound one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from outputs import finished, write_output, write_part

from jobs import main
from jobs.check import command
from pipeline.check import KINDS, Checked, Finding, check
from pipeline.sources import resolve
from pipeline.types import Recording
from schemas.speakers import SPEAKERS
from schemas.words import WORDS

EXAMPLES = Path(__file__).parents[1] / "examples" / "audio"
FIRST, SECOND = "part-0001.parquet", "part-0002.parquet"
RUN = {"run_id": "run1", "config_hash": "c0ffee", "config": {}}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Return a sound output of two parts, with its run's file."""
    folder = write_output(tmp_path / "out")
    (folder / "runs").mkdir()
    (folder / "runs" / "run1.json").write_text(json.dumps(RUN))
    return folder


def kinds(out: Path, *sources: Recording) -> list[str]:
    return [item.kind for item in check(str(out), sources) if isinstance(item, Finding)]


def change(path: Path, alter: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(alter(pq.read_table(path)), path)


def put(name: str, values: list[object]) -> Callable[[pa.Table], pa.Table]:
    """Return what puts other values into a column."""

    def alter(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        return table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))

    return alter


def test_sound_output_has_no_finding(out: Path) -> None:
    *findings, seen = check(str(out))
    assert findings == []
    assert isinstance(seen, Checked)
    assert dict(seen.counts) == {"parts": 2, "recordings": 4, "segments": 4, "words": 0, "speakers": 0}


BREAKS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a stranger's file": ("foreign", lambda out: (out / "segments" / "notes.txt").write_text("x")),
    "a staged file": ("pending", lambda out: _staged(out, "staged-0a1b-0")),
    "a journal": ("pending", lambda out: _staged(out, "commit.json")),
    "no segments part": ("torn", lambda out: (out / "segments" / FIRST).unlink()),
    "no recordings part": ("torn", lambda out: (out / "recordings" / FIRST).unlink()),
    "half a file": ("unreadable", lambda out: _halve(out / "segments" / FIRST)),
    "a lost column": ("schema", lambda out: change(out / "segments" / FIRST, lambda t: t.drop_columns("text"))),
    "another type": (
        "schema",
        lambda out: change(
            out / "segments" / FIRST, lambda t: t.set_column(0, "recording_id", t[0].cast(pa.large_string()))
        ),
    ),
    "a row twice": ("double", lambda out: write_part(out, "part-0003.parquet", [finished("dddd", "/x.mp3")])),
    "a part by another name": ("misplaced", lambda out: _rename(out, SECOND, "part-0009.parquet")),
    "another configuration": (
        "config",
        lambda out: change(out / "recordings" / SECOND, put("config_hash", ["dead", "dead"])),
    ),
    "an unknown status": ("status", lambda out: change(out / "recordings" / SECOND, put("status", ["gone", "ok"]))),
    "a failure without an error": (
        "status",
        lambda out: change(out / "recordings" / SECOND, put("error_kind", [None, None])),
    ),
    "a lost recording": ("orphan", lambda out: change(out / "recordings" / FIRST, lambda t: t.slice(1))),
    "a lost segment": ("count", lambda out: change(out / "segments" / FIRST, lambda t: t.slice(0, 2))),
    "a lost flag": ("count", lambda out: change(out / "segments" / FIRST, put("flags", [[], [], []]))),
    "a number twice": ("index", lambda out: change(out / "segments" / FIRST, put("index", [0, 0, 0]))),
    "a gap in the numbers": ("index", lambda out: change(out / "segments" / FIRST, put("index", [0, 2, 0]))),
    "an end before its start": ("time", lambda out: change(out / "segments" / FIRST, put("end", [2.5, 1.0, 10.0]))),
    "a time behind the end": ("time", lambda out: change(out / "segments" / FIRST, put("end", [2.5, 5.0, 11.0]))),
    "a time that is no number": (
        "time",
        lambda out: change(out / "segments" / FIRST, put("end", [2.5, float("nan"), 10.0])),
    ),
    "a lost run": ("run", lambda out: (out / "runs" / "run1.json").unlink()),
}


@pytest.mark.parametrize("how", BREAKS)
def test_each_break_is_found(out: Path, how: str) -> None:
    kind, break_ = BREAKS[how]
    break_(out)
    found = kinds(out)
    assert kind in found
    assert set(found) <= {kind, "count"}  # a lost row also changes a number


def test_words_without_their_segment_are_orphans(out: Path) -> None:
    rows = [
        ("aaaa", 0, 0, 0.0, 1.0, "Good", 0.9, None),
        ("aaaa", 7, 0, 1.0, 2.0, "night", 0.9, None),
        ("aaaa", 0, 2, 1.0, 2.0, "x", 1, None),
    ]
    (out / "words").mkdir()
    table = pa.table({name: [row[i] for row in rows] for i, name in enumerate(WORDS.names)}, WORDS)
    pq.write_table(table, out / "words" / FIRST)
    assert sorted(kinds(out)) == ["index", "orphan"]


def test_speakers_without_a_row_and_rows_without_their_speaker_are_orphans(out: Path) -> None:
    turn = {"start": 0.0, "end": 99.0}
    rows = [("lost", "Speaker 1", 1.0, [], [1.0]), ("aaaa", "Speaker 1", 1.0, [turn], [1.0])]
    (out / "speakers").mkdir()
    table = pa.table({name: [row[i] for row in rows] for i, name in enumerate(SPEAKERS.names)}, SPEAKERS)
    pq.write_table(table, out / "speakers" / FIRST)
    said = pa.array(["Speaker 1", "Speaker 2", None])
    change(
        out / "segments" / FIRST, lambda table: table.set_column(table.schema.names.index("speaker"), "speaker", said)
    )
    assert sorted(kinds(out)) == ["orphan", "orphan", "time"]


def test_recordings_of_the_sources_must_have_a_row_of_their_version(out: Path) -> None:
    there, newer, absent = (
        Recording(id_, f"/{id_}.mp3", version=v) for id_, v in (("aaaa", "1"), ("bbbb", "2"), ("z", "1"))
    )
    assert kinds(out, there, newer, absent) == ["changed", "missing"]


def test_every_kind_is_tried() -> None:
    assert {kind for kind, _ in BREAKS.values()} | {"missing", "changed", "outdated", "reason"} == set(KINDS)


def test_command_tells_and_counts_and_its_exit_code_says_so(out: Path) -> None:
    sound = CliRunner().invoke(command, [str(out)])
    assert sound.exit_code == 0
    assert json.loads(sound.stdout)["ok"]
    change(out / "segments" / FIRST, lambda table: table.filter(pc.not_equal(table["recording_id"], "bbbb")))
    broken = CliRunner().invoke(command, [str(out)])
    assert broken.exit_code == 1
    assert "bbbb has not as many segments" in broken.stderr
    assert json.loads(broken.stdout)["findings"] == {"count": 2}


def _staged(out: Path, name: str) -> None:
    (out / "_staging").mkdir()
    (out / "_staging" / name).write_bytes(b"{}")


def _halve(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _rename(out: Path, old: str, new: str) -> None:
    for table in ("recordings", "segments"):
        (out / table / old).rename(out / table / new)


def test_decisions_are_held_to_the_law_too(tmp_path: Path) -> None:
    out, audio = tmp_path / "out", EXAMPLES / "music.mp3"
    arguments = ["filter", str(EXAMPLES), "--out", str(out), "--model", "fake", "--runner", "local"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    done = CliRunner().invoke(command, [str(out), "--source", str(EXAMPLES)])
    assert json.loads(done.stdout) == {"parts": 1, "decisions": 9, "ok": True, "findings": {}}
    (part,) = (out / "decisions").iterdir()
    whole = pq.read_table(part)
    change(part, lambda table: pa.concat_tables([table, table.slice(0, 1)]))
    assert kinds(out) == ["double"]
    pq.write_table(whole.filter(pc.not_equal(whole["uri"], str(audio))), part)
    assert kinds(out, *resolve([str(EXAMPLES)]).recordings) == ["missing"]
    pq.write_table(whole, part)
    change(part, put("keep", [True] * 9))
    assert kinds(out) == ["reason"] * 3
