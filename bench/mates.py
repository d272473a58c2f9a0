"""How often a recording's text depends on what else is in the batch: each passage alone against all together.

    python bench/mates.py FOLDER... --dtype bfloat16 float16 int8 float32 [--limit N] [--beam 5] [--device cuda]

Sums in half precision run in another order when the batch has another shape, and once in a while that turns a token
over. Together means many slots, and the passages in the order of the files; alone one slot, which takes one after the
other. Printed are, for each number format, the passages whose text or times differ, and those whose scores do.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # before this folder, whose pipeline.py is not the library
from figures import entries_of

from pipeline.stages import CutOptions, cut
from pipeline.types import Passage, Recording, Transcript
from pipeline.whisper.engine import WhisperEngine
from pipeline.whisper.options import WhisperOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="+", type=Path)
    parser.add_argument("--model", default="base")
    parser.add_argument("--dtype", nargs="+", default=["int8"])
    parser.add_argument("--beam", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--limit", type=int, help="only the first recordings of each folder")
    arguments = parser.parse_args()
    entries = [(folder, e) for folder in arguments.folder for e in entries_of(folder, None)[: arguments.limit]]
    recordings = [Recording(str(f / e["uri"]), str(f / e["uri"]), language=e["language"]) for f, e in entries]
    passages = [item for one in recordings for item in cut(one, CutOptions()) if isinstance(item, Passage)]
    for dtype in arguments.dtype:
        options = WhisperOptions(arguments.model, dtype=dtype, beam=arguments.beam, device=arguments.device)
        engine = WhisperEngine(options)
        together = answers(engine, passages)
        engine.slots = 1
        alone = answers(engine, passages)
        texts = sum(said(alone[key]) != said(together[key]) for key in together)
        scores = sum(alone[key].segments != together[key].segments for key in together)
        print(f"{dtype}: of {len(passages)} passages {texts} differ in text or times, {scores} in anything", flush=True)  # noqa: T201


def answers(engine: WhisperEngine, passages: list[Passage]) -> dict[tuple[str, int], Transcript]:
    return {(one.recording_id, one.passage): one for one in engine.transcribe(iter(passages)) if one}


def said(transcript: Transcript) -> list[tuple[int, int, str]]:
    return [(segment.start, segment.end, segment.text) for segment in transcript.segments]


if __name__ == "__main__":
    main()
