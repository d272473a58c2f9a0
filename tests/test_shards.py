"""The data set's writer: each recording and each clip exactly once, whatever dies."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from shards_driver import CLIPS, CONFIG, FORMATS, SPLIT_OF, TAKEN_OUT, reading, work

from pipeline.errors import UserError
from pipeline.shards import Dataset

KILLED = -9
KEPT = [f"{number:04x}-{index:05d}" for number in range(len(SPLIT_OF) - 1) for index in range(0, CLIPS, 2)]


def rows(out: Path, table: str) -> list[dict[str, object]]:
    return [row for path in sorted((out / table).glob("part-*")) for row in pq.read_table(path).to_pylist()]


def shards(out: Path) -> dict[str, list[str]]:
    """Return the clips in each shard, by the format."""
    found: dict[str, list[str]] = {"data": [], "webdataset": [], "audio": []}
    for path in (out / "data").glob("*"):
        found["data"] += [row["clip_id"] for row in pq.read_table(path, columns=["clip_id"]).to_pylist()]
    for path in (out / "webdataset").glob("*"):
        with tarfile.open(path) as tar:
            found["webdataset"] += [name.split(".")[0] for name in tar.getnames() if name.endswith(".txt")]
    found["audio"] = [path.stem for path in (out / "audio").rglob("*.flac")]
    return found


def assert_whole(out: Path) -> None:
    """Fail unless all is there once, and nothing else."""
    ids = [f"{number:04x}" for number in range(len(SPLIT_OF))]
    assert sorted(str(row["recording_id"]) for row in rows(out, "origins")) == ids
    clips = rows(out, "clips")
    assert Counter(row["recording_id"] for row in clips) == dict.fromkeys(ids, CLIPS)
    for where, found in shards(out).items():
        assert sorted(found) == KEPT, where
    assert sorted(str(row["clip_id"]) for row in clips if row["kept"]) == KEPT
    assert all((out / shard).is_file() for row in clips for shard in row["shards"])  # type: ignore[attr-defined]
    listed = [json.loads(line)["clip_id"] for path in out.glob("nemo-*") for line in path.read_text().splitlines()]
    assert sorted(listed) == KEPT
    assert f"{len(KEPT)} clips" in (out / "README.md").read_text()


@contextmanager
def drivers() -> Iterator[Callable[[Path, int, str], int]]:
    """Yield what starts a driver that dies at a change, and says how it ended."""
    with subprocess.Popen(
        [sys.executable, Path(__file__).parent / "shards_driver.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as driver:
        stdin, stdout = driver.stdin, driver.stdout
        assert stdin
        assert stdout

        def ended(out: Path, at: int, what: str) -> int:
            stdin.write(json.dumps({"out": str(out), "at": at, "what": what}) + "\n")
            stdin.flush()
            return int(stdout.readline())

        yield ended
        stdin.close()


def test_each_clip_is_there_exactly_once_wherever_the_driver_is_killed(tmp_path: Path) -> None:
    kills = 0
    with drivers() as ended:
        for at in range(1, 1000, 9):
            out = tmp_path / str(at)
            code = ended(out, at, "work")
            if code == 0:
                break
            assert code == KILLED
            kills += 1
            assert {str(row["recording_id"]) for row in rows(out, "clips")} == {
                str(row["recording_id"]) for row in rows(out, "origins")
            } or (out / "_staging" / "commit.json").exists()
            assert ended(out, 10_000, "work") == 0
            assert_whole(out)
    assert kills > 10


def test_a_recording_is_taken_out_wholly_wherever_the_driver_is_killed(tmp_path: Path) -> None:
    """One that shares its shards with others; another one has them for itself."""
    with Dataset.open(str(tmp_path / "whole"), CONFIG, formats=FORMATS, shard_bytes=400) as dataset:
        for number in range(len(SPLIT_OF) - 1):
            dataset.add(reading(number), "train")  # two shards of two clips: the limit is reached by two recordings
        dataset.flush()
    left = [clip for clip in KEPT if not clip.startswith(TAKEN_OUT)]
    with drivers() as ended:
        for at in range(1, 1000, 3):
            out = tmp_path / str(at)
            shutil.copytree(tmp_path / "whole", out)
            code = ended(out, at, "thin")
            assert code in (0, KILLED)
            assert code == 0 or ended(out, 10_000, "thin") == 0
            found = shards(out)
            assert sorted(found["data"]) == sorted(found["webdataset"]) == left
            kept = [row for row in rows(out, "clips") if row["kept"]]
            assert sorted(str(row["clip_id"]) for row in kept) == left
            assert {name for row in kept for name in row["shards"]} == {  # type: ignore[attr-defined]
                str(path.relative_to(out)) for where in ("data", "webdataset") for path in (out / where).glob("*")
            }
            assert TAKEN_OUT not in {row["recording_id"] for row in rows(out, "origins")}
            if code == 0:
                break
    assert at > 8


def test_shards_have_the_size_asked_for_and_one_split(tmp_path: Path) -> None:
    work(str(tmp_path))
    sizes = [pq.read_metadata(path).num_rows for path in (tmp_path / "data").glob("*")]
    assert max(sizes) == 2
    for path in (tmp_path / "data").glob("*"):
        splits = {SPLIT_OF[int(row["recording_id"], 16)] for row in pq.read_table(path).to_pylist()}
        assert splits == {path.name.split("-")[0]}


def test_a_data_set_of_other_options_is_refused_with_the_difference(tmp_path: Path) -> None:
    work(str(tmp_path))
    with pytest.raises(UserError, match='audio was "flac", is "opus"'):
        Dataset.open(str(tmp_path), CONFIG | {"audio": "opus"}, formats=("parquet",), shard_bytes=400)


def test_what_has_failed_is_done_again_when_asked_and_has_one_row(tmp_path: Path) -> None:
    work(str(tmp_path))
    options = {"formats": ("parquet",), "shard_bytes": 400}
    with Dataset.open(str(tmp_path), CONFIG, **options, retry_failed=True) as dataset:  # type: ignore[arg-type]
        assert len(dataset.done) == len(SPLIT_OF) - 1
        dataset.add(reading(len(SPLIT_OF) - 1), "train")
        dataset.flush()
    assert len(rows(tmp_path, "origins")) == len(SPLIT_OF)
    assert len(rows(tmp_path, "clips")) == CLIPS * len(SPLIT_OF)


def test_parquet_says_what_is_audio(tmp_path: Path) -> None:
    work(str(tmp_path))
    path = next((tmp_path / "data").glob("*"))
    schema = pq.read_schema(io.BytesIO(path.read_bytes()))
    assert json.loads(schema.metadata[b"huggingface"])["info"]["features"]["audio"] == {"_type": "Audio"}
