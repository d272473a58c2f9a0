"""The borders of the design: imports point one way, one file knows Ray, two folders know torch, help comes at once."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from jobs import COMMANDS

ROOT = Path(__file__).parent.parent

# From the bottom up. What stands in one set may import each other; sets in one row do not see each other.
ROWS: list[list[set[str]]] = [
    [{"schemas"}, {"pipeline", "pipeline.types", "pipeline.errors", "pipeline.processes"}],
    [
        {
            "pipeline.storage",
            "pipeline.stores",
            "pipeline.logs",
            "pipeline.uris",
            "pipeline.pieces",
            "pipeline.tars",
            "pipeline.datasets",
        },
        {"pipeline.decode", "pipeline.headers", "pipeline.ffmpeg_log", "pipeline.ffmpeg_process", "pipeline.selection"},
        {"pipeline.ranges"},
        {"pipeline.speech", "pipeline.speech_network", "pipeline.sound", "pipeline.edges"},
        {"pipeline.clips", "pipeline.gates"},
        {"pipeline.dedup"},
        {"pipeline.passages"},
        {"pipeline.levels"},
        {"pipeline.noise"},
        {
            "pipeline.score",
            "pipeline.signs",
            "pipeline.hallucination",
            "pipeline.hallucination_weights",
            "pipeline.omissions",
            "pipeline.cover",
            "pipeline.text_language",
            "pipeline.phrases",
            "pipeline.speakers",
            "pipeline.subtitles",
            "pipeline.paragraphs",
            "pipeline.redaction",
            "pipeline.weak_text",
        },
        {"pipeline.cues"},
        {"pipeline.decisions"},
        {"pipeline.doubts"},
        {"pipeline.metrics"},
        {"pipeline.text", "pipeline.beside", "pipeline.agreement"},
        {"pipeline.resampling"},
        {"pipeline.rttm"},
        {"pipeline.attempts"},
        {"pipeline.ray_joining"},
        {"pipeline.ray_options"},
        {"pipeline.spool"},
        {"pipeline.whisper"},
        {"pipeline.voices"},
    ],
    [{"pipeline.hops"}],
    [{"pipeline.rows", "pipeline.recordings", "pipeline.decision_rows", "pipeline.reviews"}, {"pipeline.engines"}],
    [{"pipeline.sources", "pipeline.manifests", "pipeline.feeds"}, {"pipeline.translation"}, {"pipeline.transcripts"}],
    [
        {"pipeline.references"},
        {"pipeline.asr_manifests"},
        {"pipeline.probes"},
        {"pipeline.candidates"},
        {
            "pipeline.reopening",
            "pipeline.excerpts",
            "pipeline.readings",
            "pipeline.stretches",
            "pipeline.readers",
        },
        {"pipeline.pairs"},
        {"pipeline.repeats"},
        {"pipeline.questions"},
    ],
    [
        {"pipeline.layouts", "pipeline.card"},
        {
            "pipeline.verdicts",
            "pipeline.tallies",
            "pipeline.anchors",
            "pipeline.sequences",
            "pipeline.examples",
        },
    ],
    [
        {"pipeline.stages", "pipeline.looks", "pipeline.hearing"},
        {
            "pipeline.books",
            "pipeline.ledger",
            "pipeline.lease",
            "pipeline.commits",
            "pipeline.parts",
            "pipeline.run_files",
            "pipeline.deaths",
        },
    ],
    [
        {"pipeline.run", "pipeline.rounds", "pipeline.watched"},
        {"pipeline.kept"},
        {"pipeline.check"},
        {"pipeline.links"},
        {"pipeline.timing", "pipeline.evaluation", "pipeline.comparison"},
        {"pipeline.frames"},
        {"pipeline.draws"},
        {"pipeline.forecast", "pipeline.trial"},
        {"pipeline.picks", "pipeline.digest", "pipeline.opinions", "pipeline.charts", "pipeline.page"},
        {"pipeline.shards", "pipeline.thinning"},
        {"pipeline.outputs"},
    ],
    [{"pipeline.cleaning", "pipeline.cleaned", "pipeline.clean_card"}],
    [{"jobs"}],
]
PLACES = {name: (level, group) for level, row in enumerate(ROWS) for group in row for name in group}
OURS = {"schemas", "pipeline", "jobs"}
FILES = sorted(path.relative_to(ROOT) for package in OURS for path in (ROOT / package).rglob("*.py"))


def module(path: Path) -> str:
    """`pipeline/whisper/mel.py` -> `pipeline.whisper.mel`."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def place(name: str) -> str:
    """Return the entry of ROWS that a module belongs to: whole packages, or single modules of `pipeline`."""
    top = name.split(".")[0]
    return ".".join(name.split(".")[:2]) if top == "pipeline" else top


@cache
def imported(path: Path) -> tuple[str, ...]:
    """Return the modules that a file imports anywhere, inside functions too."""
    return tuple(_imported(path))


def _imported(path: Path) -> Iterator[str]:
    modules = {module(file) for file in FILES}
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in modules else str(node.module)


def importers(package: str) -> set[str]:
    """Return the files that import a package."""
    return {str(path) for path in FILES if any(name.split(".")[0] == package for name in imported(path))}


def loaded(code: str) -> set[str]:
    """Run Python code in a fresh interpreter; return the packages that it has loaded."""
    code += "\nimport sys; print('\\n' + ' '.join(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_point_one_way(path: Path) -> None:
    assert place(module(path)) in PLACES, f"give {path} a place in ROWS"
    level, group = PLACES[place(module(path))]
    for name in imported(path):
        if name.split(".")[0] in OURS:
            other_level, other_group = PLACES[place(name)]
            assert other_group is group or other_level < level, f"{path} must not import {name}"


def test_whisper_knows_only_types_and_errors() -> None:
    allowed = {"pipeline.types", "pipeline.errors", "pipeline.whisper"}
    for path in FILES:
        if path.parts[:2] == ("pipeline", "whisper"):
            assert {place(name) for name in imported(path) if name.startswith("pipeline")} <= allowed, path


def test_schemas_import_only_pyarrow() -> None:
    for path in FILES:
        if path.parts[0] == "schemas":
            assert {name.split(".")[0] for name in imported(path)} <= {"__future__", "pyarrow", "schemas"}, path


def test_only_run_imports_ray() -> None:
    assert importers("ray") == {"pipeline/run.py"}


def test_only_whisper_and_voices_import_torch() -> None:
    folders = {"/".join(path.split("/")[:2]) for path in importers("torch")}
    assert folders == {"pipeline/whisper", "pipeline/voices"}


def test_voices_know_only_types_and_errors() -> None:
    allowed = {"pipeline.types", "pipeline.errors", "pipeline.voices"}
    for path in FILES:
        if path.parts[:2] == ("pipeline", "voices"):
            assert {place(name) for name in imported(path) if name.startswith("pipeline")} <= allowed, path


def test_no_module_is_called_utils() -> None:
    assert not [path for path in FILES if path.stem in ("utils", "util", "helpers", "common", "misc")]


def test_importing_the_library_loads_neither_ray_nor_torch() -> None:
    names = [module(path) for path in FILES if path.parts[0] != "jobs"]
    heavy = ("pipeline.whisper.", "pipeline.voices.")
    names = [name for name in names if not name.startswith(heavy) or name.endswith(".options")]
    code = "import importlib, sys\n" + "".join(
        f"importlib.import_module({name!r}); assert not {{'ray', 'torch'}} & set(sys.modules), {name!r}\n"
        for name in names
    )
    assert "numpy" in loaded(code)  # it did import them


def test_help_loads_nothing_heavy() -> None:
    packages = loaded("from jobs import main; main(['--help'], standalone_mode=False)")
    assert "click" in packages
    assert not packages & {"ray", "torch", "pandas", "pyarrow", "numpy", "onnx", "onnxruntime"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_loads_neither_ray_nor_torch(command: str) -> None:
    packages = loaded(f"from jobs import main; main([{command!r}, '--help'], standalone_mode=False)")
    assert "pipeline" in packages
    assert not packages & {"ray", "torch"}
