"""The examples that the project carries are what they are said to be."""

from __future__ import annotations

import json
import runpy
import subprocess
from pathlib import Path

import pytest
from outputs import write_output

from pipeline.ffmpeg_process import find_ffmpeg

EXAMPLES = Path(__file__).parent.parent / "examples"
AUDIO = sorted((EXAMPLES / "audio").iterdir())
REFERENCES = [json.loads(line) for line in (EXAMPLES / "references.jsonl").read_text("utf-8").splitlines()]


def ffmpeg(path: Path) -> subprocess.CompletedProcess[bytes]:
    """Decode a file to PCM."""
    command = [find_ffmpeg(), "-v", "error", "-i", str(path), "-f", "s16le", "-ar", "16000", "-ac", "1", "pipe:"]
    return subprocess.run(command, capture_output=True, check=False)


def test_together_they_are_small() -> None:
    assert sum(path.stat().st_size for path in EXAMPLES.rglob("*") if path.is_file()) < 3_000_000


@pytest.mark.parametrize("path", AUDIO, ids=lambda path: path.name)
def test_all_but_the_broken_one_decode(path: Path) -> None:
    done = ffmpeg(path)
    if path.name == "truncated.m4a":
        assert done.returncode != 0
        assert b"moov atom not found" in done.stderr
    else:
        assert done.returncode == 0
        assert len(done.stdout) / 32_000 > {"episode.m4a": 180}.get(path.name, 10)  # seconds


def test_silence_is_silent() -> None:
    assert set(ffmpeg(EXAMPLES / "audio" / "silence.wav").stdout) == {0}


def test_every_recording_with_speech_has_a_reference() -> None:
    speechless = {"music.mp3", "silence.wav", "truncated.m4a"}
    assert {row["uri"] for row in REFERENCES} == {f"audio/{p.name}" for p in AUDIO if p.name not in speechless}
    assert {row["language"] for row in REFERENCES} == {"en", "es", "fr", "it", "ru"}
    assert all(len(row["text"].split()) > 30 for row in REFERENCES)


def test_every_recording_is_credited() -> None:
    credits_ = (EXAMPLES / "LICENSES.md").read_text(encoding="utf-8")
    assert [path.name for path in AUDIO if f"`{path.name}`" not in credits_] == []


def test_show_prints_texts_doubts_and_errors(tmp_path: Path) -> None:
    text = runpy.run_path(str(EXAMPLES / "show.py"))["show"](str(write_output(tmp_path)))
    assert "news.mp3: ok, 10 s, en\n     0.00    2.50  Good evening." in text
    assert "la la la la la  [repetitive, no_speech]" in text
    assert "broken.m4a: failed\n    moov atom not found" in text
    assert "nan" not in text
