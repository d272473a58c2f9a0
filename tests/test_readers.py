"""Readers of many recordings: in threads, on a cluster whose workers and nodes are killed, and what travels between."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from clusters import add, cluster
from labelled import EXAMPLES, NAMES, transcribed, write_examples, write_transcripts
from ray.cluster_utils import Cluster
from s3_server import point_to, s3_server
from weak_pairs import write_pairs

from pipeline import readers, storage
from pipeline.attempts import DEATHS, KILLED
from pipeline.candidates import PRESETS, Corpus
from pipeline.deaths import Deaths
from pipeline.errors import UserError
from pipeline.ray_options import RayOptions
from pipeline.readers import Threads, received, sent
from pipeline.readings import AudioOptions, ClipReader, Reading, Row
from pipeline.run import RayReaders
from pipeline.sources import resolve
from pipeline.stretches import ExampleReader
from pipeline.transcripts import transcripts
from pipeline.types import Failure

ROOT = Path(__file__).parents[1]
NOWHERE = "http://127.0.0.1:1"
READER = ClipReader(AudioOptions(), PRESETS["asr"].gates)
Given = list[tuple[Row, list[Row]]]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """Three recordings with their candidates, one of which is worth no reading."""
    folder = tmp_path_factory.mktemp("given")
    _, out = write_examples(folder)
    corpus = Corpus(str(out), PRESETS["asr"])
    corpus.survey()
    found = [(one.recording, corpus.rows(one)) for one in transcripts(str(out), words=True)]
    found[1] = (found[1][0], [row | {"reasons": ["pace"]} for row in found[1][1]])
    return found


@pytest.fixture(scope="module")
def expected(given: Given) -> list[Any]:
    """What one thread makes of them."""
    return [content(reading) for reading in Threads(1)(given, READER)]


def content(reading: Reading) -> Any:
    """Return all of a reading, with its clips' files; closes it."""
    files = [(clip.row, clip.suffix, clip.load()) for clip in reading.kept]
    reading.close()
    return replace(reading, spool=None, kept=[]), files


def test_readings_travel_whole_and_in_pieces(
    given: Given, expected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "PIECE", 100_000)
    parts = [pickle.dumps(part) for part in sent(READER(*given[2]))]
    assert len(parts) > 5
    assert max(map(len, parts[:-1])) < 101_000
    assert content(received(map(pickle.loads, parts))) == expected[2]


def test_readings_without_clips_travel_too(given: Given, expected: list[Any]) -> None:
    (part,) = sent(READER(*given[1]))
    assert content(received([part])) == expected[1]


def test_a_reading_that_ends_too_early_is_none(given: Given) -> None:
    *pieces, _ = sent(READER(*given[0]))
    with pytest.raises(EOFError):
        received(pieces)


def test_readers_travel() -> None:
    for reader in (READER, ExampleReader(AudioOptions(rate=16_000))):
        assert pickle.loads(pickle.dumps(reader)) == reader


def test_threads_keep_the_order_and_take_only_what_is_read_soon(given: Given) -> None:
    taken = []

    def work() -> Iterator[tuple[Row, Sequence[Row]]]:
        for number in range(20):
            taken.append(number)
            yield given[1][0] | {"recording_id": str(number)}, given[1][1]

    found = []
    for number, reading in enumerate(Threads(2)(work(), READER)):
        found.append(reading.recording["recording_id"])
        assert len(taken) <= number + 4
    assert found == [str(number) for number in range(20)]


def test_weight_is_that_of_the_audio_that_may_be_kept(given: Given) -> None:
    recording, rows = given[2]
    seconds = sum(row["end"] - row["start"] for row in rows)
    assert READER.weight(recording, rows) == pytest.approx(seconds * recording["sample_rate"] * 2, abs=2)
    assert READER.weight(*given[1]) == 0


def test_what_is_given_up_says_why_in_each_row(given: Given) -> None:
    recording, rows = given[0]
    reading = READER.given_up(recording, rows, KILLED)
    assert (reading.status, reading.failure, reading.kept) == ("failed", KILLED, [])
    assert {tuple(row["reasons"]) for row in reading.rows} == {("audio",)}
    assert all(row["audio_error"].startswith("killed: 6 workers died") for row in reading.rows)


def test_a_cluster_that_does_not_answer_is_told_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no Ray cluster answers"):
        RayReaders(RayOptions(address="127.0.0.1:1"), 0, deaths(tmp_path))


# --- on a cluster ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Noting:
    """A reader that says in `folder` which process reads what, and takes its time; at `killing` it kills itself."""

    folder: Path
    killing: str = ""

    def __call__(self, recording: Row, rows: Sequence[Row]) -> Reading:
        id_ = recording["recording_id"]
        (self.folder / f"{id_} {os.getpid()} {time.monotonic_ns()}").touch()
        if id_ == self.killing:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.5)
        return READER(recording, rows)

    def given_up(self, recording: Row, rows: Sequence[Row], failure: Failure) -> Reading:
        return READER.given_up(recording, rows, failure)

    def weight(self, recording: Row, rows: Sequence[Row]) -> int:
        return READER.weight(recording, rows)

    def readers_of(self, recording_id: str) -> list[int]:
        """Return the processes that have begun with a recording."""
        names = (path.name.split() for path in self.folder.iterdir())
        return [int(pid) for id_, pid, _ in names if id_ == recording_id]


@pytest.fixture(scope="module")
def made() -> Iterator[Cluster]:
    """A head that does no work, and two nodes, which know keys of a store that is nowhere."""
    with tempfile.TemporaryDirectory(prefix="ray") as folder, pytest.MonkeyPatch.context() as environment:
        point_to(environment, NOWHERE)
        with cluster(Path(folder)) as made:
            add(made, "cpu", cpus=2)
            add(made, "cpu", cpus=2)
            environment.undo()
            yield made


def deaths(folder: Path) -> Deaths:
    return Deaths(str(folder), lambda _: True)


def many(given: Given, count: int) -> Given:
    """Return the first of the recordings so many times, with few of its candidates, the others among them."""
    copies = [(given[0][0] | {"recording_id": f"{number:04x}"}, given[0][1][:1]) for number in range(count)]
    return [*copies[: count // 2], *given[1:], *copies[count // 2 :]]


@pytest.mark.slow
def test_killed_workers_and_a_lost_node_cost_nothing_and_who_kills_is_given_up(
    tmp_path: Path, given: Given, made: Cluster
) -> None:
    work, folder = many(given, 10), tmp_path / "words"
    folder.mkdir()
    reader, killed = Noting(folder, killing="0005"), list[int]()
    lost = add(made, "cpu", cpus=2)

    def kill() -> None:
        while not (pids := reader.readers_of("0002")):
            time.sleep(0.02)
        psutil.Process(pids[0]).kill()
        killed.append(pids[0])
        while not reader.readers_of("0007"):
            time.sleep(0.02)
        made.remove_node(lost, allow_graceful=False)

    thread = threading.Thread(target=kill)
    thread.start()
    deaths(tmp_path).note({"0005": 3})  # a driver before this one has seen them
    ray = RayReaders(RayOptions(address=made.address), 0, deaths(tmp_path))
    try:
        found = [content(reading) for reading in ray(work, reader)]
    finally:
        ray.close()
        thread.join(timeout=60)
    assert killed
    assert len(reader.readers_of("0002")) >= 2
    assert len(reader.readers_of("0005")) == DEATHS - 3
    assert deaths(tmp_path).known["0005"] == DEATHS
    wanted = [
        content(READER.given_up(*one, KILLED) if one[0]["recording_id"] == "0005" else READER(*one)) for one in work
    ]
    assert found == wanted


@dataclass(frozen=True)
class Refusing(Noting):
    """A reader that lacks something."""

    def __call__(self, recording: Row, rows: Sequence[Row]) -> Reading:
        raise UserError("soundfile is not here", "install it")


@pytest.mark.slow
def test_what_a_machine_lacks_is_told_in_a_line(tmp_path: Path, given: Given, made: Cluster) -> None:
    ray = RayReaders(RayOptions(address=made.address), 0, deaths(tmp_path))
    try:
        with pytest.raises(UserError, match=r"^soundfile is not here$") as told:
            list(ray(given, Refusing(tmp_path)))
    finally:
        ray.close()
    assert told.value.hint == "install it"


def job(*args: str | Path) -> list[str]:
    return [sys.executable, "-m", "jobs", *map(str, args)]


def finish(line: list[str], *, killing: bool = False) -> dict[str, Any]:
    """Run a job to its end, and meanwhile kill one of the workers that read; return its counts."""
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as done:
        while killing and done.poll() is None:
            for worker in workers():
                with contextlib.suppress(psutil.Error):
                    worker.kill()
                    killing = False
                    break
            time.sleep(0.02)
        out, errors = done.communicate(timeout=300)
    assert done.returncode == 0, out + errors
    assert not killing
    assert "Unhandled" not in errors
    counts: dict[str, Any] = json.loads(out)
    return counts


def workers() -> Iterator[psutil.Process]:
    """Yield the workers of this test's own Ray that read."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.name().startswith("ray::_read"):
                yield process


def files(out: Path) -> dict[str, Any]:
    """Return all files of a data set but those of its run, whose id is taken out where it stands in others."""
    (run,) = (path.stem for path in (out / "runs").iterdir())
    found = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if not path.is_file() or name.startswith("runs"):
            continue
        told = str(pq.read_table(path).to_pylist()).encode() if path.suffix == ".parquet" else path.read_bytes()
        found[name.replace(run, "RUN")] = told.replace(run.encode(), b"RUN")
    return found


@pytest.mark.slow
def test_pseudo_label_on_a_cluster_whose_worker_is_killed_makes_what_threads_make(
    tmp_path: Path, made: Cluster
) -> None:
    items = []
    for number, name in enumerate(NAMES * 2):
        path = tmp_path / "sources" / str(number) / name
        path.parent.mkdir(parents=True)
        shutil.copy(EXAMPLES / "audio" / name, path)
        item = transcribed(path)
        items.append(
            replace(item, outcome=replace(item.outcome, recording=replace(item.outcome.recording, id=f"{number:016x}")))
        )
    (tmp_path / "sources" / "4" / NAMES[1]).unlink()
    write_transcripts(tmp_path / "out", items)
    line = job(
        "pseudo-label", tmp_path / "out", "--format", "parquet,webdataset,nemo", "--shard-mb", "0.5", "--max-copies", 9
    )
    finish([*line, "--out", str(tmp_path / "threads")])
    finish([*line, "--out", str(tmp_path / "ray"), "--address", made.address], killing=True)
    assert files(tmp_path / "ray") == files(tmp_path / "threads")
    again = subprocess.run(
        [*line, "--out", str(tmp_path / "ray")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "nothing to do" in again.stderr  # where it was read is no other data set


@pytest.mark.slow
def test_clean_on_a_cluster_makes_what_threads_make(tmp_path: Path, made: Cluster) -> None:
    manifest, heard = write_pairs(tmp_path)
    line = job("clean", manifest, "--transcripts", heard, "--format", "parquet,webdataset")
    finish([*line, "--out", str(tmp_path / "threads")])
    finish([*line, "--out", str(tmp_path / "ray"), "--address", made.address, "--decode-on", "role=cpu"])
    assert files(tmp_path / "ray") == files(tmp_path / "threads")


@pytest.mark.slow
def test_the_endpoint_option_reaches_workers(tmp_path: Path, made: Cluster) -> None:
    path = EXAMPLES / "audio" / "it_centralino.flac"
    with s3_server() as endpoint:
        storage.write_bytes(f"s3://audio/in/{path.name}", path.read_bytes())
        (there,) = resolve([f"s3://audio/in/{path.name}"]).recordings
        here = transcribed(path)
        write_transcripts(tmp_path / "out", [replace(here, outcome=replace(here.outcome, recording=there))])
        line = job("pseudo-label", tmp_path / "out", "--out", tmp_path / "ray", "--address", made.address)
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("AWS_ENDPOINT_URL", NOWHERE)  # the option is stronger, here as on the nodes
            counts = finish([*line, "--endpoint-url", endpoint])
    assert counts["origins"] == {"ok": 1}
    assert counts["clips"] > 0


@pytest.mark.slow
def test_second_opinions_are_heard_on_the_cluster_before_it_reads(tmp_path: Path, made: Cluster) -> None:
    source = EXAMPLES / "audio" / "es_centralita.opus"
    finish([*job("transcribe", source, "--out", tmp_path / "here"), "--model", "fake", "--runner", "local"])
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    asked = ["--second-opinion", "fake", "--doubt-hallucination", "0"]
    here = finish([*job("pseudo-label", tmp_path / "here", "--out", tmp_path / "threads"), *asked])
    line = job("pseudo-label", tmp_path / "there", "--out", tmp_path / "ray", "--address", made.address)
    there = finish([*line, *asked])
    assert there["second_opinion"]["asked"] == here["second_opinion"]["asked"] > 0
    assert there["second_opinion"]["agreed"] == here["second_opinion"]["agreed"]
    assert {**there, "out": "", "second_opinion": 0} == {**here, "out": "", "second_opinion": 0}
