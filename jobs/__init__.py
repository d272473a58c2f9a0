"""The command line: `bulkscribe COMMAND`, or `python -m jobs COMMAND`.

Each command is a module with a click command named `command`; it is imported when it is called, so that help comes
at once. Errors of the user end in one line and a hint, everything else keeps its traceback.
"""

from __future__ import annotations

import difflib
import importlib
from typing import Any, NoReturn

import click

COMMANDS = {
    "transcribe": ("jobs.transcribe", "Transcribe recordings into Parquet tables."),
    "plan": ("jobs.plan", "Say what transcribing would take: hours, wall time, money."),
    "filter": ("jobs.filter", "Choose recordings by language and speech, by a cheap look."),
    "export": ("jobs.export", "Write transcripts as subtitles, text, JSON or training manifests."),
    "pseudo-label": ("jobs.pseudo_label", "Cut transcribed recordings into clips for training."),
    "clean": ("jobs.clean", "Choose weakly labelled pairs worth training on, and cut them."),
    "evaluate": ("jobs.evaluate", "Compare transcripts with references: word errors and more."),
    "report": ("jobs.report", "Tell what is in an output, on one page or as Markdown."),
    "phrases": ("jobs.phrases", "Find the lines that a model invents for a corpus."),
    "check": ("jobs.check", "Prove that an output is complete and whole."),
    "doctor": ("jobs.doctor", "Check that this machine has what a job needs."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of a user's day."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command, or return None where there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or fail with the name that comes nearest."""
        near = difflib.get_close_matches(args[0], COMMANDS, n=1)
        if near and args[0] not in COMMANDS:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command: 2 is the exit code for what the user can mend, 130 for Ctrl-C."""
        from pipeline.errors import UserError

        try:
            return super().invoke(ctx)
        except UserError as error:
            _end(2, f"error: {error}", f"hint: {error.hint}")
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else ctx.command_path
            _end(2, f"error: {error.format_message()}", f"hint: {where} --help shows what there is, and an example")
        except KeyboardInterrupt:
            _end(130, "interrupted")


def _end(code: int, *lines: str) -> NoReturn:
    from jobs.logs import end, say  # here, because help must come at once
    from pipeline.uris import redacted

    for line in lines:
        say("error", " ".join(redacted(line).splitlines()), exit_code=code)
    end()
    raise click.exceptions.Exit(code)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Example:  bulkscribe transcribe talks/ --out transcripts",
)
@click.version_option(package_name="bulkscribe", message="%(prog)s %(version)s")
def main() -> None:
    """Transcribe audio in bulk into Parquet tables, with the numbers that tell good text from bad."""
