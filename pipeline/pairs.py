"""Audio with a text that somebody has put beside it: the pairs of manifests, tars, tables, and files of one name.

Duty: find the text of each recording, its times where it has any, and the source that it came from. A text travels with
the recording (a column of the manifest, a text in the tar), or lies beside it as `talk.srt`, `talk.vtt` or `talk.txt`,
also with a language before the ending. Knows no audio, and does not judge the texts.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from pipeline import storage
from pipeline.cues import SUBTITLES, Cue, parse
from pipeline.errors import OpenError, UserError
from pipeline.recordings import Recordings
from pipeline.sources import resolve
from pipeline.tars import SUBTITLES as TRAVELLING
from pipeline.types import SAMPLE_RATE, Recording

ENDINGS = (*SUBTITLES, ".txt")  # of texts beside audio; the first that is there counts
_LANGUAGE = re.compile(r"[a-z]{2,3}(?:[-_][a-z0-9]{2,8})*", re.IGNORECASE)  # talk.en.vtt, talk.zh-Hans.srt
_DECLARED = ("synthetic", "tts", "is_synthetic")  # keys by which metadata says that nobody has spoken it
_LONGEST = 16 << 20  # bytes of a text
_TOGETHER = 256  # texts that are read at a time
_READERS = 32


@dataclass(frozen=True, slots=True)
class Pair:
    """A recording and its text."""

    recording: Recording
    source: str
    text: str | None  # None: there is none, or it could not be read
    cues: tuple[Cue, ...] = ()  # the same text with times
    timed: bool = False  # whether it came with times
    automatic: bool = False  # subtitles that say of themselves that a machine wrote them
    language: str | None = None  # as whoever made the pair says
    synthetic: bool | None = None  # speech of a machine, as metadata says; None where it says nothing
    fault: str = ""  # why the text could not be read


class Pairs:
    """The pairs of a job, in the order of its sources. Each iteration reads the texts again."""

    def __init__(self, recordings: Recordings, beside: Mapping[str, Sequence[str]], notes: Sequence[str]) -> None:
        """`beside`: where the texts of a recording lie, by its id, if they do not travel with it."""
        self.recordings, self._beside, self.notes = recordings, beside, tuple(notes)
        self._heard: dict[str, str] = {}
        self.several = {id_ for id_, texts in beside.items() if len(texts) > 1}  # recordings with a choice of texts

    def heard(self, languages: Mapping[str, str]) -> None:
        """Take the languages of recordings, by id: of several texts beside one that in its language counts then."""
        self._heard = {id_: language for id_, language in languages.items() if id_ in self.several}

    def __len__(self) -> int:
        return len(self.recordings)

    def __iter__(self) -> Iterator[Pair]:
        recordings = iter(self.recordings)
        with ThreadPoolExecutor(_READERS, thread_name_prefix="texts") as pool:
            while chunk := list(islice(recordings, _TOGETHER)):
                yield from pool.map(self.of, chunk)

    def of(self, recording: Recording) -> Pair:
        """Return the pair of a recording."""
        told = json.loads(recording.metadata)
        pair = Pair(recording, _source(recording, told), None, language=_language(recording, told))
        pair = replace(pair, synthetic=_synthetic(told))
        texts = self._beside.get(recording.id)
        try:
            if not texts:
                return _travelled(pair, told)
            return _beside(pair, _best(texts, recording, self._heard.get(recording.id) or pair.language))
        except ValueError as error:
            return replace(pair, fault=str(error))


def read_pairs(sources: Sequence[str]) -> Pairs:
    """List the pairs that `sources` name. UserError where they name no audio, or none of it has a text."""
    listing = resolve(sources)
    without = [one for one in listing.recordings if not _has_text(json.loads(one.metadata))]
    beside = _find(without)
    if len(without) == len(listing.recordings) and not beside:
        raise UserError(
            "none of the recordings has a text",
            "a manifest needs a column `text`; else give a .srt, .vtt or .txt of the same name to each audio file",
        )
    notes = list(listing.notes)
    if listing.doubles:
        notes.append(f"{listing.doubles} times a recording was named again; the first naming counts")
    pairs = Pairs(listing.recordings, beside, notes)
    if pairs.several:
        words = f"{len(pairs.several)} recordings have texts in several languages or formats beside them; one is taken"
        pairs.notes += (words,)
    return pairs


def _has_text(told: Mapping[str, Any]) -> bool:
    return any(isinstance(told.get(name), str) for name in ("text", "reference", TRAVELLING)) or bool(told.get("cues"))


def _find(recordings: Sequence[Recording]) -> dict[str, list[str]]:
    """Return where the texts beside whole files lie, by the files' ids: the best first, as far as names tell."""
    folders: dict[str, list[Recording]] = defaultdict(list)
    for one in recordings:
        if not one.inside and storage.lists(one.location):
            folders[storage.parent(one.location)].append(one)
    found: dict[str, list[str]] = {}
    with ThreadPoolExecutor(_READERS) as pool:
        for (folder, inside), names in zip(folders.items(), pool.map(storage.names, folders), strict=True):
            texts = _texts(names)
            for one in inside:
                name = one.uri.rpartition("/")[2]
                if choice := texts.get(name) or texts.get(os.path.splitext(name)[0]):
                    found[one.id] = [storage.join(folder, text) for text in choice]
    return found


def _best(texts: Sequence[str], recording: Recording, language: str | None) -> str:
    """Return the text in a language, else the one without a language in its name, else English, else any."""
    codes = [_language_of(text, recording) for text in texts]
    return texts[next((codes.index(wanted) for wanted in (language, None, "en") if wanted in codes), 0)]


def _language_of(text: str, recording: Recording) -> str | None:
    """Return the language that the name of a text tells: `talk.en.vtt`, but not `talk.mp3.txt`."""
    code = os.path.splitext(os.path.splitext(text.rpartition("/")[2])[0])[1][1:]
    audio = os.path.splitext(recording.uri.rpartition("/")[2])[1][1:]
    return _code(code) if code != audio and _LANGUAGE.fullmatch(code) else None


def _texts(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the texts among files, by the stem that they share with audio: the best first."""
    found: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for name in names:
        stem, ending = os.path.splitext(name)
        if ending.lower() not in ENDINGS:
            continue
        rank = ENDINGS.index(ending.lower())
        found[stem].append((0, rank, name))
        bare, code = os.path.splitext(stem)
        if _LANGUAGE.fullmatch(code[1:]):
            found[bare].append((1, rank, name))
    return {stem: [name for *_, name in sorted(texts)] for stem, texts in found.items()}


def _beside(pair: Pair, where: str) -> Pair:
    """Return the pair with the text in a file. ValueError where it cannot be read."""
    try:
        with storage.open_audio(where) as stream:
            data = io.BufferedReader(stream).read(_LONGEST + 1)  # type: ignore[type-var]
    except OpenError as error:
        raise ValueError(f"{storage.canonical(where)}: {error}") from error
    if len(data) > _LONGEST:
        raise ValueError(f"{storage.canonical(where)} is longer than {_LONGEST} bytes")
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{storage.canonical(where)} is no text in UTF-8: {error.reason}") from error
    ending = os.path.splitext(where)[1]
    pair = replace(pair, language=pair.language or _language_of(where, pair.recording))
    return _subtitled(pair, content, ending.lower()) if ending.lower() in SUBTITLES else _plain(pair, content)


def _travelled(pair: Pair, told: Mapping[str, Any]) -> Pair:
    """Return the pair with the text in its metadata: times first, because they hold more."""
    if told.get("cues"):
        cues = _cues(told["cues"])
        return replace(pair, text="\n".join(cue.text for cue in cues), cues=cues, timed=True)
    raw = told.get(TRAVELLING)
    if isinstance(raw, str):
        return _subtitled(pair, raw, ".vtt" if raw.lstrip("\ufeff").startswith("WEBVTT") else ".srt")
    said = next((told[name] for name in ("reference", "text") if isinstance(told.get(name), str)), None)
    return pair if said is None else _plain(pair, said)


def _valid(text: str) -> str:
    """Return a text without halves of surrogate pairs, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def _plain(pair: Pair, text: str) -> Pair:
    lines = (" ".join(line.split()) for line in _valid(text).splitlines())
    return replace(pair, text="\n".join(line for line in lines if line))


def _subtitled(pair: Pair, content: str, ending: str) -> Pair:
    found = parse(_valid(content), ending)
    begin = pair.recording.start / SAMPLE_RATE
    end = float("inf") if pair.recording.end is None else pair.recording.end / SAMPLE_RATE
    cues = tuple(cue for cue in found.cues if begin <= cue.start and cue.end <= end)
    text = "\n".join(cue.text for cue in cues)
    return replace(pair, text=text, cues=cues, timed=True, automatic=found.automatic)


def _cues(given: Any) -> tuple[Cue, ...]:
    """Read a column `cues`: a list of objects with start, end and text, or the same as JSON."""
    try:
        found = json.loads(given) if isinstance(given, str) else given
        cues = [
            Cue(float(one["start"]), float(one["end"]), " ".join(_valid(str(one["text"])).split())) for one in found
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"`cues` is no list of objects with start, end and text: {error}") from error
    if any(not 0 <= cue.start < cue.end for cue in cues):
        raise ValueError("a cue ends before it starts, or starts before 0 s")
    return tuple(sorted(cues, key=lambda cue: cue.start))


def _source(recording: Recording, told: Mapping[str, Any]) -> str:
    """Return what the pair came from: what its metadata calls so, its feed, its tar or table, or its folder."""
    said = next((told[name] for name in ("source", "feed") if isinstance(told.get(name), str) and told[name]), None)
    if said is not None:
        return _valid(str(said))
    base, piece = storage.split_piece(recording.uri)
    return base if piece else storage.parent(base) or base


def _language(recording: Recording, told: Mapping[str, Any]) -> str | None:
    said = recording.language or told.get("language")
    return _code(said) if isinstance(said, str) and _LANGUAGE.fullmatch(said) else None


def _code(language: str) -> str:
    return re.split("[-_]", language.lower())[0]


def _synthetic(told: Mapping[str, Any]) -> bool | None:
    said = next((told[name] for name in _DECLARED if told.get(name) is not None), None)
    if said is None:
        return None
    return str(said).strip().lower() not in ("", "0", "0.0", "no", "false", "none")
