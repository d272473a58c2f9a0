"""Each command goes on with its own output, and leaves those of the others, and users' files, as they are."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from labelled import transcribed, write_transcripts
from s3_server import s3_server

from jobs import main
from pipeline import outputs, storage
from pipeline.errors import UserError

EXAMPLES = Path(__file__).parents[1] / "examples" / "audio"
MUSIC, SPEECH = EXAMPLES / "music.mp3", EXAMPLES / "en_switchboard.mp3"
COMMANDS = [output.command for output in outputs.OUTPUTS]
PAIRS = [(command, owner) for command in COMMANDS for owner in COMMANDS if command != owner]
WRITTEN_OVER = [
    ("filter", "kept.jsonl"),
    ("clean", "README.md"),
    ("clean", "sources.csv"),
    ("clean", "waterfall.csv"),
    ("clean", "kept.jsonl"),
    ("pseudo-label", "README.md"),
    ("pseudo-label", "nemo-train.json"),
]


class Commands:
    """The commands, each with something to work on."""

    def __init__(self, folder: Path) -> None:
        """Write what they work on into an empty folder."""
        transcripts = folder / "transcripts"
        write_transcripts(transcripts, [transcribed(SPEECH)])
        pairs = folder / "pairs.jsonl"
        pairs.write_text(json.dumps({"uri": "a.mp3", "text": "Good morning, who is there?"}) + "\n", encoding="utf-8")
        fake = ("--model", "fake", "--runner", "local")
        self.folder = folder
        self.arguments: dict[str, tuple[object, ...]] = {
            "transcribe": (MUSIC, *fake),
            "filter": (MUSIC, *fake),
            "pseudo-label": (transcripts, "--format", "parquet,nemo"),
            "clean": (pairs,),
        }

    def run(self, command: str, out: Path) -> Result:
        return CliRunner().invoke(main, [command, *map(str, self.arguments[command]), "--out", str(out)])


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Commands:
    """Return the commands; each has written an output into the folder of its name."""
    made = Commands(tmp_path_factory.mktemp("outputs"))
    for command in COMMANDS:
        done = made.run(command, made.folder / command)
        assert done.exit_code == 0, done.output
    return made


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def assert_refused(done: Result, *words: str) -> None:
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    error, hint = done.stderr.splitlines()  # nothing else was said: no work was begun
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    for word in words:
        assert word in error


@pytest.mark.parametrize("left", ["all", "runs", "tables"])
@pytest.mark.parametrize(("command", "owner"), PAIRS)
def test_an_output_of_another_command_is_refused(
    commands: Commands, tmp_path: Path, command: str, owner: str, left: str
) -> None:
    """Also one of a run that was killed before its first row, and one that has lost the files of its runs."""
    out = tmp_path / "out"
    shutil.copytree(commands.folder / owner, out)
    for path in out.iterdir():
        if path.is_dir() and left != "all" and (path.name == "runs") != (left == "runs"):
            shutil.rmtree(path)
    before = content(out)
    assert_refused(commands.run(command, out), f"{out} holds ", f"`bulkscribe {owner}`")
    assert content(out) == before


@pytest.mark.parametrize(("command", "name"), WRITTEN_OVER)
def test_a_file_of_the_user_is_not_written_over(commands: Commands, tmp_path: Path, command: str, name: str) -> None:
    (tmp_path / name).write_text("mine", encoding="utf-8")
    assert_refused(commands.run(command, tmp_path), str(tmp_path), name)
    assert content(tmp_path) == {name: b"mine"}


def test_each_file_at_the_top_of_an_output_is_one_that_is_asked_for(commands: Commands) -> None:
    found = {(command, path.name) for command in COMMANDS for path in (commands.folder / command).glob("*.*")}
    assert found == set(WRITTEN_OVER)


@pytest.mark.parametrize("command", COMMANDS)
def test_files_and_folders_that_are_in_nobodys_way_stay(commands: Commands, tmp_path: Path, command: str) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    for folder in ("runs", *(one.table for one in outputs.OUTPUTS if one.command != command)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.json").write_text("not JSON", encoding="utf-8")
    before = content(tmp_path)
    done = commands.run(command, tmp_path)
    assert done.exit_code == 0, done.output
    assert before.items() <= content(tmp_path).items()


@pytest.mark.parametrize("lost", ["", "runs"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_goes_on_with_its_own_output(commands: Commands, tmp_path: Path, command: str, lost: str) -> None:
    out = tmp_path / "out"
    shutil.copytree(commands.folder / command, out)
    if lost:
        shutil.rmtree(out / lost)
    before = content(out)
    done = commands.run(command, out)
    assert done.exit_code == 0, done.output
    assert content(out) == before


class Killed(BaseException):
    """Nothing of this process reaches the disk any more."""


@pytest.mark.parametrize(("command", "step"), [("filter", 4), ("clean", 1), ("pseudo-label", 16)])
def test_what_a_killed_run_has_left_is_nobody_elses(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, step: int
) -> None:
    """Killed at changes to the files all along the way, and run again each time."""
    for at in range(1, 1000, step):
        out = tmp_path / str(at)
        with monkeypatch.context() as patch:
            left = [at]
            for name in ("write_bytes", "move", "delete"):
                patch.setattr(storage, name, dying(getattr(storage, name), left))
            try:
                done = commands.run(command, out)
            except Killed:
                done = None
        if done is not None:
            assert done.exit_code == 0, done.output
            break
        again = commands.run(command, out)
        assert again.exit_code == 0, (at, again.output)
        assert {path.name for path in out.glob("*.*")} == {name for who, name in WRITTEN_OVER if who == command}
    assert at > 8


def dying(change: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    """Return a change to files that is done as often as is `left` to all of them."""

    def changed(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            return change(*arguments)
        if threading.current_thread() is threading.main_thread():  # and not the one that keeps the lease
            raise Killed
        return None

    return changed


def test_outputs_in_a_store_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server():
        storage.write_bytes("s3://audio/out/decisions/part-1.parquet", b"")
        storage.write_bytes("s3://audio/mine/README.md", b"mine")
        outputs.claim("s3://audio/out", outputs.OF_FILTER, ["kept.jsonl"])
        outputs.claim("s3://audio/mine", outputs.OF_TRANSCRIBE)
        with pytest.raises(UserError, match="holds decisions"):
            outputs.claim("s3://audio/out", outputs.OF_TRANSCRIBE)
        with pytest.raises(UserError, match=r"README\.md"):
            outputs.claim("s3://audio/mine", outputs.OF_CLEAN, ["README.md"])
        storage.write_bytes("s3://audio/out/runs/2.json", b'{"holds": "decisions"}')
        asked = []
        for name in ("names", "read_bytes"):
            real = getattr(storage, name)
            monkeypatch.setattr(storage, name, lambda uri, real=real: (asked.append(uri), real(uri))[1])
        outputs.claim("s3://audio/out", outputs.OF_FILTER, ["kept.jsonl"])
        assert len(asked) == 2  # to go on costs a listing and a file
