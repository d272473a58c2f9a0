"""Word errors, languages and inventions of `bulkscribe transcribe` on folders of recordings with references.

    python bench/accuracy.py FOLDER... [--detect] [--each] [--json FILE] [--peer [--peer-python PATH]]
                                       [-- --context passage ...]

A folder has a manifest.jsonl: uri, text (null: unknown, "": nothing is said) and language of each recording.
`segments.jsonl` beside it says where recordings have no speech. The languages of the manifest are given to the system,
but not with --detect. --peer runs faster-whisper on the same weights beside it (pip install faster-whisper==1.2.1, here
or in the environment of --peer-python). What stands behind `--` goes to `bulkscribe transcribe`. CPU time counts all
processes and the loading of the model.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
from figures import Figures, Heard, Line, compare, gaps_of

from pipeline.score import ScoreOptions
from pipeline.whisper.locate import locate

Entries = list[dict[str, Any]]
System = Callable[[Entries, Path], dict[str, Heard]]  # entries with absolute URIs, a scratch folder -> by URI


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="+", type=Path)
    parser.add_argument("--detect", action="store_true", help="do not give the languages")
    parser.add_argument("--each", action="store_true", help="print the figures of each recording, too")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--model", default="base")
    parser.add_argument("--peer", action="store_true", help="run faster-whisper, too")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that has faster-whisper")
    mine = sys.argv[1:]
    options = mine[mine.index("--") + 1 :] if "--" in mine else []
    arguments = parser.parse_args(mine[: mine.index("--")] if "--" in mine else mine)
    systems: dict[str, System] = {}
    if arguments.peer:  # first: where it is absent that is said at once
        systems["faster-whisper"] = lambda entries, out: peer(entries, out, arguments.model, arguments.peer_python)
    systems["bulkscribe"] = lambda entries, out: ours(entries, out, arguments.model, options)
    written = []
    for folder in arguments.folder:
        entries = [json.loads(line) for line in (folder / "manifest.jsonl").open(encoding="utf-8")]
        totals = []
        for name, system in systems.items():
            each, cpu_s = measure(folder, entries, system, detect=arguments.detect)
            for uri, figures in each.items() if arguments.each else ():
                tell(f"  {name}: {uri}", figures, detect=arguments.detect)
            totals.append(sum(each.values(), Figures(cpu_s=cpu_s)))
            tell(f"{folder.name}: {name}", totals[-1], detect=arguments.detect)
            written.append({"folder": folder.name, "system": name, "detect": arguments.detect} | totals[-1].as_json())
        if len(totals) == 2:
            tell_difference(folder.name, *totals)
    if arguments.json:
        arguments.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


def measure(folder: Path, entries: Entries, system: System, *, detect: bool) -> tuple[dict[str, Figures], float]:
    """Run a system over a folder: figures by URI, and CPU seconds."""
    asked = [
        {
            "uri": str((folder / entry["uri"]).absolute()),
            "language": None if detect else entry["language"],
            "multilingual": entry["language"] is None,
        }
        for entry in entries
    ]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as scratch:
        heard = system(asked, Path(scratch))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    gaps = gaps_of(folder)
    figures = {
        entry["uri"]: compare(entry, heard[question["uri"]], gaps.get(entry["uri"], ()))
        for entry, question in zip(entries, asked, strict=True)
    }
    return figures, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def ours(entries: Entries, scratch: Path, model: str, options: list[str]) -> dict[str, Heard]:
    """`bulkscribe transcribe`, as a process, and what its tables say."""
    manifest, out = write(scratch, entries), scratch / "out"
    command = [sys.executable, "-m", "jobs", "transcribe", str(manifest), "--out", str(out), "--model", model]
    subprocess.run([*command, "--runner", "local", *options], check=True, stdout=subprocess.DEVNULL)
    lines: dict[str, list[Line]] = defaultdict(list)
    rows = ds.dataset(out / "segments").to_table().to_pylist()
    for row in sorted(rows, key=lambda row: row["index"]):
        lines[row["recording_id"]].append(Line(row["start"], row["end"], row["text"], bool(row["flags"])))
    return {
        json.loads(row["metadata"])["asked"]: Heard(
            row["language"], row["duration_s"] or 0.0, lines[row["recording_id"]]
        )
        for row in ds.dataset(out / "recordings").to_table().to_pylist()
    }


def peer(entries: Entries, scratch: Path, model: str, python: str) -> dict[str, Heard]:
    """faster-whisper in a process of its own; its segments are held to our thresholds of doubt."""
    checkpoint, directory, heard = locate(model), scratch / "model", scratch / "heard.jsonl"
    directory.mkdir()
    with (directory / "model.bin").open("wb") as file:
        for part in checkpoint.weights:
            file.write(part.read_bytes())
    for path in checkpoint.config.parent.glob("*.*"):
        if path.suffix in (".json", ".txt"):
            shutil.copy(path, directory)
    script = Path(__file__).with_name("peer.py")
    done = subprocess.run([python, script, write(scratch, entries), directory, heard], check=False)
    if done.returncode:
        sys.exit(done.returncode)  # it has said why
    return {
        row["uri"]: Heard(row["language"], row["duration_s"], [peer_line(segment) for segment in row["segments"]])
        for row in map(json.loads, heard.open(encoding="utf-8"))
    }


def peer_line(segment: dict[str, Any]) -> Line:
    limits = ScoreOptions()
    doubtful = (
        segment["avg_logprob"] < limits.flag_logprob
        or segment["compression_ratio"] > limits.flag_compression_ratio
        or segment["no_speech_prob"] > limits.flag_no_speech
    )
    return Line(segment["start"], segment["end"], segment["text"], doubtful)


def write(scratch: Path, entries: Entries) -> Path:
    """Write the manifest that a system is given. `asked` is the URI as we spell it."""
    manifest = scratch / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(entry | {"asked": entry["uri"]}) + "\n" for entry in entries))
    return manifest


def tell(name: str, figures: Figures, *, detect: bool) -> None:
    """Print a line."""
    parts = [f"{figures.recordings} recordings"] if figures.recordings > 1 else []
    parts.append(f"{figures.audio_s / 60:.1f} min")
    if figures.reference_words:
        parts.append(
            f"word errors {figures.word_errors:.2f} % of {figures.reference_words}"
            f" ({figures.substitutions} wrong, {figures.deletions} left out, {figures.insertions} put in)"
        )
        parts.append(f"{figures.words_in_gaps} words in music, noise and silence")
    if figures.languages and detect:
        parts.append(f"language right {100 * figures.languages_right / figures.languages:.1f} %")
    if figures.speechless:
        parts.append(f"{figures.speechless} without speech: text in {figures.with_text}")
        parts.append(f"text without a flag in {figures.with_sure_text}")
    if figures.cpu_s:
        parts.append(f"{figures.cpu_s_per_hour:.0f} CPU s/h")
    print(f"{name}: {'; '.join(parts)}", flush=True)  # noqa: T201


def tell_difference(folder: str, theirs: Figures, ours: Figures) -> None:
    """Print what we have more (+) or less (-) than the peer."""
    parts = [f"word errors {ours.word_errors - theirs.word_errors:+.2f} points"] if ours.reference_words else []
    parts += [
        f"{name.replace('_', ' ')} {getattr(ours, name) - getattr(theirs, name):+d}"
        for name in ("languages_right", "with_text", "with_sure_text", "words_in_gaps")
        if getattr(ours, name) or getattr(theirs, name)
    ]
    parts.append(f"CPU x {ours.cpu_s_per_hour / theirs.cpu_s_per_hour:.2f}")
    print(f"{folder}: difference: {'; '.join(parts)}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
