"""Who speaks when, against references: diarization error rates; and who is heard in several recordings.

    python bench/speakers.py FOLDER... [--speaker-threshold 0.4 0.5] [--speaker-model M] [--keep DIR]
    python bench/speakers.py --links MANIFEST... [--link-threshold 0.4 0.5] [--keep DIR]

A folder has recordings with an .rttm beside each, or a segments.jsonl with uri, start, end and speaker (null: nobody;
what stands in brackets after a name, as a language, does not make another person).
The error rate is that of pyannote.metrics: time that is missed, heard where nobody speaks, or given to another, overlap
counted, over the time that is spoken; with the reference's edges as they are, and without 0.25 s on each side of them.
`one speaker` is what one gets by giving all detected speech to one. --links: each recording of a JSON-lines manifest
with `uri` and `speaker` is somebody's; pairs of recordings are told apart, and people are linked as transcribe does.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate

sys.path.insert(0, str(Path(__file__).parents[1]))  # before this folder, whose pipeline.py is not the library
from pipeline import hops, speakers
from pipeline.engines import load_listener
from pipeline.links import people
from pipeline.speakers import SpeakerOptions
from pipeline.stages import CutOptions, cut
from pipeline.types import SAMPLE_RATE, Outcome, Recording, Span, Transcript
from pipeline.voices.options import VoiceOptions
from pipeline.whisper.options import WhisperOptions

PARTS = ("missed detection", "false alarm", "confusion")
COLLARS = {"0": 0.0, "0.25": 0.5}  # on each side of an edge; the library counts both


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="*", type=Path)
    parser.add_argument("--links", nargs="*", default=[], type=Path)
    parser.add_argument("--speaker-threshold", nargs="+", type=float, default=[SpeakerOptions.speaker_threshold])
    parser.add_argument("--link-threshold", nargs="+", type=float, default=[SpeakerOptions.link_threshold])
    parser.add_argument("--speaker-model", default=VoiceOptions.speaker_model)
    parser.add_argument("--keep", type=Path, help="keep what is heard here, and take it from there the next time")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="pyannote")
    ears = Ears(VoiceOptions(arguments.speaker_model), arguments.keep)
    for folder in arguments.folder:
        truth = references(folder)
        heard = {path: ears.hear(path) for path in truth}
        for threshold in arguments.speaker_threshold:
            told = {
                path: speakers.tell(items, SpeakerOptions(speakers=True, speaker_threshold=threshold))
                for path, (items, _) in heard.items()
            }
            hypotheses = {path: annotation([(one.label, one.spans) for one in told[path]]) for path in truth}
            say(f"{folder.name}, threshold {threshold:g}", truth, hypotheses, heard)
        alone = {
            path: annotation([("one", [s for t in items for s in t.speech])]) for path, (items, _) in heard.items()
        }
        say(f"{folder.name}, one speaker", truth, alone, heard)
    for manifest in arguments.links:
        linked(manifest, ears, arguments.link_threshold)
    if ears.heard_s:
        print(f"listening took {3600 * ears.cpu_s / ears.heard_s:.0f} CPU-seconds an hour of audio")  # noqa: T201


class Ears:
    """Hears the voices of recordings, once."""

    def __init__(self, options: VoiceOptions, keep: Path | None) -> None:
        self._listen, self._keep = load_listener(options, WhisperOptions("fake")), keep
        self.cpu_s = self.heard_s = 0.0

    def hear(self, path: Path) -> tuple[list[Transcript], float]:
        """Return the passages of a recording, without text, with their voices; and its seconds."""
        kept = self._keep / f"{path.parent.name}-{path.name}.parquet" if self._keep else None
        if kept and kept.exists():
            items = list(hops.read_transcripts(pq.read_table(kept)))
        else:
            items = list(self._listened(path))
            if kept:
                kept.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(hops.transcripts_table(items), kept)
        (duration,) = (one.duration / SAMPLE_RATE for one in items if isinstance(one, Outcome))
        return [one for one in items if isinstance(one, Transcript)], duration

    def _listened(self, path: Path) -> Iterator[Transcript | Outcome]:
        for item in cut(Recording(path.name, str(path)), CutOptions()):
            if isinstance(item, Outcome):
                self.heard_s += item.duration / SAMPLE_RATE
                yield item
                continue
            begun = time.process_time()
            voices = self._listen(item)
            self.cpu_s += time.process_time() - begun
            yield Transcript(item.recording_id, item.index, item.span, item.spans, (), "en", None, voices=voices)


def references(folder: Path) -> dict[Path, Annotation]:
    """Return who speaks when, by recording."""
    found: dict[Path, Annotation] = defaultdict(Annotation)
    if (folder / "segments.jsonl").exists():
        for line in (folder / "segments.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            truth = found[folder / row["uri"]]
            if row["speaker"]:
                truth[Segment(row["start"], row["end"]), len(truth)] = named(row["speaker"])
    for path in sorted(folder.glob("*.rttm")):
        (audio,) = (one for one in folder.glob(f"{path.stem}.*") if one != path)
        for line in path.read_text(encoding="utf-8").splitlines():
            start, length, speaker = (line.split()[at] for at in (3, 4, 7))
            found[audio][Segment(float(start), float(start) + float(length)), len(found[audio])] = speaker
    return found


def named(speaker: str) -> str:
    """Return the name alone: "Jane Roe (es-MX)" is the one who is "Jane Roe (en-US)" elsewhere."""
    return speaker.partition(" (")[0]


def annotation(turns: list[tuple[str, tuple[Span, ...] | list[Span]]]) -> Annotation:
    """Return turns as pyannote has them."""
    made = Annotation()
    for label, spans in turns:
        for span in spans:
            made[Segment(span.start / SAMPLE_RATE, span.end / SAMPLE_RATE), len(made)] = label
    return made


def say(
    title: str,
    truth: dict[Path, Annotation],
    hypotheses: dict[Path, Annotation],
    heard: dict[Path, tuple[list[Transcript], float]],
) -> None:
    """Print the error rates of each recording and of all together."""
    print(title)  # noqa: T201
    metrics = {name: DiarizationErrorRate(collar=collar) for name, collar in COLLARS.items()}
    for path in truth:
        whole = Timeline([Segment(0, heard[path][1])])
        parts = {name: one(truth[path], hypotheses[path], uem=whole, detailed=True) for name, one in metrics.items()}
        shares = ", ".join(f"{part} {100 * parts['0'][part] / parts['0']['total']:.1f}" for part in PARTS)
        rates = ", ".join(f"{100 * part['diarization error rate']:.1f} %" for part in parts.values())
        counts = f"{len(hypotheses[path].labels())} speakers for {len(truth[path].labels())}"
        print(f"  {path.name}: {rates} ({shares}), {counts}")  # noqa: T201
    print("  all: " + ", ".join(f"collar {name} s {100 * abs(one):.1f} %" for name, one in metrics.items()))  # noqa: T201
    both = [(one.get_overlap(), hypotheses[path].get_overlap()) for path, one in truth.items()]
    there, found = sum(one.duration() for one, _ in both), sum(other.duration() for _, other in both)
    right = sum(one.crop(other).duration() for one, other in both)
    print(f"  more than one speaks for {there:.1f} s; found {found:.1f} s, of which right {right:.1f} s")  # noqa: T201


def linked(manifest: Path, ears: Ears, thresholds: list[float]) -> None:
    """Print how often recordings of one speaker are linked, and of two."""
    vectors, names = [], []
    for line in manifest.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if not row.get("speaker"):
            continue
        told = speakers.tell(ears.hear(manifest.parent / row["uri"])[0], SpeakerOptions(speakers=True))
        if told:
            longest = max(told, key=lambda one: sum(map(len, one.spans)))
            vectors.append(longest.vector)
            names.append(named(row["speaker"]))
    likeness = np.array(vectors) @ np.array(vectors).T
    pairs = list(combinations(range(len(names)), 2))
    same = np.sort([likeness[pair] for pair in pairs if names[pair[0]] == names[pair[1]]])
    other = np.sort([likeness[pair] for pair in pairs if names[pair[0]] != names[pair[1]]])
    rates = [(np.mean(same < at), np.mean(other >= at)) for at in np.unique(np.concatenate([same, other]))]
    equal = min(rates, key=lambda rate: abs(rate[0] - rate[1]))
    rate = f"equal error rate {50 * sum(equal):.1f} % of pairs"
    print(f"{manifest}: {len(names)} recordings of {len(set(names))} speakers, {rate}")  # noqa: T201
    for threshold in thresholds:
        owners = people(np.array(vectors), threshold)
        both = [(owners[one] == owners[two], names[one] == names[two]) for one, two in pairs]
        found = sum(a and b for a, b in both) / max(1, sum(b for _, b in both))
        false = sum(a and not b for a, b in both) / max(1, sum(not b for _, b in both))
        words = f"{100 * found:.1f} % of the pairs of one speaker linked, {100 * false:.1f} % of the others"
        print(f"  threshold {threshold:g}: {len(set(owners.tolist()))} people, {words}")  # noqa: T201


if __name__ == "__main__":
    main()
