"""Word errors, languages and inventions of `bulkscribe transcribe` on folders of recordings with references.

    python bench/accuracy.py FOLDER... [--detect] [--peer] [-- --context passage ...]

A folder has a manifest.jsonl with uri, text, language, kind; `segments.jsonl` beside it says where nothing is spoken.
Word errors are pooled over a folder after Whisper's normalisation (its English one for en, its basic one otherwise, by
character for zh and ja, without accents where `ref_note` says that the reference has none). With --detect the
languages of the manifest are not given. What stands behind `--` goes to `bulkscribe transcribe`. With --peer
faster-whisper (`pip install faster-whisper==1.2.1`; int8, greedy, its defaults) transcribes them with the same weights.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from collections import defaultdict
from pathlib import Path
from typing import Any

import jiwer
import pyarrow.dataset as ds
from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer

from pipeline.whisper.locate import locate

ENGLISH, BASIC, CHARACTERS = EnglishTextNormalizer(), BasicTextNormalizer(), BasicTextNormalizer(split_letters=True)
EDGE_S = 0.3  # a word this close to speech is not held to be inside silence


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="+", type=Path)
    parser.add_argument("--detect", action="store_true", help="do not give the languages")
    parser.add_argument("--peer", action="store_true", help="measure faster-whisper instead")
    parser.add_argument("options", nargs="*", help="for bulkscribe transcribe, after --")
    own, _, rest = " ".join(sys.argv[1:]).partition(" -- ")
    arguments = parser.parse_args(own.split())
    for folder in arguments.folder:
        entries = [json.loads(line) for line in (folder / "manifest.jsonl").open(encoding="utf-8")]
        with tempfile.TemporaryDirectory() as scratch:
            before = cpu_seconds()
            if arguments.peer:
                results = peer(folder, entries, Path(scratch), detect=arguments.detect)
            else:
                results = transcribe(folder, entries, Path(scratch), detect=arguments.detect, options=rest.split())
        print(folder.name, summary(folder, entries, results, cpu_seconds() - before))  # noqa: T201


def cpu_seconds() -> float:
    """Return the CPU time of this process and its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def transcribe(
    folder: Path, entries: list[dict[str, Any]], scratch: Path, *, detect: bool, options: list[str]
) -> dict[str, dict[str, Any]]:
    """Run the command; return each recording's row with its segments, by the manifest's uri."""
    manifest = scratch / "manifest.jsonl"
    with manifest.open("w", encoding="utf-8") as file:
        for entry in entries:
            line = {"uri": str((folder / entry["uri"]).absolute()), "name": entry["uri"]}
            if not detect and entry["language"]:
                line["language"] = entry["language"]
            file.write(json.dumps(line) + "\n")
    out = scratch / "out"
    command = [sys.executable, "-m", "jobs", "transcribe", manifest, "--out", out, "--runner", "local", *options]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    segments = defaultdict(list)
    for row in ds.dataset(out / "segments").to_table().to_pylist():
        segments[row["recording_id"]].append(row)
    results = {}
    for row in ds.dataset(out / "recordings").to_table().to_pylist():
        row["rows"] = sorted(segments[row["recording_id"]], key=lambda segment: segment["index"])
        results[json.loads(row["metadata"])["name"]] = row
    return results


def peer(folder: Path, entries: list[dict[str, Any]], scratch: Path, *, detect: bool) -> dict[str, dict[str, Any]]:
    """Transcribe with faster-whisper; return what `transcribe` returns, as far as it goes."""
    from faster_whisper import WhisperModel

    checkpoint = locate("base")
    (scratch / "model.bin").write_bytes(checkpoint.read())
    for path in checkpoint.config.parent.iterdir():
        if path.suffix in (".json", ".txt"):
            shutil.copy(path, scratch)
    model = WhisperModel(str(scratch), device="cpu", compute_type="int8")
    results = {}
    for entry in entries:
        language = None if detect else entry["language"]
        several = not entry["language"] and bool(entry["text"])
        found, info = model.transcribe(str(folder / entry["uri"]), beam_size=1, language=language, multilingual=several)
        rows = [{"start": s.start, "end": s.end, "text": s.text.strip(), "flags": []} for s in found]
        results[entry["uri"]] = {"language": info.language, "duration_s": info.duration, "rows": rows}
    return results


def summary(folder: Path, entries: list[dict[str, Any]], results: dict[str, dict[str, Any]], cpu_s: float) -> str:
    """Return the figures of a folder in a line."""
    edits = reference_words = right = known = empty = invented = unflagged = inside = 0
    for entry in entries:
        result = results[entry["uri"]]
        text = " ".join(row["text"] for row in result["rows"])
        if entry["text"]:
            reference, heard = normalise(entry["text"], entry), normalise(text, entry)
            words = jiwer.process_words(reference, heard or " ")
            edits += words.substitutions + words.deletions + words.insertions
            reference_words += len(reference.split())
        elif entry["text"] == "":
            empty += 1
            invented += bool(text)
            unflagged += any(not row["flags"] for row in result["rows"])
        if entry["language"]:
            known += 1
            right += result["language"] == entry["language"]
        inside += words_in_silence(folder, entry["uri"], result["rows"])
    hours = sum(result["duration_s"] for result in results.values()) / 3600
    parts = [f"{len(entries)} recordings, {hours:.2f} h, {cpu_s / hours:.0f} CPU-seconds an hour"]
    parts += [f"word errors {100 * edits / reference_words:.2f} % of {reference_words}"] if reference_words else []
    parts += [f"language right {100 * right / known:.1f} %"] if known else []
    parts += [f"text in {invented} of {empty} recordings without speech, unflagged in {unflagged}"] if empty else []
    parts += [f"{inside} words where nothing is said"] if (folder / "segments.jsonl").exists() else []
    return "; ".join(parts)


def normalise(text: str, entry: dict[str, Any]) -> str:
    """Return the text as Whisper's evaluation compares it."""
    language = entry["language"]
    plain = (ENGLISH if language == "en" else CHARACTERS if language in ("zh", "ja") else BASIC)(text)
    if "ref_note" in entry:
        plain = "".join(c for c in unicodedata.normalize("NFD", plain) if not unicodedata.combining(c))
    return str(plain)


def words_in_silence(folder: Path, uri: str, segments: list[dict[str, Any]]) -> int:
    """Count words in music, noise and silence, taking a segment's words to be spread evenly over it."""
    path = folder / "segments.jsonl"
    if not path.exists():
        return 0
    known = [json.loads(line) for line in path.open(encoding="utf-8")]
    silent = [
        (part["start"] + EDGE_S, part["end"] - EDGE_S)
        for part in known
        if part["uri"] == uri and part["kind"] in ("music", "noise", "silence")
    ]
    count = 0
    for segment in segments:
        words = len(segment["text"].split())
        for i in range(words):
            middle = segment["start"] + (i + 0.5) / words * (segment["end"] - segment["start"])
            count += any(start < middle < end for start, end in silent)
    return count


if __name__ == "__main__":
    main()
