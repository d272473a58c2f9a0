"""Our engine with decoding and speech detection, in one process without Ray, for `workers.Worker`.

    python bench/ours.py MODEL THREADS [name=value ...]

The options are those of `pipeline.whisper.options.WhisperOptions`. All recordings of a question go through the stages
of `bulkscribe transcribe` together, so that the engine's batch is shared among them.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
from workers import Hear, Rows, options_of, serve

sys.path.insert(0, str(Path(__file__).parents[1]))  # before this folder, whose pipeline.py is not the library
from pipeline import hops, score
from pipeline.stages import CutOptions, Transcribe, cut_stage, mark_stage
from pipeline.types import SAMPLE_RATE, Outcome, Recording, Transcript
from pipeline.whisper.options import WhisperOptions


def main() -> None:
    model, threads, *words = sys.argv[1:]
    known = {field.name for field in fields(WhisperOptions)}
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in options_of(words).items()}
    if unknown := values.keys() - known:
        sys.exit(f"the engine has no option {', '.join(sorted(unknown))}")
    options = WhisperOptions(model=model, threads=int(threads), **values)
    serve(lambda: load(options))


def load(options: WhisperOptions) -> Hear:
    """Load the engine; return what transcribes recordings with it."""
    transcribe = Transcribe(options)

    def hear(entries: Rows) -> Rows:
        recordings = [Recording(e["uri"], e["uri"], language=e["language"]) for e in entries]
        tables: Iterable[pa.Table] = (hops.recordings_table([recording]) for recording in recordings)
        for transform in (cut_stage(CutOptions()).make(), transcribe, mark_stage(score.ScoreOptions()).make()):
            tables = transform(tables)
        transcripts: dict[str, list[Transcript]] = defaultdict(list)
        outcomes: dict[str, Outcome] = {}
        for item in (item for table in tables for item in hops.read_transcripts(table)):
            if isinstance(item, Outcome):
                outcomes[item.recording.id] = item
            else:
                transcripts[item.recording_id].append(item)
        return [answer(transcripts[recording.id], outcomes[recording.id]) for recording in recordings]

    return hear


def answer(transcripts: list[Transcript], outcome: Outcome) -> dict[str, Any]:
    finished = score.finish(transcripts, outcome)
    lines = [
        {"start": s.start / SAMPLE_RATE, "end": s.end / SAMPLE_RATE, "text": s.text, "doubtful": bool(s.flags)}
        for _, s in finished.segments
    ]
    return {"language": finished.language, "duration_s": outcome.duration / SAMPLE_RATE, "lines": lines}


if __name__ == "__main__":
    main()
