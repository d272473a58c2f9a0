"""What the pipeline costs beside its engine: all of it, and the bare engine on the same passages in memory.

    python bench/pipeline.py SOURCE... [--runner ray] [--rounds 3] [--model base]

Prints wall and CPU time of both, how much of the engine's speed the pipeline loses, what starting takes (Ray, the
model; listed apart: nothing is decoded before the model is ready), and the shares of decoding and of speech detection
in the pipeline's CPU time, measured by running each alone over the same audio. CPU time is that of the whole tree of
processes; of Ray's, too. Best run on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pyarrow as pa
from workers import Cost

sys.path.insert(0, str(Path(__file__).parents[1]))  # before this folder, whose pipeline.py is not the library
from pipeline import storage
from pipeline.decode import DecodeOptions, Decoder
from pipeline.engines import load_engine
from pipeline.errors import DataError
from pipeline.ledger import Ledger
from pipeline.ray_options import RayOptions
from pipeline.rounds import Runner, complete, local
from pipeline.run import RayRunner
from pipeline.score import ScoreOptions
from pipeline.sources import resolve
from pipeline.speech import SpeechOptions, detect
from pipeline.stages import CutOptions, Plan, Transform, cut, cut_stage, mark_stage, transcribe_stage
from pipeline.types import SAMPLE_RATE, Engine, Passage, Pcm, Recording
from pipeline.whisper.options import WhisperOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="+")
    parser.add_argument("--runner", choices=("ray", "local"), default="ray")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--model", default="base")
    parser.add_argument("--language", help="spoken in the recordings; detected where it is not given")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    recordings = [replace(one, language=arguments.language) for one in resolve(arguments.source).recordings]
    options = WhisperOptions(model=arguments.model, threads=arguments.threads)

    hours, decoding, speech = alone(recordings)
    passages = [item for one in recordings for item in cut(one, CutOptions()) if isinstance(item, Passage)]
    print(f"{len(recordings)} recordings, {hours * 60:.1f} minutes, {len(passages)} passages")  # noqa: T201
    began = Cost.now()
    engine = load_engine(options)
    tell("loading the bare engine", Cost.now() - began)
    runner, starting = start(arguments.runner)
    if starting:
        tell("starting Ray", starting)
    bare, whole = [], []
    drain(engine, passages[:1])
    for _ in range(arguments.rounds):
        bare.append(drain(engine, passages))
        tell("bare engine", bare[-1], hours)
        loading, work = run(runner, options, recordings)
        tell("loading the pipeline's model", loading)
        whole.append(work)
        tell(f"pipeline, {arguments.runner}", work, hours)
    if isinstance(runner, RayRunner):
        runner.close()
    tell_difference(bare, whole, decoding, speech, hours)


def alone(recordings: Sequence[Recording]) -> tuple[float, Cost, Cost]:
    """Return the hours of audio, and what decoding and speech detection take when nothing else is done."""
    decoding = speech = Cost(0.0, 0.0)
    samples = 0
    for recording in recordings:
        began = Cost.now()
        blocks = list(decoded(recording))
        between = Cost.now()
        for _ in detect(blocks, SpeechOptions()):
            pass
        decoding += between - began
        speech += Cost.now() - between
        samples += sum(map(len, blocks))
    return samples / SAMPLE_RATE / 3600, decoding, speech


def decoded(recording: Recording) -> Iterator[Pcm]:
    """Yield the recording's audio, as far as it can be read."""
    uri = recording.uri
    opener = partial(storage.open_audio, recording.location, recording.version)
    decoder = Decoder(opener, storage.local_path(uri), DecodeOptions(), suffix=Path(uri).suffix)
    try:
        yield from decoder.blocks()
    except DataError:
        return


def drain(engine: Engine, passages: Iterable[Passage]) -> Cost:
    """Transcribe with the engine alone."""
    began = Cost.now()
    for _ in engine.transcribe(passages):
        pass
    return Cost.now() - began


def start(name: str) -> tuple[Runner, Cost | None]:
    """Return the runner and what starting it takes."""
    if name == "local":
        return local, None
    began, runner = tree(), RayRunner(RayOptions())
    runner.gpus()  # joins
    return runner, tree() - began


def run(runner: Runner, options: WhisperOptions, recordings: Sequence[Recording]) -> tuple[Cost, Cost]:
    """Run the whole pipeline, ledger and all; return what it takes until its model is ready, and from then on."""
    with tempfile.TemporaryDirectory() as scratch:
        ready, marks = Path(scratch, "ready"), [tree()]

        def watch() -> None:
            wait_for(ready)
            marks.append(tree())

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        plan = held(ready, options)
        with Ledger.open(f"{scratch}/out", {"bench": "pipeline"}, model=options.model) as ledger:
            for _ in complete(plan, ledger, ledger.todo(recordings), runner):
                pass
        end = tree()
    watcher.join()
    return marks[1] - marks[0], end - marks[1]


def held(ready: Path, options: WhisperOptions) -> Plan:
    """Return the plan of `bulkscribe transcribe`; its first stage waits until the engine has loaded."""
    first, second, third = cut_stage(CutOptions()), transcribe_stage(options), mark_stage(ScoreOptions())
    first = replace(first, make=partial(make_late, ready, first.make))
    return first, replace(second, make=partial(make_and_tell, ready, second.make)), third


def make_late(ready: Path, make: Callable[[], Transform]) -> Transform:
    transform = make()

    def late(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        wait_for(ready)
        yield from transform(tables)

    return late


def make_and_tell(ready: Path, make: Callable[[], Transform]) -> Transform:
    transform = make()
    ready.touch()
    return transform


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.02)


def tree() -> Cost:
    """Return the clocks of this process and all below it: their own time and that of the ended ones they waited for."""
    cpu_s = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            cpu_s += sum(process.cpu_times()[:4])  # user, system, and both of its children
        except psutil.Error:
            continue  # ended in the meantime
    return Cost(cpu_s, time.monotonic())


def tell(what: str, cost: Cost, hours: float = 0.0) -> None:
    """Print a cost, and its rate where it is of audio."""
    rate = f"  ({3600 * hours / cost.wall_s:.1f} x real time, {cost.cpu_s / hours:.0f} CPU s/h)" if hours else ""
    print(f"{what:28} {cost.wall_s:8.2f} s wall {cost.cpu_s:8.2f} s CPU{rate}", flush=True)  # noqa: T201


def tell_difference(bare: list[Cost], whole: list[Cost], decoding: Cost, speech: Cost, hours: float) -> None:
    """Print what the pipeline adds to the engine: median of the rounds, and the least and the most."""
    for name in ("wall_s", "cpu_s"):
        lost = sorted(100 * (1 - getattr(a, name) / getattr(b, name)) for a, b in zip(bare, whole, strict=True))
        spread = f"{lost[0]:.1f} to {lost[-1]:.1f}"
        print(f"of the pipeline's {name[:-2]} time not the engine's: {statistics.median(lost):.1f} % ({spread})")  # noqa: T201
    total = statistics.median(cost.cpu_s for cost in whole)
    for stage, cost in (("decoding", decoding), ("speech detection", speech)):
        rate = 3600 * hours / max(cost.cpu_s, 1e-9)
        share = f"{100 * cost.cpu_s / total:.1f} % of the pipeline's"
        print(f"{stage} alone: {cost.cpu_s:.2f} s CPU, {rate:.0f} x real time a core, {share}")  # noqa: T201


if __name__ == "__main__":
    main()
