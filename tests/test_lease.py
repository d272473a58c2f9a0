"""One driver at a time writes to an output: real processes, suspended, killed and overtaken, on disk and on S3."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from s3_server import s3_server

from pipeline import lease, storage
from pipeline.errors import UserError
from pipeline.lease import Lease

ROOT = Path(__file__).parents[1]
HOLDER = """
import sys, time
from pipeline import lease
lease.BEAT_S = 0.1
held = lease.Lease.take(sys.argv[1], "first", over=len(sys.argv) > 2)
print("held", flush=True)
for line in sys.stdin:
    try:
        held.confirm()
        print("confirmed", flush=True)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)
held.release()
"""


@pytest.fixture(params=["disk", "s3"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return an output on disk, then one in an object store."""
    with s3_server() if request.param == "s3" else nullcontext():
        yield str(tmp_path / "out") if request.param == "disk" else "s3://audio/out"


@contextmanager
def holder(out: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that holds the lease on `out`, and confirms it for each line that it is sent."""
    command = [sys.executable, "-c", HOLDER, out, *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


def asked(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("?\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_second_driver_is_refused_and_told_who_is_at_work(out: str) -> None:
    with holder(out) as first:
        with pytest.raises(UserError, match=rf"in use by run first, process {first.pid} on ") as refused:
            Lease.take(out, "second")
        assert "--take-over" in refused.value.hint
        assert asked(first) == "confirmed"


def test_dead_holder_is_followed_at_once(out: str) -> None:
    with holder(out) as first:
        first.kill()
        first.wait()
        began = time.monotonic()
        Lease.take(out, "second").release()
        assert time.monotonic() - began < lease.EXPIRED_S / 2


def test_suspended_holder_that_was_overtaken_stops(out: str) -> None:
    with holder(out) as first:
        first.send_signal(signal.SIGSTOP)
        with pytest.raises(UserError, match="in use"):  # it lives: it may go on at any time
            Lease.take(out, "second")
        second = Lease.take(out, "second", over=True)
        first.send_signal(signal.SIGCONT)
        assert "run second on" in asked(first)
        time.sleep(0.5)  # beats of the first
        second.confirm()
        second.release()
        assert "its lease is gone" in asked(first)


def test_holder_on_another_machine_counts_as_long_as_its_file_changes(
    out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "EXPIRED_S", 2.0)
    monkeypatch.setattr(lease, "_machine", lambda: "mine")  # so the holder's is another
    with holder(out) as first:
        with pytest.raises(UserError, match="in use"):
            Lease.take(out, "second")
        first.send_signal(signal.SIGSTOP)
        Lease.take(out, "second").release()


def test_lease_that_is_given_back_leaves_no_trace(out: str) -> None:
    Lease.take(out, "first").release()
    assert storage.names(storage.join(out, "_staging")) == []


def test_id_of_a_dead_process_that_another_one_has_now_is_no_holder(tmp_path: Path) -> None:
    Lease.take(str(tmp_path), "first")
    path = tmp_path / "_staging" / lease.FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": os.getppid(), "process": "1"}))
    Lease.take(str(tmp_path), "second").release()
