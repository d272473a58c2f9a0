"""`bulkscribe doctor`: is everything here that a job needs? Each check is ok, or says what would help."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version

import click

from jobs.options import stores
from pipeline import engines, storage
from pipeline.errors import UserError
from pipeline.ffmpeg_process import find_ffmpeg
from pipeline.voices.options import VoiceOptions
from pipeline.whisper.options import WhisperOptions


@click.command(epilog="Example:  bulkscribe doctor --model large-v3 --out s3://bucket/transcripts")
@click.option("--model", default=WhisperOptions.model, show_default=True, help="Model to look for.")
@click.option("--speakers", is_flag=True, help="Look for the models that tell speakers apart, too.")
@click.option("--out", default=".", show_default=True, help="Folder or prefix whose write access is tried.")
@stores
def command(model: str, speakers: bool, out: str) -> None:
    """Check ffmpeg, the device, the model, speech detection, Ray and write access, and say what is missing."""
    checks: dict[str, Callable[[], str]] = {
        "ffmpeg": _ffmpeg,
        "speech detection": _speech,
        "device": _device,
        "model": lambda: _model(model),
        **({"speakers": _speakers} if speakers else {}),
        "ray": _ray,
        "write access": lambda: _write_access(out),
    }
    failed = 0
    for name, check in checks.items():
        try:
            click.echo(f"ok    {name}: {check()}")
        except UserError as error:
            failed += 1
            click.echo(f"FAIL  {name}: {error}")
            click.echo(f"      hint: {error.hint}")
    sys.exit(1 if failed else 0)


def _ffmpeg() -> str:
    path = find_ffmpeg()
    first = subprocess.run([path, "-version"], capture_output=True, text=True, check=False).stdout.partition("\n")[0]
    if not first:
        raise UserError(f"{path} does not run", "set BULKSCRIBE_FFMPEG to an ffmpeg that does")
    return f"{' '.join(first.split()[:3])} ({path})"


def _speech() -> str:
    from pipeline.speech import load_session

    load_session()
    return f"Silero {version('silero-vad')} on onnxruntime {version('onnxruntime')}"


def _device() -> str:
    from pipeline.whisper.device import describe_device

    return describe_device()


def _model(name: str) -> str:
    sha256 = engines.describe(WhisperOptions(model=name))["weights_sha256"]
    return f"{name}, SHA-256 {sha256[:12]}..."


def _speakers() -> str:
    sha256 = engines.describe_voices(VoiceOptions())["speaker_sha256"]
    return f"{VoiceOptions.speaker_model}, SHA-256 {sha256[:12]}..."


def _ray() -> str:
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < 1 << 30:
        raise UserError(
            f"only {free >> 20} MiB are free in {tempfile.gettempdir()}, where Ray keeps its session",
            "free some space, or set RAY_TMPDIR",
        )
    return f"{version('ray')}, session files in {tempfile.gettempdir()}"


def _write_access(out: str) -> str:
    probe = storage.join(out, ".bulkscribe-probe")
    storage.write_bytes(probe, b"")
    storage.delete(probe)
    return storage.redacted(out)
