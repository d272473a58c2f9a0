"""Word errors, languages and inventions of `bulkscribe transcribe` on folders of recordings with references.

    python bench/accuracy.py FOLDER... [--detect] [--each] [--json FILE] [-- --context passage ...]

A folder has a manifest.jsonl: uri, text (null: unknown, "": nothing is said) and language of each recording.
`segments.jsonl` beside it says where recordings have no speech. The languages of the manifest are given to the system,
but not with --detect. What stands behind `--` goes to `bulkscribe transcribe`. CPU time counts all processes and the
loading of the model. Other engines are compared by `engines.py`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import pyarrow.dataset as ds
from figures import Entries, Figures, Heard, Line, compare, entries_of, gaps_of, question
from workers import Cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="+", type=Path)
    parser.add_argument("--detect", action="store_true", help="do not give the languages")
    parser.add_argument("--each", action="store_true", help="print the figures of each recording, too")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--model", default="base")
    mine = sys.argv[1:]
    options = mine[mine.index("--") + 1 :] if "--" in mine else []
    arguments = parser.parse_args(mine[: mine.index("--")] if "--" in mine else mine)
    written = []
    for folder in arguments.folder:
        each, cpu_s = measure(folder, arguments.model, options, detect=arguments.detect)
        for uri, figures in each.items() if arguments.each else ():
            tell(f"  {uri}", figures, detect=arguments.detect)
        total = sum(each.values(), Figures(cpu_s=cpu_s))
        tell(folder.name, total, detect=arguments.detect)
        written.append({"folder": folder.name, "detect": arguments.detect} | total.as_json())
    if arguments.json:
        arguments.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


def measure(folder: Path, model: str, options: list[str], *, detect: bool) -> tuple[dict[str, Figures], float]:
    """Transcribe a folder: figures by URI, and CPU seconds."""
    entries = entries_of(folder)
    asked = [question(folder, entry, detect=detect) for entry in entries]
    before = Cost.now()
    with tempfile.TemporaryDirectory() as scratch:
        heard = transcribe(asked, Path(scratch), model, options)
    cost, gaps = Cost.now() - before, gaps_of(folder)
    figures = {
        entry["uri"]: compare(entry, heard[one["uri"]], gaps.get(entry["uri"], ()))
        for entry, one in zip(entries, asked, strict=True)
    }
    return figures, cost.cpu_s


def transcribe(entries: Entries, scratch: Path, model: str, options: list[str]) -> dict[str, Heard]:
    """`bulkscribe transcribe`, as a process, and what its tables say."""
    manifest, out = scratch / "manifest.jsonl", scratch / "out"
    manifest.write_text("".join(json.dumps(entry | {"asked": entry["uri"]}) + "\n" for entry in entries))
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


def tell(name: str, figures: Figures, *, detect: bool) -> None:
    """Print a line."""
    counted = [f"{figures.recordings} recordings"] if figures.recordings > 1 else []
    print(f"{name}: {'; '.join(counted + figures.sentences(detect=detect))}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
