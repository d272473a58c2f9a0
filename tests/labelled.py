"""Transcripts of the examples without a model: their references, spread over the speech that Silero finds in them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
from outputs import segment

from pipeline import rows, storage
from pipeline.decode import Decoder
from pipeline.speech import SpeechOptions, detect
from pipeline.types import SAMPLE_RATE, Finished, Outcome, Recording, Segment, Span, Word

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = ("en_switchboard.mp3", "es_centralita.opus", "it_centralino.flac")
_STRICT = SpeechOptions(threshold=0.5, end_threshold=0.35, min_silence_ms=200, pad_ms=30)


def write_examples(folder: Path, *, words: bool = True) -> tuple[Path, Path]:
    """Copy three examples, write their transcripts; return both folders."""
    sources, out = folder / "sources", folder / "transcripts"
    sources.mkdir(parents=True)
    for name in NAMES:
        shutil.copy(EXAMPLES / "audio" / name, sources / name)
    write_transcripts(out, [transcribed(sources / name, words=words) for name in NAMES])
    return sources, out


def write_transcripts(out: Path, items: list[Finished], part: str = "part-0001.parquet") -> None:
    """Write finished recordings as an output of transcribe."""
    tables = {
        "recordings": rows.recording_rows(items, part=part, model="base", config_hash="c0ffee", run_id="run1"),
        "segments": rows.segment_rows(items),
        "words": rows.word_rows(items),
    }
    for name, table in tables.items():
        if table.num_rows or name != "words":
            (out / name).mkdir(parents=True, exist_ok=True)
            pq.write_table(table, out / name / part)


def transcribed(path: Path, *, words: bool = True) -> Finished:
    """Return the recording with its reference as text: a segment a sentence, a word where the speech is."""
    entry = storage.stat(str(path))
    decoder = Decoder(partial(storage.open_audio, str(path)), str(path))
    spans = [span for heard in detect(decoder.blocks(), _STRICT) for span in heard.spans]
    text = _reference(path.name)
    recording = Recording(f"{path.stem:a<16}"[:16], entry.uri, entry.size, entry.version, metadata='{"show": "phone"}')
    outcome = Outcome(recording, 1, spans[-1].end + 8_000, sum(map(len, spans)), media=decoder.media)
    segments = _segments(_placed(text.split(), spans), path.name[:2], words=words)
    return Finished(outcome, path.name[:2], 0.98, tuple((0, one) for one in segments))


def _reference(name: str) -> str:
    for line in (EXAMPLES / "references.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["uri"].endswith(name):
            return str(row["text"])
    raise KeyError(name)


def _placed(words: list[str], spans: list[Span]) -> list[Word]:
    """Spread words over speech by their letters, each inside one span."""
    total, speech = sum(map(len, words)), sum(map(len, spans))
    ends, passed = [], 0
    for span in spans:
        passed += len(span)
        ends.append(passed)
    bounds, said = [0.0], 0
    for word in words:
        said += len(word)
        bounds.append(said / total * speech)
    placed = []
    for word, (start, end) in zip(words, pairwise(bounds), strict=True):
        at = next(number for number, limit in enumerate(ends) if (start + end) / 2 <= limit)
        shift = spans[at].start - (ends[at - 1] if at else 0)
        span = Span(max(round(start + shift), spans[at].start), min(round(end + shift), spans[at].end))
        placed.append(Word(span.start, span.end, f" {word}", 0.9))
    return placed


def _segments(spoken: list[Word], language: str, *, words: bool) -> list[Segment]:
    """Return a segment a sentence."""
    found, sentence = [], list[Word]()
    for word in spoken:
        sentence.append(word)
        if word.text.endswith((".", "?", "!")) or word is spoken[-1]:
            text = "".join(one.text for one in sentence).strip()
            times = sentence[0].start / SAMPLE_RATE, sentence[-1].end / SAMPLE_RATE
            made = segment(*times, text, language=language)
            found.append(replace(made, words=tuple(sentence) if words else ()))
            sentence = []
    return found
