"""The benches run: on short clips, with our own engine only; and the one for GPUs needs no more than it says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CLIP = ROOT / "examples/audio/es_centralita.opus"


def bench(script: str, *arguments: str) -> str:
    """Run a script of bench/ and return what it prints."""
    command = [sys.executable, str(ROOT / "bench" / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def folder(path: Path, text: str) -> Path:
    """Make a folder of one recording with this reference."""
    path.mkdir()
    shutil.copy(CLIP, path)
    (path / "manifest.jsonl").write_text(json.dumps({"uri": CLIP.name, "text": text, "language": "es"}))
    return path


@pytest.mark.slow
def test_engines_compares_systems_on_the_same_audio(tmp_path: Path) -> None:
    references = (ROOT / "examples/references.jsonl").read_text(encoding="utf-8").splitlines()
    reference = next(row["text"] for row in map(json.loads, references) if CLIP.name in row["uri"])
    out = tmp_path / "figures.json"
    where = folder(tmp_path / "spanish", reference)
    said = bench(
        "engines.py", str(where), "--systems", "ours", "ours no_such=1", "ours best_of=2", "--rounds", "2",
        "--threads", "1", "--detect", "--json", str(out),
    )  # fmt: skip
    runs = json.loads(out.read_text())
    assert [run["system"] for run in runs] == ["ours", "ours best_of=2"]  # what cannot run is left out
    assert all(len(run["rounds"]) == 2 and run["loading"]["cpu_s"] > 0 for run in runs)
    assert all(run["reference_words"] > 5 and run["word_errors_percent"] < 30 for run in runs)
    assert "language right 100.0 %" in said


@pytest.mark.slow
def test_pipeline_tells_what_it_loses(tmp_path: Path) -> None:
    said = bench("pipeline.py", str(CLIP), "--runner", "local", "--language", "es", "--threads", "1")
    for part in ("bare engine", "pipeline, local", "decoding alone", "speech detection alone"):
        assert part in said


@pytest.mark.slow
def test_quality_holds_segments_against_what_is_said(tmp_path: Path) -> None:
    where = folder(tmp_path / "mixed", "Gracias por llamar a la centralita.")
    shutil.copy(CLIP.parent / "music.mp3", where)
    entries = [json.loads((where / "manifest.jsonl").read_text()) | {"duration_s": 39.0}]  # longer ones are no clips
    entries.append({"uri": "music.mp3", "text": "", "language": None, "duration_s": 30.7})
    (where / "manifest.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    out, rows = tmp_path / "figures.json", tmp_path / "rows.jsonl"
    bench("quality.py", str(where), "--rows", str(rows), "--share", "0.6", "--json", str(out))
    figures = json.loads(out.read_text())
    assert figures.keys() == {"scores", "rules", "reliability", "languages"}
    heard = rows.read_text(encoding="utf-8")
    bench("quality.py", str(where), "--rows", str(rows), "--share", "0.6")
    assert rows.read_text(encoding="utf-8") == heard  # nothing was heard twice


@pytest.mark.slow
def test_second_opinion_is_held_against_what_is_said(tmp_path: Path) -> None:
    where, rows = folder(tmp_path / "spanish", "Gracias por llamar a la centralita."), tmp_path / "rows.jsonl"
    entry = json.loads((where / "manifest.jsonl").read_text()) | {"duration_s": 39.0}  # longer ones are no clips
    (where / "manifest.jsonl").write_text(json.dumps(entry) + "\n")
    said = bench("second_opinion.py", str(where), "--rows", str(rows), "--share", "0.25", "--beam", "2")
    assert "hallucination_probability and cer" in said
    heard = [row for line in rows.read_text(encoding="utf-8").splitlines() for row in json.loads(line)["rows"]]
    assert heard
    assert all(row["second"] is not None and row["wer"] >= 0 for row in heard)
    assert bench("second_opinion.py", "--rows", str(rows)) == said


def test_gpu_bench_runs_on_a_cpu_without_ray_hub_and_arrow() -> None:
    absent = ("ray", "huggingface_hub", "pyarrow", "click", "onnx", "onnxruntime", "pandas", "smart_open", "rich")
    code = (
        f"import sys, runpy; sys.modules.update(dict.fromkeys({absent}))\n"  # importing None fails
        "sys.argv = 'gpu.py --shape tiny --device cpu --dtype float32 --slots 2 --seconds 1 --mean 10'.split()\n"
        f"sys.path.insert(0, {str(ROOT / 'bench')!r})\n"
        "runpy.run_module('gpu', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "windows/s" in done.stdout
