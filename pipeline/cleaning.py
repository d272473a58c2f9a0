"""One run of a cleaning: pairs are judged, and the examples brought to what is kept now.

Duty: the order of things. Judging is done anew in each run, since it needs texts only; scores of texts that are the
same are taken from the run before. Examples are not: those of pairs that are no longer kept are taken out, those of new
ones are added, and only these need audio. Says nothing to people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline import clean_card, cleaned, examples
from pipeline.clean_card import Made
from pipeline.cues import Cue
from pipeline.errors import UserError
from pipeline.examples import ExampleOptions
from pipeline.layouts import EXAMPLE_COLUMNS, Kind
from pipeline.pairs import Pairs
from pipeline.readers import Readers
from pipeline.readings import AudioOptions
from pipeline.shards import Dataset
from pipeline.stretches import ExampleReader
from pipeline.tallies import Tallies
from pipeline.transcripts import Transcribed, recordings, transcripts
from pipeline.verdicts import JudgeOptions, Row, Verdicts, old_scores
from schemas.examples import EXAMPLES

_Given = tuple[Row, Sequence[Cue], Transcribed, ExampleOptions, float]  # what `examples.examples` takes

EXAMPLES_OF_PAIRS = Kind("examples", EXAMPLES, EXAMPLE_COLUMNS)


@dataclass(frozen=True)
class Choice:
    """What a cleaning is asked for."""

    heard: str | None  # transcripts of the same audio
    drop: str | None  # sources, or a file that names them
    judge: JudgeOptions
    example: ExampleOptions
    audio: AudioOptions


@dataclass
class Result:
    """What came of it."""

    tallies: Tallies
    made: Made
    files: dict[str, bytes]  # that tell it, by name
    dropped: list[str]  # sources
    compared: int  # texts that no earlier run had compared
    read: int  # recordings whose audio was read
    removed: int  # recordings that were taken out of the examples


class Cleaning:
    """Judges pairs and fills a data set with examples of them."""

    def __init__(self, out: str, pairs: Pairs, choice: Choice, dataset: Dataset, read_all: Readers) -> None:
        """UserError where `out` holds examples, and no transcripts are given that could say what to keep."""
        self._out, self._pairs, self._choice = out, pairs, choice
        self._dataset, self._read_all = dataset, read_all
        if not choice.heard and dataset.done:
            hint = "give --transcripts again, or choose another --out"
            raise UserError(f"{out} holds examples that were made with transcripts", hint)
        self._verdicts = Verdicts(choice.judge, old_scores(cleaned.pairs(out)))
        self._dropped: frozenset[str] = frozenset()

    def run(self, begin: Callable[[int, int], None], tick: Callable[[int], None]) -> Result:
        """Judge, and make examples of what is kept.

        `begin` is told how many recordings will be taken out and how many read before any is, `tick` how many were.
        """
        if self._choice.heard and self._pairs.several:
            self._pairs.heard(_languages(self._choice.heard))
        self._verdicts.look(self._pairs)
        if self._choice.drop:
            self._dropped = cleaned.dropped_sources(self._choice.drop, self._verdicts.sources())
        removed = read = 0
        if self._choice.heard:
            self._verdicts.hear(transcripts(self._choice.heard))
            removed, read = self._reconcile(self._choice.heard, begin, tick)
        tallies = Tallies()
        files = dict(cleaned.files(self._rows(self._after()), self._pairs.recordings, tallies))
        made = clean_card.made(self._dataset.tables(EXAMPLES_OF_PAIRS.table, clean_card.EXAMPLE_COLUMNS))
        return Result(tallies, made, files, sorted(self._dropped), self._verdicts.compared, read, removed)

    def _rows(self, after: Mapping[str, Row]) -> Iterator[list[Row]]:
        return self._verdicts.settle(self._dropped, after)

    def _reconcile(self, heard: str, begin: Callable[[int, int], None], tick: Callable[[int], None]) -> tuple[int, int]:
        """Take out what is not kept any more, add what is new; return how many recordings these were."""
        kept = {row["recording_id"]: row for rows in self._rows({}) for row in rows if row["keep"]}
        keys = dict(self._keys(heard, kept))
        old = {id_ for id_, key in self._dataset.done.items() if keys.get(id_) != key}
        todo = {id_: kept[id_] for id_ in keys if id_ not in self._dataset.done or id_ in old}
        if old or todo:
            begin(len(old), len(todo))
        self._dataset.remove(old)
        work = (
            (given[2].recording | {"made_of": keys[id_]}, examples.examples(*given))
            for id_, given in self._given(heard, todo)
        )
        readings = self._read_all(work if todo else (), ExampleReader(self._choice.audio))
        for number, reading in enumerate(readings, 1):
            self._dataset.add(reading, "train")
            tick(number)
        self._dataset.flush()
        return len(old), len(todo)

    def _keys(self, heard: str, kept: Mapping[str, Row]) -> Iterator[tuple[str, str]]:
        """Yield for each kept recording what its examples are made of, and what they are, as two hashes.

        Where the first is the same as before, so is the second; where it is not, the examples are made to see.
        """
        for id_, given in self._given(heard, kept):
            old = self._dataset.done.get(id_) or ""
            made_of = examples.made_of(*given)
            if not old.startswith(made_of):
                content = examples.content(examples.examples(*given), given[2].recording["version"])
                old = old if old.endswith(content) else f"{made_of} {content}"
            yield id_, old

    def _given(self, heard: str, kept: Mapping[str, Row]) -> Iterator[tuple[str, _Given]]:
        """Yield for each kept recording that was heard all that its examples are made from."""
        by_id = {one.id: one for one in self._pairs.recordings if one.id in kept}
        for one in transcripts(heard):
            row = kept.get(one.recording["recording_id"])
            if row is not None:
                cues = self._pairs.of(by_id[row["recording_id"]]).cues if row["cues"] else ()
                yield row["recording_id"], (row, cues, one, self._choice.example, self._choice.judge.max_wer)

    def _after(self) -> dict[str, Row]:
        """Return what became of the audio of each pair, as its row tells it."""
        columns = ("recording_id", "kept", "kept_s", "error_kind", "error_message")
        return {
            row["recording_id"]: {
                "examples": row["kept"],
                "examples_s": row["kept_s"],
                "audio_error": f"{row['error_kind']}: {row['error_message']}" if row["error_kind"] else None,
            }
            for table in self._dataset.tables("origins", columns)
            for row in table.to_pylist()
        }


def _languages(heard: str) -> dict[str, str]:
    """Return the likeliest language of each recording's audio."""
    return {
        row["recording_id"]: row["languages"][0]["language"]
        for table in recordings(heard, ["recording_id", "languages"])
        for row in table.to_pylist()
        if row["languages"]
    }
