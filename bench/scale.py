"""How many recordings one driver and one writer carry: the real plan over many recordings that are made up.

    python bench/scale.py [--recordings 1000000] [--seconds 4] [--model fake:0.01] [--gpus 1000] [--mean-s 1200]
    python bench/scale.py --scan --recordings 1000000       # only what a resume costs

Real: the manifest and its listing, the cutting into passages, the hops between stages, Ray Data, the actor, the marks,
the ledger and its Parquet files. Made up: the audio (zeros, with spans said to be speech; one recording in a hundred
cannot be read) and the engine (`fake`, or `fake:SECONDS` for one that takes so long a window). The driver is killed
with SIGKILL at 90 %, and the same job run again to its end; then every recording must have its row, once.

At the end: what the driver alone can take, measured by handing it ready transcripts in its own process, and how many
GPUs that feeds when each decodes `--windows-per-s` and recordings are `--mean-s` long.

With `--scan` the ledger alone writes the rows (closing rows, as of silent recordings), and a driver starts on them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from processes import Sizes, cpu_s, samples

sys.path.insert(0, str(Path(__file__).parents[1]))  # before this folder, whose pipeline.py is not the library
from pipeline import hops
from pipeline.errors import OpenError
from pipeline.ledger import Ledger
from pipeline.passages import PassageCutter, PassageOptions
from pipeline.ray_options import RayOptions
from pipeline.rounds import complete
from pipeline.run import RayRunner
from pipeline.score import ScoreOptions
from pipeline.sources import resolve
from pipeline.stages import Plan, Stage, cut_tables, in_process, mark_stage, transcribe_stage
from pipeline.types import SAMPLE_RATE, Heard, Outcome, Passage, Recording, Span
from pipeline.whisper.options import WhisperOptions

GROUP = 30 * SAMPLE_RATE  # of audio that is made up at a time
BROKEN = 100  # one recording in so many cannot be read


def main() -> None:
    arguments = parse()
    if arguments.drive:
        drive(arguments)
        return
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        manifest, out = Path(scratch, "manifest.parquet"), Path(scratch, "out")
        write_manifest(manifest, arguments.recordings)
        if arguments.scan:
            fill(manifest, out, arguments.model)
            tell("run again when done", job(arguments, manifest, out))
            return
        first = job(arguments, manifest, out, kill_at=round(arguments.kill_at * arguments.recordings))
        tell("first run", first)
        if arguments.kill_at < 1:
            tell("after the kill", job(arguments, manifest, out))
        tell("run again when done", job(arguments, manifest, out))
        account(out, arguments.recordings)
        extrapolate(arguments)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=4.0, help="mean length of a recording")
    parser.add_argument("--model", default="fake")
    parser.add_argument("--kill-at", type=float, default=0.9, help="share; 1 for no kill")
    parser.add_argument("--gpus", type=int, default=1000)
    parser.add_argument("--windows-per-s", type=float, default=100.0, help="of each GPU, of 30 s each")
    parser.add_argument("--mean-s", type=float, nargs="+", default=[5, 30, 600, 3600], help="lengths to extrapolate to")
    parser.add_argument("--scratch", help="folder for the tables; they are removed at the end")
    parser.add_argument("--scan", action="store_true", help="measure the resume alone")
    parser.add_argument("--drive", nargs=2, metavar=("MANIFEST", "OUT"), help=argparse.SUPPRESS)
    return parser.parse_args()


def write_manifest(path: Path, recordings: int) -> None:
    """Write a manifest of recordings that are not there, with names as an archive has them."""
    uris = [f"{path.parent}/archive/2024/{n // 10_000:04}/programme-{n:09}.mp3" for n in range(recordings)]
    pq.write_table(pa.table({"uri": uris, "number": range(recordings)}), path)


def synthetic(mean_s: float, recording: Recording) -> Iterator[Passage | Outcome]:
    """Cut a recording that is made up: zeros, three quarters of them said to be speech; its length goes by its id."""
    rng = np.random.default_rng(int(recording.id[:16], 16))
    if not rng.integers(BROKEN):
        failure = OpenError("not_found", "made up").failure
        yield Outcome(recording, passages=0, duration=0, speech=0, failure=failure)
        return
    samples_left = 1 + round(min(rng.exponential(mean_s), 20 * mean_s) * SAMPLE_RATE)

    def heard() -> Iterator[Heard]:
        for at in range(0, samples_left, GROUP):
            size = min(GROUP, samples_left - at)
            spans = tuple(  # a sentence of 6 s in 8
                Span(start, min(start + 6 * SAMPLE_RATE, at + size)) for start in range(at, at + size, 8 * SAMPLE_RATE)
            )
            yield Heard(np.zeros(size, np.int16), spans, at + size)

    cutter = PassageCutter(recording, heard(), PassageOptions())
    passages = 0
    for passage in cutter:
        passages += 1
        yield passage
    yield Outcome(recording, passages, cutter.duration, cutter.speech, cutter.speechless)


def make_plan(model: str, mean_s: float) -> Plan:
    """Return the plan of `bulkscribe transcribe` with its first stage made up."""
    cutting = Stage("cut", partial(partial, cut_tables, partial(synthetic, mean_s)), cpus=1)
    return cutting, transcribe_stage(WhisperOptions(model=model)), mark_stage(ScoreOptions())


def drive(arguments: argparse.Namespace) -> None:
    """Be the driver: what `bulkscribe transcribe` does, telling each step on stdout."""
    manifest, out = arguments.drive
    begun = time.monotonic()
    recordings = resolve([manifest]).recordings
    say("listed", begun)
    begun = time.monotonic()
    with Ledger.open(out, {"bench": "scale"}, model=arguments.model) as ledger:
        todo = ledger.todo(recordings)
        say("scanned", begun, to_do=len(todo))
        runner, begun, done = RayRunner(RayOptions()), time.monotonic(), 0
        for finished, _ in complete(make_plan(arguments.model, arguments.seconds), ledger, todo, runner):
            if finished and not done:
                say("first", begun)  # Ray and the actor have started
                begun = time.monotonic()
            done += len(finished)
            if finished:
                say("done", begun, done=done)
        runner.close()
    say("ended", begun, done=done)


def say(event: str, begun: float, **more: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    more |= {"peak_rss": used.ru_maxrss * 1024}
    line = {"event": event, "s": time.monotonic() - begun, "cpu_s": used.ru_utime + used.ru_stime, **more}
    print(json.dumps(line), flush=True)  # noqa: T201


def fill(manifest: Path, out: Path, model: str) -> None:
    """Write a row for each recording of the manifest, with nothing but the ledger."""
    begun = time.process_time()
    with Ledger.open(str(out), {"bench": "scale"}, model=model) as ledger:
        todo = ledger.todo(resolve([str(manifest)]).recordings)
        for at in range(0, len(todo), 1000):
            ledger.receive(Outcome(one, passages=0, duration=0, speech=0) for one in todo[at : at + 1000])
    print(f"{len(todo)} rows written in {time.process_time() - begun:.0f} s of CPU")  # noqa: T201


def job(arguments: argparse.Namespace, manifest: Path, out: Path, kill_at: int | None = None) -> dict[str, Any]:
    """Run the driver in a process of its own, to its end or until so many recordings are done; return what it took."""
    command = [sys.executable, __file__, "--drive", str(manifest), str(out)]
    command += ["--model", arguments.model, "--seconds", str(arguments.seconds)]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    events: dict[str, Any] = {}
    reader = threading.Thread(target=listen, args=(driver, events, kill_at))
    reader.start()
    peak: Sizes = Counter()
    used: dict[int, float] = {}
    for _, sizes in samples(driver.pid, every_s=2.0):
        peak |= sizes
        events["tree_cpu_s"] = cpu_s(driver.pid, used)
        if driver.poll() is not None:
            break
    reader.join()
    if driver.wait() not in (0, -signal.SIGKILL):
        sys.exit(f"the driver ended with {driver.returncode}")
    return events | {"peak": peak, "size": sum(file.stat().st_size for file in out.rglob("*") if file.is_file())}


def listen(driver: subprocess.Popen[str], events: dict[str, Any], kill_at: int | None) -> None:
    """Keep the driver's latest word of each kind; kill it when it has done enough."""
    assert driver.stdout is not None
    for line in driver.stdout:
        if not line.startswith("{"):  # Ray's own words
            sys.stderr.write(line)
            continue
        event = json.loads(line)
        events[event["event"]] = event
        if kill_at is not None and event["event"] == "done" and event["done"] >= kill_at:
            os.kill(driver.pid, signal.SIGKILL)
            kill_at = None


def tell(what: str, events: dict[str, Any]) -> None:
    """Print what a run of the driver took."""
    listed, scanned = events["listed"], events["scanned"]
    scan_cpu_s = scanned["cpu_s"] - listed["cpu_s"]
    print(  # noqa: T201
        f"{what}: listed in {listed['s']:.1f} s ({listed['cpu_s']:.1f} s of CPU with imports);"
        f" scan {scanned['s']:.1f} s ({scan_cpu_s:.1f} s of CPU), {scanned['to_do']} to do"
    )
    if "done" in events:
        done = events["done"]
        print(  # noqa: T201
            f"    {done['done']} recordings in {done['s']:.0f} s = {done['done'] / done['s']:.0f}/s after"
            f" {events['first']['s']:.0f} s of starting; CPU: driver {done['cpu_s'] - scanned['cpu_s']:.0f} s,"
            f" all processes with starting {events['tree_cpu_s']:.0f} s"
        )
    last = events.get("ended", events.get("done"))
    rss = f"peak RSS of the driver {last['peak_rss'] / 1e6:.0f} MB (after listing {listed['peak_rss'] / 1e6:.0f},"
    print(f"    {rss} after the scan {scanned['peak_rss'] / 1e6:.0f}); tables {events['size'] / 1e6:.0f} MB")  # noqa: T201
    for kind, size in events["peak"].most_common():
        print(f"    {size / 1e6:8.0f} MB PSS at most: {kind}")  # noqa: T201


def account(out: Path, recordings: int) -> None:
    """Every recording has its row, once, and all segments that its row counts."""
    table = ds.dataset(out / "recordings").to_table(columns=["recording_id", "status", "segments"])
    segments = ds.dataset(out / "segments").count_rows()
    assert table.num_rows == len(pc.unique(table["recording_id"])) == recordings, "recordings are lost or doubled"
    assert segments == pc.sum(table["segments"]).as_py(), "segments are lost or doubled"
    statuses = ", ".join(f"{one['counts']} {one['values']}" for one in pc.value_counts(table["status"]).to_pylist())
    print(f"accounted for: {recordings} rows ({statuses}), {segments} segments")  # noqa: T201


def extrapolate(arguments: argparse.Namespace) -> None:
    """Print what the driver alone takes, and how many GPUs that would feed."""
    print(  # noqa: T201
        f"the driver alone (a second of CPU, ready transcripts in its process), and {arguments.gpus} GPUs of"
        f" {arguments.windows_per_s:g} windows/s:\n    mean length  recordings/s  windows/s  would feed  GPUs make"
    )
    for mean_s in arguments.mean_s:
        per_s, windows = driver_alone(mean_s, arguments.scratch)
        feeds = per_s * windows / arguments.windows_per_s
        made = arguments.gpus * arguments.windows_per_s / windows
        line = f"{mean_s:9g} s {per_s:13.0f} {per_s * windows:10.0f} {feeds:7.0f} GPUs {made:8.0f} recordings/s"
        print(f"    {line}", flush=True)  # noqa: T201


def driver_alone(mean_s: float, scratch: str | None, windows: int = 4_000) -> tuple[float, float]:
    """Return recordings a second of driver and writer when transcripts are there at once, and windows a recording."""
    per_recording = max(1.0, mean_s / 30)
    count = max(4, round(windows / per_recording))
    recordings = [Recording(f"{n:020x}", f"/archive/{n:09}.mp3") for n in range(count)]
    plan = make_plan("fake", mean_s)
    blocks = (hops.recordings_table(recordings[at : at + 200]) for at in range(0, count, 200))
    ready = [pa.concat_tables(list(in_process(plan, [block]))) for block in blocks]

    def replay(plan: Plan, recordings: Sequence[Recording]) -> Generator[pa.Table, None, None]:
        yield from ready

    with tempfile.TemporaryDirectory(dir=scratch) as out:
        begun = time.process_time()  # not of the clock: other work on the machine must not count
        with Ledger.open(out, {"bench": "scale"}, model="fake") as ledger:
            for _ in complete(plan, ledger, ledger.todo(recordings), replay):
                pass
        return count / (time.process_time() - begun), per_recording


if __name__ == "__main__":
    main()
