"""What a listing of millions of objects takes before the first is worked on: memory, disk, time.

    python bench/listing.py [--objects 1000000 10000000] [--done 0.5]

A server of its own answers ListObjectsV2 over HTTP with names that it makes up, a thousand a page; the library lists
them as any S3 prefix, asks a ledger what is left to do, and packs the first blocks. `--done` is the share that has a
row in the output already. Memory is what belongs to the process alone (RssAnon: what is mapped from the file of the
list can be dropped), sampled while it works. Linux only.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from multiprocessing import Process
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

sys.path.insert(0, str(Path(__file__).parents[1]))  # before this folder, whose pipeline.py is not the library
from pipeline import sources
from pipeline.ledger import Ledger
from pipeline.recordings import pack
from pipeline.types import Failure, Outcome, Recording

PAGE = 1000  # keys, as S3 gives them
PREFIX = "podcasts/"
HEADER = ("objects", "step", "wall s", "CPU s", "memory now", "at most", "list on disk")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--done", type=float, default=0.0, help="share that has a row in the output already")
    parser.add_argument("--drive", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drive:
        drive(int(arguments.drive[0]), arguments.drive[1], arguments.done)
        return
    print("  ".join(f"{name:>12}" for name in HEADER) + "   (MB)", flush=True)  # noqa: T201
    for objects in arguments.objects:
        measure(objects, arguments.done)


def measure(objects: int, done: float) -> None:
    """List in a process of its own, and print the lines that it tells of each step."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(objects))
    serving = Process(target=server.serve_forever, daemon=True)
    serving.start()
    server.server_close()
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    where = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}"}
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, __file__, "--done", str(done), "--drive", str(objects), out]
        with subprocess.Popen(command, env=os.environ | keys | where, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            memory = Memory(child.pid)
            memory.start()
            for line in child.stdout:
                step, *figures = line.split(";")
                wall, cpu, mapped = map(float, figures)
                sizes = (f"{size / 1e6:.0f}" for size in (memory.now, memory.most, mapped))
                numbers = (f"{wall:.1f}", f"{cpu:.1f}", *sizes)
                print("  ".join(f"{cell:>12}" for cell in (f"{objects:,}", step, *numbers)), flush=True)  # noqa: T201
        assert child.returncode == 0
    serving.terminate()


def drive(objects: int, out: str, done: float) -> None:
    """List, ask what is to do, pack; tell a line after each."""
    steps = Steps()
    steps.end("start")
    listing = sources.resolve([f"s3://archive/{PREFIX}"])
    assert len(listing.recordings) == objects
    steps.end("list")
    if done:
        write(listing.recordings[: round(objects * done)], out)
        steps.end("rows written")
    with Ledger.open(out, {"bench": "listing"}, model="fake") as ledger:
        steps.end("open")
        todo = ledger.todo(listing.recordings)
        assert len(todo) == objects - round(objects * done)
        steps.end("what is to do")
        for block in islice(pack(todo, 200), 100):
            block.table()
        steps.end("100 blocks")


def write(recordings: Iterable[Recording], out: str) -> None:
    """Give recordings a row."""
    failure = Failure("decode", "made_up", "of the benchmark", retryable=False)
    with Ledger.open(out, {"bench": "listing"}, model="fake") as ledger:
        for recording in ledger.todo(recordings):
            ledger.receive([Outcome(recording, passages=0, duration=0, speech=0, failure=failure)])


class Steps:
    """Tells what each step of this process took."""

    def __init__(self) -> None:
        self._begun, self._cpu = time.monotonic(), time.process_time()

    def end(self, step: str) -> None:
        """Print name, seconds, seconds of CPU, and bytes of files without a name that are mapped."""
        wall, cpu = time.monotonic() - self._begun, time.process_time() - self._cpu
        mapped = 0
        for line in Path("/proc/self/maps").read_text().splitlines():
            if "(deleted)" in line:
                start, end = (int(part, 16) for part in line.split()[0].split("-"))
                mapped += end - start
        print(f"{step};{wall};{cpu};{mapped}", flush=True)  # noqa: T201
        self._begun, self._cpu = time.monotonic(), time.process_time()


class Memory(threading.Thread):
    """The most memory that belonged to another process alone, so far."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.now = self.most = 0
        self._pid = pid

    def run(self) -> None:
        """Look until the process ends."""
        with suppress(OSError):
            while found := re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{self._pid}/status").read_text()):
                self.now = int(found[1]) * 1024
                self.most = max(self.most, self.now)
                time.sleep(0.02)


def handler(objects: int) -> type[BaseHTTPRequestHandler]:
    """Return what answers as S3 does about a bucket with so many objects under PREFIX."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(404, b"")

        def do_GET(self) -> None:
            asked = parse_qs(urlsplit(self.path).query)
            start, most = int(asked.get("continuation-token", ["0"])[0]), int(asked.get("max-keys", [PAGE])[0])
            end = min(start + most, objects)
            more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < objects else ""
            self._answer(
                200,
                f"<?xml version='1.0' encoding='UTF-8'?><ListBucketResult><Name>archive</Name><KeyCount>{end - start}"
                f"</KeyCount><IsTruncated>{str(end < objects).lower()}</IsTruncated>{more}"
                f"{''.join(map(item, range(start, end)))}</ListBucketResult>".encode(),
            )

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    return Handler


def item(number: int) -> str:
    """Return an object, as pages name it."""
    return (
        f"<Contents><Key>{PREFIX}{number // 10_000:06}/episode-{number:012}.mp3</Key><LastModified>"
        f'2026-01-02T03:04:05.000Z</LastModified><ETag>"{number:032x}"</ETag><Size>{number % 65_536 + 1}</Size>'
        "<StorageClass>STANDARD</StorageClass></Contents>"
    )


if __name__ == "__main__":
    main()
