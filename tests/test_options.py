"""Options made from dataclasses, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from jobs.options import collect, settings
from pipeline.passages import PassageOptions
from pipeline.speech import SpeechOptions
from pipeline.types import AT_LEAST_ONE, SHARE, setting
from pipeline.whisper.options import WhisperOptions


@dataclass(frozen=True)
class Sample:
    """One field of each type."""

    limit_s: float = setting(2.5, "Longest wait.", "s")
    tries: int = setting(3, "How often.")
    language: str | None = setting(None, "Language.")
    temperatures: tuple[float, ...] = setting((0.0, 0.2), "Temperatures.")
    task: str = setting("write", "What to do.", choices=("write", "read"))
    keep_all: bool = setting(False, "Keep everything.")
    share: float | None = setting(None, "Part.", within=SHARE)
    sizes: tuple[int, ...] = setting((1, 4), "Sizes.", within=AT_LEAST_ONE)


def call(kind: type[Any], *args: str) -> tuple[Any, Result]:
    """Run a command that has the options of `kind`; return the instance that it got, and click's result."""
    got: list[Any] = []

    @click.command()
    @settings(kind)
    def command(**values: Any) -> None:
        """Take options."""
        got.append(collect(kind, values))

    result = CliRunner().invoke(command, list(args))
    return (got[0] if got else None), result


def test_defaults_are_those_of_the_dataclass() -> None:
    for kind in (Sample, WhisperOptions, SpeechOptions, PassageOptions):
        assert call(kind)[0] == kind()


def test_values_reach_their_fields_in_their_types() -> None:
    options, _ = call(
        Sample,
        *("--limit-s", "inf", "--tries", "7", "--language", "de", "--temperatures", "0, 0.5,1"),
        *("--task", "read", "--keep-all"),
    )
    assert options == Sample(math.inf, 7, "de", (0.0, 0.5, 1.0), "read", True)


def test_flags_can_be_switched_off() -> None:
    assert call(Sample, "--keep-all", "--no-keep-all")[0].keep_all is False


@pytest.mark.parametrize("args", [("--tries", "x"), ("--task", "sing"), ("--temperatures", "0,warm")])
def test_wrong_values_are_refused_with_the_option_named(args: tuple[str, str]) -> None:
    options, result = call(Sample, *args)
    assert options is None
    assert result.exit_code == 2
    assert args[0] in result.output


def test_unknown_option_suggests_the_nearest() -> None:
    result = call(Sample, "--temperature", "0")[1]
    assert result.exit_code == 2
    assert "--temperatures" in result.output


def test_help_shows_sentence_default_and_unit() -> None:
    text = " ".join(call(Sample, "--help")[1].output.split())
    assert "--limit-s FLOAT Longest wait. [default: 2.5 s]" in text
    assert "--temperatures FLOAT,... Temperatures. [default: 0,0.2]" in text
    assert "--task [write|read] What to do. [default: write]" in text
    assert "--keep-all / --no-keep-all Keep everything. [default: off]" in text
    assert "--language TEXT Language." in text


def test_options_of_stages_carry_a_prefix() -> None:
    options, _ = call(SpeechOptions, "--speech-threshold", "0.7")
    assert options == SpeechOptions(threshold=0.7)


def test_two_options_of_one_name_are_refused() -> None:
    @dataclass(frozen=True)
    class Other:
        """Shares a name with Sample."""

        tries: int = setting(1, "Again.")

    with pytest.raises(TypeError, match="--tries of Sample is an option already"):

        @click.command()
        @settings(Sample)
        @settings(Other)
        def command(**values: Any) -> None:
            """Never made."""


def test_field_of_a_type_without_an_option_is_refused() -> None:
    @dataclass(frozen=True)
    class Odd:
        """Bytes cannot be typed on a command line."""

        key: bytes = setting(b"", "Odd.")

    with pytest.raises(TypeError, match="no command-line option"):
        settings(Odd)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--share", "1.5"], "1.5 is not in the range 0<=x<=1"),
        (["--share", "-0.1"], "-0.1 is not in the range 0<=x<=1"),
        (["--sizes", "4,0"], "0 is not in the range x>=1"),
        (["--sizes", ","], "it names nothing"),
    ],
)
def test_what_is_out_of_bounds_is_refused(args: list[str], words: str) -> None:
    options, result = call(Sample, *args)
    assert options is None
    assert result.exit_code == 2
    assert words in result.stderr


def test_bounds_are_told_in_the_help() -> None:
    told = " ".join(call(Sample, "--help")[1].stdout.split())
    assert "--share FLOAT Part. [0<=x<=1]" in told
    assert "--sizes INTEGER,..." in told
    assert call(Sample, "--share", "0", "--sizes", "9")[0] == Sample(share=0.0, sizes=(9,))
    assert call(Sample, "--temperatures", "")[0] == Sample(temperatures=())
