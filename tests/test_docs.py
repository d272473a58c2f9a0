"""The documents say what the code does. `make docs` writes their generated parts anew."""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pyarrow as pa
import pytest
from outputs import write_output

import jobs
from pipeline import decisions, doubts, examples, gates, verdicts
from pipeline.candidates import PRESETS
from pipeline.gates import GateOptions
from pipeline.score import FLAGS
from schemas.clips import CLIPS
from schemas.decisions import DECISIONS
from schemas.examples import EXAMPLES
from schemas.opinions import OPINIONS
from schemas.origins import ORIGINS
from schemas.pairs import PAIRS
from schemas.people import PEOPLE
from schemas.recordings import RECORDINGS
from schemas.reviews import REVIEWS
from schemas.segments import SEGMENTS
from schemas.speakers import SPEAKERS
from schemas.words import WORDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
GENERATED = re.compile(r"(<!-- generated: ([\w-]+) -->\n)(.*?)(<!-- end -->\n)", re.DOTALL)
SCHEMAS = {"recordings": RECORDINGS, "segments": SEGMENTS, "words": WORDS, "decisions": DECISIONS}
SCHEMAS |= {"speakers": SPEAKERS, "people": PEOPLE, "opinions": OPINIONS, "reviews": REVIEWS}
SCHEMAS |= {"clips": CLIPS, "origins": ORIGINS, "pairs": PAIRS, "examples": EXAMPLES}
LISTS = {"flags": FLAGS, "reasons": decisions.REASONS, "clip-reasons": gates.REASONS}
LISTS |= {"doubts": doubts.REASONS, "pair-reasons": verdicts.REASONS, "example-reasons": examples.REASONS}


def command(name: str) -> click.Command:
    """Return a command of the tree."""
    found = jobs.main.get_command(click.Context(jobs.main), name)
    assert found is not None
    return found


def options_text(name: str) -> str:
    """Return the usage and options of a command as Markdown."""
    context = click.Context(command(name), info_name=f"bulkscribe {name}")
    lines = ["```", " ".join(["bulkscribe", name, *command(name).collect_usage_pieces(context)]), "```", ""]
    for param in command(name).get_params(context):
        if isinstance(param, click.Option) and "--help" not in param.opts:
            takes = "" if param.is_bool_flag or param.type is click.BOOL else " " + param.make_metavar(context)
            names = " / ".join([*param.opts, *param.secondary_opts])
            default = f"  [default: {param.default}]" if param.show_default else ""
            required = "  [required]" if param.required else ""
            lines.append(f"- `{names}{takes}`: {param.help}{default}{required}".replace("  [", " ["))
    return "\n".join(lines) + "\n"


def columns_text(name: str) -> str:
    """Return the columns of a table, or the flags or reasons, as Markdown."""
    if name in LISTS:
        return "".join(f"- `{word}`: {doc}\n" for word, doc in LISTS[name].items())
    lines = ["| column | type | unit | |", "|---|---|---|---|"]
    for field in SCHEMAS[name]:
        doc, unit = field.metadata[b"doc"].decode(), field.metadata[b"unit"].decode()
        lines.append(f"| `{field.name}` | `{_type(field.type)}` | {unit} | {doc} |")
    return "\n".join(lines) + "\n"


def _type(type_: pa.DataType) -> str:
    return (
        str(type_).replace(" not null", "").replace("element: ", "").replace("item: ", "").replace("double", "float64")
    )


def presets_text(name: str) -> str:
    """Return the presets' thresholds as Markdown."""
    lines = [f"| option | {' | '.join(PRESETS)} |", "|---|" + "---|" * len(PRESETS)]
    for field in dataclasses.fields(GateOptions):
        values = [getattr(plan.gates, field.name) for plan in PRESETS.values()]
        shown = [", ".join(value) if isinstance(value, tuple) else f"{value:g}" for value in values]
        option = f"--{field.name.replace('_', '-')}"
        lines.append(f"| `{option}` | {' | '.join(value or 'all' for value in shown)} |")
    return "\n".join(lines) + "\n"


DOCUMENTS: dict[str, Callable[[str], str]] = {
    "docs/commands.md": options_text,
    "docs/tables.md": columns_text,
    "docs/pseudo-label.md": presets_text,
}


def generated(path: str) -> str:
    """Return the document with its generated parts made anew."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return GENERATED.sub(lambda match: match[1] + DOCUMENTS[path](match[2]) + match[4], text)


def blocks(language: str) -> list[str]:
    """Return the README's code blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def shell_lines() -> list[str]:
    """Return the README's shell commands, continued lines joined, comments left out."""
    text = "\n".join(blocks("sh")).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("path", DOCUMENTS)
def test_generated_parts_are_up_to_date(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == generated(path), "run: make docs"


def test_every_command_table_and_flag_is_documented() -> None:
    parts = {path: [match[2] for match in GENERATED.finditer((ROOT / path).read_text("utf-8"))] for path in DOCUMENTS}
    assert parts == {
        "docs/commands.md": list(jobs.COMMANDS),
        "docs/tables.md": [
            *("recordings", "segments", "flags", "words", "speakers", "people", "opinions", "doubts", "reviews"),
            *("decisions", "reasons"),
            *("clips", "clip-reasons", "origins"),
            *("pairs", "pair-reasons", "examples", "example-reasons"),
        ],
        "docs/pseudo-label.md": ["presets"],
    }


@pytest.mark.parametrize("line", shell_lines())
def test_shell_commands_of_the_readme_exist(line: str) -> None:
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(words[1:]) <= set(targets)
    elif words[0] == "bulkscribe":
        context = click.Context(command(words[1]))
        known = {name for param in command(words[1]).get_params(context) for name in param.opts + param.secondary_opts}
        assert {word for word in words if word.startswith("-")} <= known
    else:
        assert words[0] in ("git", "cd", "pip"), f"what is {words[0]}?"


def test_readme_shows_the_two_commands() -> None:
    assert {"make demo", "make test"} <= {line.partition("#")[0].strip() for line in shell_lines()}


@pytest.mark.parametrize("code", blocks("python"))
def test_python_of_the_readme_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_output(tmp_path / "out" / "demo")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})


def test_readme_reads_the_tables_with_duckdb_pandas_and_polars() -> None:
    code = "\n".join(blocks("python"))
    assert all(f"import {library}" in code for library in ("duckdb", "pandas", "polars"))


@pytest.mark.parametrize("name", re.findall(r"\]\(((?!http|#)[^)#]+)", README))
def test_links_of_the_readme_lead_somewhere(name: str) -> None:
    assert (ROOT / name).exists()


def undocumented(path: Path) -> Iterator[str]:
    """Yield the public functions, classes and methods of a file without a docstring; properties need none."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not ast.get_docstring(tree):
        yield "the module"
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    for node in [*tree.body, *(inner for outer in classes for inner in outer.body)]:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        decorators = {ast.unparse(item) for item in node.decorator_list}
        if not ast.get_docstring(node) and not decorators & {"property", "cached_property"}:
            yield node.name


@pytest.mark.parametrize(
    "path",
    sorted(path for package in ("pipeline", "jobs", "schemas") for path in (ROOT / package).rglob("*.py")),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_public_names_have_docstrings(path: Path) -> None:
    assert list(undocumented(path)) == []


if __name__ == "__main__":
    for document in DOCUMENTS:
        (ROOT / document).write_text(generated(document), encoding="utf-8")
