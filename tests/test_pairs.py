"""Pairs from manifests, tars, tables and files of one name, with the text, its times, and the source of each."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from pipeline.cues import Cue
from pipeline.errors import UserError
from pipeline.pairs import Pair, read_pairs

SRT = "1\n00:00:01,000 --> 00:00:02,500\nGood evening.\n"
CUES = (Cue(1.0, 2.5, "Good evening."),)


def pairs(source: Path) -> dict[str, Pair]:
    """Return the pairs by the last name of their URI."""
    return {pair.recording.uri.rpartition("/")[2]: pair for pair in read_pairs([str(source)])}


def manifest(folder: Path, *rows: dict[str, object]) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_manifest_gives_text_language_and_source(tmp_path: Path) -> None:
    row = {"uri": "a/one.mp3", "text": "Hi\n there ", "language": "en-GB", "source": "radio"}
    found = pairs(manifest(tmp_path, row, {"uri": "a/two.mp3", "text": None}))
    one, two = found["one.mp3"], found["two.mp3"]
    assert (one.text, one.language, one.source, one.timed) == ("Hi\nthere", "en", "radio", False)
    assert (two.text, two.source) == (None, str(tmp_path / "a"))


def test_a_manifest_may_bring_times(tmp_path: Path) -> None:
    cues = [{"start": 1.0, "end": 2.5, "text": "Good evening."}]
    found = pairs(manifest(tmp_path, {"uri": "one.mp3", "cues": cues}, {"uri": "two.mp3", "cues": json.dumps(cues)}))
    assert [(one.text, one.cues) for one in found.values()] == [("Good evening.", CUES)] * 2


def test_cues_that_make_no_sense_are_told(tmp_path: Path) -> None:
    found = pairs(manifest(tmp_path, {"uri": "one.mp3", "cues": [{"start": 3.0, "end": 1.0, "text": "x"}]}))
    assert "ends before it starts" in found["one.mp3"].fault


def test_files_of_one_name_are_pairs(tmp_path: Path) -> None:
    for name in ("a.mp3", "b.mp3", "c.mp3", "d.mp3", "lone.mp3"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a.srt").write_text(SRT)
    (tmp_path / "b.mp3.txt").write_text("Said.")
    (tmp_path / "c.de.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.500\nGuten Abend.\n", encoding="utf-8")
    (tmp_path / "d.txt").write_bytes(b"\xff\xfe\xff")
    found = pairs(tmp_path)
    assert (found["a.mp3"].text, found["a.mp3"].cues) == ("Good evening.", CUES)
    assert found["b.mp3"].text == "Said."
    assert (found["c.mp3"].text, found["c.mp3"].language) == ("Guten Abend.", "de")
    assert "no text in UTF-8" in found["d.mp3"].fault
    assert found["lone.mp3"].text is None


def test_of_several_texts_one_is_taken_and_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(b"")
    (tmp_path / "a.de.srt").write_text(SRT)
    (tmp_path / "a.txt").write_text("Plain.")
    found = read_pairs([str(tmp_path)])
    assert [pair.text for pair in found] == ["Plain."]  # its name is the audio's own
    assert "several languages or formats" in found.notes[0]


def test_of_several_texts_the_one_in_the_heard_language_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(b"")
    for code in ("de", "en", "fr"):
        (tmp_path / f"a.{code}.srt").write_text(SRT.replace("Good evening", code))
    found = read_pairs([str(tmp_path)])
    (recording,) = found.recordings
    texts = []
    for language in ("", "fr", "it"):
        found.heard({recording.id: language})
        texts += [(pair.text, pair.language) for pair in found]
    assert texts == [("en.", "en"), ("fr.", "fr"), ("en.", "en")]


def test_a_tar_gives_texts_and_subtitles(tmp_path: Path) -> None:
    path = tmp_path / "shard.tar"
    with tarfile.open(path, "w") as tar:
        for name, data in {
            "a.wav": "",
            "a.srt": SRT,
            "b.wav": "",
            "b.txt": "Said.",
            "c.wav": "",
            "c.json": "{}",
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data.encode()))
    found = list(read_pairs([str(path)]))
    assert [(pair.text, pair.cues) for pair in found] == [("Good evening.", CUES), ("Said.", ()), (None, ())]
    assert {pair.source for pair in found} == {str(path)}


def test_subtitles_of_a_stretch_are_those_inside(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(b"")
    (tmp_path / "a.srt").write_text(SRT + "\n2\n00:00:05,000 --> 00:00:06,000\nLater.\n")
    found = list(read_pairs([str(manifest(tmp_path, {"uri": "a.mp3", "start": 4, "end": 8}))]))
    assert [pair.text for pair in found] == ["Later."]


@pytest.mark.parametrize(("said", "known"), [(True, True), ("no", False), ("1", True), (None, None)])
def test_synthetic_speech_is_what_metadata_says(tmp_path: Path, said: object, known: bool | None) -> None:
    assert pairs(manifest(tmp_path, {"uri": "a.mp3", "text": "x", "synthetic": said}))["a.mp3"].synthetic is known


def test_audio_without_any_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(b"")
    with pytest.raises(UserError, match="none of the recordings has a text"):
        read_pairs([str(tmp_path)])
