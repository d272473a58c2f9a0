"""Click options from frozen dataclasses of `pipeline.types.setting` fields, and the instance back from their values.

Knows click and dataclasses, and of the dataclasses of `pipeline/` only which of them need a prefix, and the one of
stores, which each command that opens a URI has.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Collection, Mapping
from math import isinf
from typing import Any, TypeVar

import click

from pipeline import storage
from pipeline.types import ANY, Bounds

Options = TypeVar("Options")
Command = TypeVar("Command", bound=Callable[..., Any])

# By the dataclass's name: its fields have names that say too little among all other options of a command.
PREFIXES = {
    "DecodeOptions": "decode",
    "SpeechOptions": "speech",
    "PassageOptions": "passage",
    "ParagraphOptions": "paragraph",
}


class CommaList(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5 only
    """A tuple of values of one type, written with commas."""

    def __init__(self, item: click.ParamType[Any], *, empty: bool = True) -> None:
        """`item` is the type of one value; `empty` says that there may be none."""
        self.item, self.empty = item, empty
        self.name = f"{_called(item)},..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """Return the tuple; click's error for an item that is not of the type."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",") if part.strip()]
        if not parts and not self.empty:
            self.fail("it names nothing", param, ctx)
        return tuple(self.item.convert(part, param, ctx) for part in parts)


def settings(kind: type[Any], only: Collection[str] | None = None) -> Callable[[Command], Command]:
    """Decorate a command with an option for each field of the dataclass `kind`: `max_gap_s` becomes `--max-gap-s`.

    With `only`, for these fields; `collect` leaves the others at their defaults. Raises TypeError where the command has
    an option of that name already.
    """
    chosen = [(field, hint) for field, hint in _fields(kind) if only is None or field.name in only]
    made = [_option(field, hint, _key(kind, field.name)) for field, hint in chosen]

    def decorate(command: Command) -> Command:
        taken = {param.name for param in getattr(command, "__click_params__", [])}
        for option in reversed(made):
            if option.name in taken:
                raise TypeError(f"--{option.name} of {kind.__name__} is an option already: name a prefix in PREFIXES")
            _attach(command, option)
        return command

    return decorate


def collect(kind: type[Options], values: Mapping[str, Any]) -> Options:
    """Return the instance of `kind` that the values of a command's options say."""
    given = {field.name: _key(kind, field.name) for field, _ in _fields(kind)}
    return kind(**{name: values[key] for name, key in given.items() if key in values})


def row_values(options: Any) -> dict[str, Any]:
    """Return the values that change rows, by option name: what two runs must have in common to share their tables."""
    return {
        _key(type(options), field.name): getattr(options, field.name)
        for field, _ in _fields(type(options))
        if field.metadata["rows"]
    }


def stores(command: Command) -> Command:
    """Decorate a command with the options of stores; they are in force when it is called, and it does not see them."""

    @functools.wraps(command)
    def configured(*args: Any, **values: Any) -> Any:
        storage.configure(collect(storage.StoreOptions, values))
        for field in dataclasses.fields(storage.StoreOptions):
            del values[field.name]
        return command(*args, **values)

    return settings(storage.StoreOptions)(typing.cast(Command, configured))


def _fields(kind: type[Any]) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(kind)
    return [(field, hints[field.name]) for field in dataclasses.fields(kind)]


def _key(kind: type[Any], name: str) -> str:
    prefix = PREFIXES.get(kind.__name__)
    return f"{prefix}_{name}" if prefix else name


def _attach(command: Callable[..., Any], option: click.Option) -> None:
    """Hang the option on the function, as `click.option` does: the last one attached is shown first."""
    if not hasattr(command, "__click_params__"):
        command.__click_params__ = []  # type: ignore[attr-defined]
    command.__click_params__.append(option)  # type: ignore[attr-defined]


def _option(field: dataclasses.Field[Any], hint: Any, key: str) -> click.Option:
    name = "--" + key.replace("_", "-")
    flag = hint is bool
    kind = click.BOOL if flag else _type(hint, field.metadata["choices"], field.metadata["within"])
    ranged = isinstance(kind, (click.IntRange, click.FloatRange))
    return click.Option(
        [f"{name}/--no-{name[2:]}" if flag else name, key],
        type=kind,
        metavar=_called(kind).upper() if ranged else None,
        default=field.default,
        help=_help(field),
    )


def _type(hint: Any, choices: tuple[str, ...], within: Bounds) -> click.ParamType[Any]:
    """Return the click type of a field's annotation; TypeError for one that has none."""
    if isinstance(hint, types.UnionType):  # T | None
        (hint,) = (part for part in typing.get_args(hint) if part is not types.NoneType)
    if choices:
        return click.Choice(choices)
    if typing.get_origin(hint) is tuple:
        item, rest = typing.get_args(hint)
        if rest is Ellipsis:
            return CommaList(_type(item, (), within), empty=within == ANY)
    if hint is str:
        return click.STRING
    if hint not in (int, float):
        raise TypeError(f"no command-line option can be made from a field of type {hint}")
    if within == ANY:
        return click.INT if hint is int else click.FLOAT
    # Whole bounds are shown as such.
    least, most = (None if isinf(bound) else int(bound) if float(bound).is_integer() else bound for bound in within)
    return click.IntRange(least, most) if hint is int else click.FloatRange(least, most)  # type: ignore[arg-type]


def _called(kind: click.ParamType[Any]) -> str:
    """Return the name of a type of values; bounds are told behind the help."""
    return str(kind.name).removesuffix(" range")


def _help(field: dataclasses.Field[Any]) -> str:
    """Return the field's sentence with its default and unit, which are stated nowhere else."""
    default = field.default
    if default in (None, "", ()):
        return str(field.metadata["doc"])
    if isinstance(default, bool):
        shown = "on" if default else "off"
    elif isinstance(default, tuple):
        shown = ",".join(f"{item:g}" if isinstance(item, float) else str(item) for item in default)
    else:
        shown = f"{default:g}" if isinstance(default, float) else str(default)
    unit = f" {field.metadata['unit']}" if field.metadata["unit"] else ""
    return f"{field.metadata['doc']}  [default: {shown}{unit}]"
