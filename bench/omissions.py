"""Omissions that are found, and false ones: text is removed on purpose from what the engine has written.

    python bench/omissions.py FOLDER... [--model base] [--words] [--keep DIR] [--seed 1]

A folder has a manifest.jsonl with the uri of each recording. `--keep` keeps the transcripts in DIR and takes them from
there the next time. One removal at a time: a segment; all segments of 30 s; the second half of a segment's text.
Counted are removals of text under at least 2 s of detected speech, found where an omission that was not there before
lies in the stretch. What is found in untouched transcripts counts as false; some of it is a real loss of the model's.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))  # before this folder, whose pipeline.py is not the library
from pipeline import hops
from pipeline.omissions import omissions
from pipeline.stages import CutOptions, cut_stage, in_process, transcribe_stage
from pipeline.types import SAMPLE_RATE, Omission, Recording, Segment, Span, Transcript
from pipeline.whisper.options import WhisperOptions

LEAST = 2 * SAMPLE_RATE  # of speech whose text is removed
WINDOW = 30 * SAMPLE_RATE
Removal = tuple[Span, list[Transcript]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="+", type=Path)
    parser.add_argument("--model", default="base")
    parser.add_argument("--words", action="store_true", help="with word times")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", action="store_true", help="print each false omission and each that is missed")
    arguments = parser.parse_args()
    options = WhisperOptions(model=arguments.model, words=arguments.words)
    for folder in arguments.folder:
        recordings = transcripts(folder, options, arguments.keep)
        print(folder.name, json.dumps(figures(recordings, random.Random(arguments.seed), each=arguments.each)))  # noqa: T201


def transcripts(folder: Path, options: WhisperOptions, keep: Path | None) -> dict[str, list[Transcript]]:
    """Return the transcripts of a folder's recordings, with languages detected."""
    kept = keep / f"{folder.name}{'-words' if options.words else ''}.parquet" if keep else None
    if kept and kept.exists():
        table = pq.read_table(kept)
    else:
        lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
        recordings = [Recording(uri, str(folder / uri)) for uri in (json.loads(line)["uri"] for line in lines)]
        plan = (cut_stage(CutOptions()), transcribe_stage(options))
        tables = [hops.recordings_table([recording]) for recording in recordings]
        table = pa.concat_tables(in_process(plan, tables)).combine_chunks()
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, kept)
    found: dict[str, list[Transcript]] = defaultdict(list)
    for item in hops.read_transcripts(table):
        if isinstance(item, Transcript):
            found[item.recording_id].append(item)
    return {id_: sorted(found[id_], key=lambda item: item.passage) for id_ in sorted(found)}


def figures(recordings: dict[str, list[Transcript]], rng: random.Random, *, each: bool) -> dict[str, float]:
    """Count omissions in untouched transcripts, and removals found by kind."""
    counts: Counter[str] = Counter()
    speech = segments = 0
    for id_, passages in recordings.items():
        before = omissions(passages)
        segments += sum(len(passage.segments) for passage in passages)
        speech += sum(len(span) for passage in passages for span in passage.speech)
        for omission in before:
            counts[f"untouched_{omission.reason}"] += 1
            if each:
                tell("untouched", id_, Span(omission.start, omission.end), passages)
        for kind, (span, rest) in removals(passages, rng):
            counts[f"{kind}_removed"] += 1
            new = set(omissions(rest)) - set(before)
            counts[f"{kind}_found"] += lies_in(new, span)
            if each and not lies_in(new, span):
                tell(f"missed, {kind}", id_, span, passages)
    return {"recordings": len(recordings), "segments": segments, "speech_s": speech // SAMPLE_RATE, **counts}


def lies_in(found: set[Omission], span: Span) -> bool:
    return any(span.overlap(Span(one.start, one.end)) for one in found)


def removals(passages: list[Transcript], rng: random.Random) -> Iterator[tuple[str, Removal]]:
    """Yield transcripts with text removed: up to 20 a recording and kind."""
    places = [(number, segment) for number, passage in enumerate(passages) for segment in passage.segments]
    rng.shuffle(places)
    taken: Counter[str] = Counter()
    for number, segment in places:
        passage, window = passages[number], Span(segment.start, segment.start + WINDOW)
        inside = [one for one in passage.segments if window.start <= one.start and one.end <= window.end]
        without = [one for one in passage.segments if one is not segment]
        halved = replace(
            segment, text=segment.text[: len(segment.text) // 2], words=segment.words[: len(segment.words) // 2]
        )
        kinds = {
            "segment": (Span(segment.start, segment.end), without, 1.0),
            "window": (
                Span(segment.start, inside[-1].end),
                [one for one in passage.segments if one not in inside],
                1.0,
            ),
            "half": (
                Span(segment.start, segment.end),
                [halved if one is segment else one for one in passage.segments],
                0.5,
            ),
        }
        for kind, (span, left, share) in kinds.items():
            removed = share * sum(span.overlap(one) for one in passage.speech)
            if removed >= LEAST and taken[kind] < 20:
                taken[kind] += 1
                yield kind, (span, [*passages[:number], changed(passage, left), *passages[number + 1 :]])


def changed(passage: Transcript, segments: list[Segment]) -> Transcript:
    return replace(passage, segments=tuple(segments))


def tell(what: str, id_: str, span: Span, passages: list[Transcript]) -> None:
    texts = [
        segment.text for one in passages for segment in one.segments if Span(segment.start, segment.end).overlap(span)
    ]
    print(f"  {what}: {id_} {span.start / SAMPLE_RATE:.1f} to {span.end / SAMPLE_RATE:.1f} s, {texts}")  # noqa: T201


if __name__ == "__main__":
    main()
