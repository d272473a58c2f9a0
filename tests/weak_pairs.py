"""Weakly labelled pairs of the examples' real audio, and transcripts of them without a model, for tests of `clean`."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from labelled import EXAMPLES, transcribed, write_transcripts
from outputs import FAILURE, finished

from pipeline.sources import resolve
from pipeline.types import SAMPLE_RATE, Finished, Guess

NAMES = ("en_switchboard.mp3", "es_centralita.opus", "fr_standard.m4a", "it_centralino.flac", "ru_kommutator.ogg")
REFERENCES = {
    row["uri"].rpartition("/")[2]: row["text"]
    for row in map(json.loads, (EXAMPLES / "references.jsonl").read_text("utf-8").splitlines())
}
ENGLISH = "All of our operators are busy at the moment. Please hold the line, and somebody will help you soon."
GERMAN = "Heute ist das Wetter schön, und wir gehen in den Park. Danach kochen wir zu Hause etwas Gutes."
OTHER = "Сегодня хорошая погода, и мы идём гулять в парк. Потом мы вернёмся домой и приготовим ужин вместе."


def write_pairs(folder: Path) -> tuple[Path, Path]:
    """Copy the audio, write a manifest and its transcripts; return both."""
    audio, out = folder / "audio", folder / "transcripts"
    audio.mkdir(parents=True)
    for name in (*NAMES, "music.mp3"):
        shutil.copy(EXAMPLES / "audio" / name, audio / name)
    heard = {name: transcribed(audio / name, words=False) for name in NAMES}
    lines = _lines(heard)
    manifest = folder / "pairs.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    items = []
    for one in resolve([str(manifest)]).recordings:
        name = one.uri.rpartition("/")[2]
        if name in heard:
            items.append(_of(heard[name], replace(one, version=heard[name].outcome.recording.version)))
        elif name == "music.mp3":
            items.append(finished(one.id, one.uri))
        elif name == "broken.mp3":
            items.append(finished(one.id, one.uri, failure=FAILURE))
    write_transcripts(out, items)
    return manifest, out


def name_of(row: Any) -> str:
    """Return what a row of the pairs is called here."""
    name: str = json.loads(row["metadata"])["name"]
    return name


def _lines(heard: dict[str, Finished]) -> list[dict[str, Any]]:
    english = "en_switchboard.mp3"
    length = heard[english].outcome.duration / SAMPLE_RATE
    spoken = [(start, start + 8.0) for start in (0.5, 10.5, 20.5, 30.5)]
    italian = _cues(heard["it_centralino.flac"])
    strange = "This text belongs to some other recording."
    return [
        {"name": "plain", "uri": f"audio/{english}", "text": REFERENCES[english], "source": "phone"},
        {"name": "timed", "uri": "audio/it_centralino.flac", "cues": italian, "source": "phone"},
        {"name": "copy", "uri": f"audio/{english}", "start": 0, "end": length, "text": REFERENCES[english]},
        {"name": "shouted", "uri": f"audio/{english}", "start": 0, "end": 30, "text": REFERENCES[english].upper()},
        {
            "name": "translated",
            "uri": "audio/es_centralita.opus",
            "cues": [{"start": s, "end": e, "text": t} for (s, e), t in zip(spoken, (ENGLISH,) * 4, strict=True)],
            "source": "archive",
        },
        {"name": "foreign", "uri": "audio/fr_standard.m4a", "text": GERMAN, "source": "archive"},
        {"name": "unlike", "uri": "audio/ru_kommutator.ogg", "text": OTHER, "source": "blogs"},
        {"name": "music", "uri": "audio/music.mp3", "text": strange, "source": "blogs"},
        {"name": "broken", "uri": "audio/broken.mp3", "text": "What was in it, nobody knows.", "source": "blogs"},
        {"name": "unheard", "uri": "audio/unheard.mp3", "text": "This one was never transcribed.", "source": "blogs"},
        {"name": "untexted", "uri": "audio/untexted.mp3", "text": None, "source": "blogs"},
    ]  # fmt: skip


def _cues(one: Finished) -> list[dict[str, Any]]:
    return [
        {"start": item.start / SAMPLE_RATE, "end": item.end / SAMPLE_RATE, "text": item.text}
        for _, item in one.segments
    ]


def _of(one: Finished, recording: Any) -> Finished:
    """Return what was heard as that of a recording in the manifest; a stretch has what lies in it."""
    end = recording.end or one.outcome.duration
    segments = tuple(each for each in one.segments if each[1].end <= end)
    outcome = replace(one.outcome, recording=recording, duration=end - recording.start)
    guess = Guess(one.language or "en", 0.97)
    return replace(one, outcome=outcome, segments=segments, languages=(guess,))
