"""The shell around the commands: errors, exit codes, version, names."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import jobs
from jobs import running
from pipeline.errors import UserError

ROOT = Path(__file__).parent.parent


def call(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Result:
    """Run a command that raises `error`."""
    module = types.ModuleType("failing")

    @click.command()
    def command() -> None:
        """Fail."""
        raise error

    module.command = command  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "failing", module)
    monkeypatch.setitem(jobs.COMMANDS, "fail", ("failing", "Fail."))
    return CliRunner().invoke(jobs.main, ["fail"])


def test_user_errors_are_one_line_and_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    result = call(monkeypatch, UserError("there is no\nsuch thing", "look elsewhere"))
    assert result.exit_code == 2
    assert result.stderr == "error: there is no such thing\nhint: look elsewhere\n"
    assert result.stdout == ""


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    result = call(monkeypatch, KeyboardInterrupt())
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


def test_bugs_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    result = call(monkeypatch, ZeroDivisionError())
    assert isinstance(result.exception, ZeroDivisionError)


def interrupted_import() -> None:
    """What a library in C makes of an interrupt while it is being imported."""
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt:
        raise ImportError("initialization failed") from None


@pytest.mark.parametrize(
    ("work", "end"), [(interrupted_import, KeyboardInterrupt), (lambda: 1 // 0, ZeroDivisionError)]
)
def test_interrupt_that_a_library_hides_is_still_one(work: Callable[[], object], end: type[BaseException]) -> None:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with pytest.raises(end), running.interruptible("out", 3):
            work()
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def test_interrupted_process_exits_with_130(tmp_path: Path) -> None:
    code = "import os, signal, jobs; jobs.COMMANDS['wait'] = ('wait', ''); jobs.main(['wait'])"
    (tmp_path / "wait.py").write_text(
        "import os, signal, time, click\n"
        "@click.command()\ndef command():\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(9)\n",
        encoding="utf-8",
    )
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": path}
    )
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "interrupted\n")


def test_help_lists_the_commands_and_an_example() -> None:
    text = CliRunner().invoke(jobs.main, ["--help"]).output
    assert all(f"  {name} " in text for name in jobs.COMMANDS)
    assert "Example:  bulkscribe transcribe" in text


@pytest.mark.parametrize("name", jobs.COMMANDS)
def test_help_of_each_command_has_an_example(name: str) -> None:
    result = CliRunner().invoke(jobs.main, [name, "--help"])
    assert result.exit_code == 0
    assert f"Example:  bulkscribe {name}" in result.output


def test_version() -> None:
    assert CliRunner().invoke(jobs.main, ["--version"], prog_name="bulkscribe").output == "bulkscribe 0.1.0\n"


def test_unknown_command_suggests_the_nearest() -> None:
    result = CliRunner().invoke(jobs.main, ["transcibe"])
    assert result.exit_code == 2
    assert "Did you mean 'transcribe'?" in result.stderr


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["transcribe", "talks"], "Missing option '--out'"),
        (["transcribe", "talks", "--out", "o", "--runner", "locl"], "Invalid value for '--runner'"),
        (["transcribe", "talks", "--out", "o", "--passage-max-s", "0"], "Invalid value for '--passage-max-s'"),
        (["plan", "talks", "--actors", "0"], "Invalid value for '--actors'"),
        (["export", "out", "--format", "docx"], "Invalid value for '--format'"),
        (["filter", "talks", "--out", "o", "--min-speech", "abc"], "Invalid value for '--min-speech'"),
    ],
)
def test_what_is_called_wrongly_is_a_line_and_a_hint(args: list[str], error: str) -> None:
    result = CliRunner().invoke(jobs.main, args, prog_name="bulkscribe")
    assert result.exit_code == 2
    first, hint = result.stderr.splitlines()
    assert first.startswith(f"error: {error}")
    assert hint.startswith("hint: bulkscribe ")
    assert "--help" in hint


def test_python_m_jobs_is_the_same_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("Usage: python -m jobs [OPTIONS] COMMAND")
