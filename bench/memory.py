"""Memory of a job with everything it starts, as recordings grow longer and more of them come.

    python bench/memory.py [long] [short] [many] [--hours 1 10] [--short 10000] [--long 100] [--minutes 30]

long   one recording after the other, of `--hours` each: the longest must need no more memory than the shortest
short  a job over `--short` recordings of five seconds, many a folder full of links to one file
many   a job over `--long` recordings of `--minutes` each
All decode real speech (examples/audio, repeated) with ffmpeg, through Ray. Of each job: the peak of the proportional
set size (each page shared by n processes counts 1/n in each) of its process tree, of the driver alone, and of the tree
in the first and the last third of the time in which recordings are worked on; what Ray's object store held at most,
and what it has spilled to disk. With `--model base` the engine is real, and the times are, too. Linux only.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from processes import Sizes, samples

sys.path.insert(0, str(Path(__file__).parents[1]))  # before this folder, whose pipeline.py is not the library
from pipeline.ffmpeg_process import find_ffmpeg
from pipeline.ledger import Ledger
from pipeline.ray_options import RayOptions
from pipeline.rounds import complete
from pipeline.run import RayRunner
from pipeline.score import ScoreOptions
from pipeline.sources import resolve
from pipeline.stages import CutOptions, cut_stage, mark_stage, transcribe_stage
from pipeline.types import SAMPLE_RATE
from pipeline.whisper.options import WhisperOptions

AUDIO = Path(__file__).parents[1] / "examples" / "audio"
SPOKEN_S = 12  # of the example's episode, from which on somebody speaks
HEADER = ("job", "wall s", "x real", "peak", "driver", "first third", "last third", "store", "spilled")


@dataclass(frozen=True)
class Figures:
    """What a job took; sizes in bytes."""

    recordings: int
    hours: float
    wall_s: float  # from the first recording received to the last
    peak: int
    driver: int
    first: int  # the peak in the first third of wall_s
    last: int  # and in the last
    store: int  # the most that the object store held
    spilled: int
    kinds: Sizes  # each at its own peak
    early: Sizes  # likewise, in the first third
    late: Sizes


def main() -> None:
    arguments = parse()
    if arguments.drive:
        drive(*arguments.drive, arguments.model)
        return
    what = arguments.what or ["long", "short", "many"]
    print("  ".join(f"{name:>11}" for name in HEADER) + "   (MB)")  # noqa: T201
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        for name, folder in jobs(what, Path(scratch), arguments):
            tell(name, measure(folder, Path(scratch), arguments.model))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=("long", "short", "many", []), help="which jobs; all by default")
    parser.add_argument("--hours", type=float, nargs="+", default=[1, 10])
    parser.add_argument("--short", type=int, default=10_000)
    parser.add_argument("--long", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--model", default="fake")
    parser.add_argument("--scratch", help="folder for audio and tables; they are removed at the end")
    parser.add_argument("--drive", nargs=2, metavar=("SOURCE", "OUT"), help=argparse.SUPPRESS)
    return parser.parse_args()


def jobs(what: Iterable[str], scratch: Path, arguments: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """Make the sources of each job when its turn comes; yield its name and its folder."""
    for name in what:
        if name == "long":
            for hours in arguments.hours:
                yield f"1 x {hours:g} h", copies(speech(scratch, hours * 60), scratch / f"hours{hours:g}", 1)
        elif name == "short":
            clip = speech(scratch, 5 / 60)
            yield f"{arguments.short} short", copies(clip, scratch / "short", arguments.short)
        else:
            long = speech(scratch, arguments.minutes)
            yield f"{arguments.long} x {arguments.minutes:g} m", copies(long, scratch / "many", arguments.long)


def speech(folder: Path, minutes: float) -> Path:
    """Return the example's episode, repeated to a length."""
    audio, once = folder / f"{minutes:g}.opus", folder / "once.opus"
    make = [find_ffmpeg(), "-v", "error", "-y"]
    spoken = ["-ss", str(SPOKEN_S), "-b:a", "24k"]
    subprocess.run([*make, "-i", str(AUDIO / "episode.m4a"), *spoken, str(once)], check=True)
    again = ["-stream_loop", "-1", "-i", str(once), "-t", str(minutes * 60), "-c", "copy"]
    subprocess.run([*make, *again, str(audio)], check=True)
    return audio


def copies(audio: Path, folder: Path, count: int) -> Path:
    """Return a folder with so many recordings, links to one file."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:06}{audio.suffix}").symlink_to(audio)
    return folder


def drive(source: str, out: str, model: str) -> None:
    """Be the driver: what `bulkscribe transcribe` does, telling what is done, and at the end what Ray's store says."""
    recordings = resolve([source]).recordings
    plan = (cut_stage(CutOptions()), transcribe_stage(WhisperOptions(model=model)), mark_stage(ScoreOptions()))
    runner = RayRunner(RayOptions())
    with Ledger.open(out, {"bench": "memory"}, model=model) as ledger:
        heard = done = highest = 0
        looked = 0.0
        for finished, received in complete(plan, ledger, ledger.todo(recordings), runner):
            heard, done = heard + received, done + len(finished)
            if time.monotonic() - looked > 1:
                looked, highest = time.monotonic(), max(highest, store()[0])
            say(done=done, hours=heard / SAMPLE_RATE / 3600, store=highest)
        say(done=done, hours=heard / SAMPLE_RATE / 3600, store=highest, spilled=store()[1])
    runner.close()


def store() -> tuple[int, int]:
    """Return the bytes that Ray's object store holds, and those that it has written to disk for want of room."""
    from ray._private import internal_api, state

    reply = internal_api.get_memory_info_reply(state.state)
    return reply.store_stats.object_store_bytes_used, reply.store_stats.spilled_bytes_total


def say(**values: float) -> None:
    print(json.dumps(values | {"rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)  # noqa: T201


def measure(folder: Path, scratch: Path, model: str) -> Figures:
    """Run a job in a process of its own; sample it as long as it lasts."""
    out = scratch / f"out-{folder.name}"
    command = [sys.executable, __file__, "--drive", str(folder), str(out), "--model", model]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said: dict[str, float] = {}
    begun, times = time.monotonic(), list[float]()

    def listen() -> None:
        assert job.stdout is not None
        for line in job.stdout:
            said.update(json.loads(line))
            times.append(time.monotonic() - begun)

    reader = threading.Thread(target=listen)
    reader.start()
    taken = []
    for at, sizes in samples(job.pid, every_s=1.0):
        taken.append((at, sizes))
        if job.poll() is not None:
            break
    reader.join()
    if job.wait():
        sys.exit(f"the driver ended with {job.returncode}")
    return figures(said, times, taken)


def figures(said: dict[str, float], times: list[float], taken: list[tuple[float, Sizes]]) -> Figures:
    """Put the samples of a job together."""
    start, end = times[0], times[-2]  # the first and the last receipt
    third = (end - start) / 3
    kinds = peaks(taken, 0, taken[-1][0])

    def peak(since: float, until: float) -> int:
        return max((sizes.total() for at, sizes in taken if since <= at <= until), default=0)

    return Figures(
        recordings=int(said["done"]),
        hours=said["hours"],
        wall_s=end - start,
        peak=peak(0, end),
        driver=int(kinds["driver"]),
        first=peak(start, start + third),
        last=peak(end - third, end),
        store=int(said.get("store", 0)),
        spilled=int(said["spilled"]),
        kinds=kinds,
        early=peaks(taken, start, start + third),
        late=peaks(taken, end - third, end),
    )


def peaks(taken: list[tuple[float, Sizes]], since: float, until: float) -> Sizes:
    """Return the peak of each kind of process in a stretch of time."""
    kinds: Sizes = Counter()
    for at, sizes in taken:
        if since <= at <= until:
            kinds |= sizes
    return kinds


def tell(name: str, found: Figures) -> None:
    sizes = (found.peak, found.driver, found.first, found.last, found.store, found.spilled)
    speed = found.hours * 3600 / max(found.wall_s, 1e-9)
    cells = [name, f"{found.wall_s:.0f}", f"{speed:.0f}", *(f"{size / 1e6:.0f}" for size in sizes)]
    print("  ".join(f"{cell:>11}" for cell in cells), flush=True)  # noqa: T201
    for kind, size in found.kinds.most_common():
        thirds = f"{found.early[kind] / 1e6:8.0f} {found.late[kind] / 1e6:8.0f}"
        print(f"{'':13}{size / 1e6:8.0f} MB at most, in the thirds {thirds}: {kind}")  # noqa: T201


if __name__ == "__main__":
    main()
