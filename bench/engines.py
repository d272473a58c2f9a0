"""Ours and other engines side by side: CPU and wall time an hour of audio, word errors, languages; in one run.

    python bench/engines.py FOLDER... [--only NAME ...] [--detect] [--rounds 3] [--peer-python .peers/bin/python]
    python bench/engines.py FOLDER --systems ours 'ours beam=5' 'faster-whisper batch_size=8 beam_size=1'

Folders are as in `accuracy.py`. A system is a kind of engine (ours, faster-whisper, openai-whisper, whisper.cpp) with
options of its own. All have the same weights, audio, cores and threads, and do all that lies between a file and its
text. Each lives in a process of its own that has loaded its model and heard a clip before (told apart as loading). A
round gives each folder to one system after the other; the next one begins with another system. The slow ones
(openai-whisper, whisper.cpp) hear the first recordings of a folder only (--slow), and ours hear these again. The other
engines are installed by `bulkscribe[bench]`, here or in the environment of --peer-python; those that are absent are
named and left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from figures import Entries, Figures, Heard, compare, entries_of, gaps_of, question
from workers import Absent, Cost, Worker

sys.path.insert(0, str(Path(__file__).parents[1]))  # before this folder, whose pipeline.py is not the library
from checkpoints import write

from pipeline.ffmpeg_process import find_ffmpeg

HERE = Path(__file__).parent
WARM = [{"uri": str(HERE.parent / "examples/audio/es_centralita.opus"), "language": "es", "multilingual": False}]
SYSTEMS = (
    "ours evidence=false",
    "ours evidence=false beam=5",
    "faster-whisper batch_size=8 beam_size=1",
    "faster-whisper batch_size=8 beam_size=5",
    "faster-whisper beam_size=1",
    "faster-whisper beam_size=5",
    "whisper.cpp",
    "openai-whisper",
)
SLOW = ("openai-whisper", "whisper.cpp")


@dataclass
class Run:
    """What a system made of a folder, round by round."""

    folder: str
    system: str
    loading: Cost
    figures: Figures  # of the first round
    costs: list[Cost] = field(default_factory=list)

    def rates(self) -> list[float]:
        """Return CPU-seconds an hour of audio, of each round."""
        return [3600 * cost.cpu_s / self.figures.audio_s for cost in self.costs]

    def wall_rates(self) -> list[float]:
        """Return seconds an hour of audio, of each round."""
        return [3600 * cost.wall_s / self.figures.audio_s for cost in self.costs]

    def as_json(self) -> dict[str, Any]:
        """Return all that was counted."""
        names = {"folder": self.folder, "system": self.system}
        costs = {"loading": vars(self.loading), "rounds": [vars(cost) for cost in self.costs]}
        return names | self.figures.as_json() | costs


def main() -> None:
    arguments = parse()
    with ExitStack() as stack:
        workers = start(stack, arguments)
        runs = []
        for folder in arguments.folder:
            entries = entries_of(folder, arguments.only)[: arguments.limit]
            for part, systems in groups(entries, workers, arguments.slow) if entries else ():
                runs += measure(folder, part, systems, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps([run.as_json() for run in runs], indent=1) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="+", type=Path)
    parser.add_argument("--systems", nargs="+", default=SYSTEMS, metavar="SYSTEM")
    parser.add_argument("--model", default="base")
    parser.add_argument("--threads", type=int, default=2, help="threads and cores of each system")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these recordings of the folders")
    parser.add_argument("--limit", type=int, help="the first recordings of each folder")
    parser.add_argument("--slow", type=int, default=5, help=f"so many recordings of a folder for {' and '.join(SLOW)}")
    parser.add_argument("--detect", action="store_true", help="do not give the languages")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that has the other engines")
    parser.add_argument("--json", type=Path, help="write all figures here")
    return parser.parse_args()


def start(stack: ExitStack, arguments: argparse.Namespace) -> list[Worker]:
    """Start and load the systems, one after the other; say which cannot be had."""
    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    workers = []
    for system in arguments.systems:
        kind, *options = system.split()
        tail = [str(arguments.threads), *options]
        if kind == "ours":
            command = [sys.executable, str(HERE / "ours.py"), arguments.model, *tail]
        else:
            checkpoint = str(write(kind, arguments.model, scratch))
            command = [arguments.peer_python, str(HERE / "peer.py"), kind, checkpoint, *tail]
        try:
            workers.append(stack.enter_context(Worker(system, command, arguments.threads, find_ffmpeg(), WARM)))
        except Absent as absence:
            print(f"left out: {absence}", file=sys.stderr)  # noqa: T201
    return workers


def groups(entries: Entries, workers: list[Worker], slow: int) -> Iterator[tuple[Entries, list[Worker]]]:
    """Yield recordings with the systems that hear them: the slow ones hear the first, and ours hear these again."""
    lame = [worker for worker in workers if worker.name.startswith(SLOW)]
    if not lame or len(entries) <= slow:
        yield entries, workers
        return
    yield entries, [worker for worker in workers if worker not in lame]
    yield entries[:slow], [worker for worker in workers if worker.name.startswith("ours") or worker in lame]


def measure(folder: Path, entries: Entries, workers: list[Worker], arguments: argparse.Namespace) -> list[Run]:
    """Give recordings to systems, as often as there are rounds, and print what came of it."""
    runs: dict[str, Run] = {}
    for turn in range(arguments.rounds):
        for i in range(len(workers)):
            worker = workers[(turn + i) % len(workers)]
            figures, cost = hear(folder, entries, worker, detect=arguments.detect)
            took = f"{cost.cpu_s:.1f} s CPU, {cost.wall_s:.1f} s wall"
            print(f"{folder.name}, round {turn + 1}: {worker.name}: {took}", file=sys.stderr)  # noqa: T201
            run = runs.setdefault(worker.name, Run(folder.name, worker.name, worker.loading, figures))
            run.costs.append(cost)
    ordered = [runs[worker.name] for worker in workers]
    if ordered:
        tell(ordered, arguments)
    return ordered


def hear(folder: Path, entries: Entries, worker: Worker, *, detect: bool) -> tuple[Figures, Cost]:
    """Give recordings to a system once."""
    rows, cost = worker.hear([question(folder, entry, detect=detect) for entry in entries])
    gaps = gaps_of(folder)
    each = [compare(entry, Heard.of(row), gaps.get(entry["uri"], ())) for entry, row in zip(entries, rows, strict=True)]
    return sum(each, Figures()), cost


def tell(runs: list[Run], arguments: argparse.Namespace) -> None:
    """Print each system's figures, then the CPU time of each of ours over that of each other system."""
    width = max(len(run.system) for run in runs)
    recordings = runs[0].figures.recordings
    print(f"{runs[0].folder}: {recordings} recordings, {arguments.threads} threads, {arguments.rounds} rounds")  # noqa: T201
    print(f"  {'':{width}} loading s   CPU s/h  wall s/h")  # noqa: T201
    for run in runs:
        cpu, wall = statistics.median(run.rates()), statistics.median(run.wall_rates())
        said = "; ".join(run.figures.sentences(detect=arguments.detect))
        print(f"  {run.system:{width}} {run.loading.wall_s:9.1f} {cpu:9.1f} {wall:9.1f}  {said}")  # noqa: T201
    for ours in (run for run in runs if run.system.startswith("ours")):
        print(f"  CPU time of '{ours.system}' over that of (least, median, most of the rounds):")  # noqa: T201
        for run in runs:
            ratios = sorted(a / b for a, b in zip(ours.rates(), run.rates(), strict=True))
            if run is not ours:
                spread = f"{ratios[0]:5.2f} {statistics.median(ratios):5.2f} {ratios[-1]:5.2f}"
                print(f"  {run.system:{width}} {spread}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
