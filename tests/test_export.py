"""`bulkscribe export`: which files, under which names, with what in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from outputs import finished, segment, write_output, write_part
from s3_server import s3_server

from jobs import main
from jobs.export import file_stem
from pipeline import storage


def export(*args: str | Path) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, args)])


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_one_file_a_recording_and_format_in_all_formats(tmp_path: Path) -> None:
    out = write_output(tmp_path)
    assert export(out, "--format", "srt,vtt,txt,json").exit_code == 0
    assert files(out / "export") == sorted(
        f"{name}.{kind}" for name in ("news", "song", "été") for kind in ("srt", "vtt", "txt", "json")
    )


def test_srt_is_the_default_and_has_the_times(tmp_path: Path) -> None:
    out = write_output(tmp_path)
    export(out)
    assert (out / "export" / "news.srt").read_text(encoding="utf-8") == (
        "1\n00:00:00,000 --> 00:00:02,500\nGood evening.\n\n2\n00:00:02,500 --> 00:00:05,000\nHere is the news.\n"
    )


def test_json_has_the_columns_of_the_segments_table(tmp_path: Path) -> None:
    out = write_output(tmp_path)
    export(out, "--format", "json")
    (row,) = json.loads((out / "export" / "song.json").read_text(encoding="utf-8"))
    assert (row["start"], row["end"], row["flags"]) == (0.0, 10.0, ["repetitive", "no_speech"])
    assert row["attempts"] == [{"temperature": 0.0, "avg_logprob": -0.25, "compression_ratio": 1.5}]


def test_counts_are_one_json_line_on_stdout_and_talk_is_on_stderr(tmp_path: Path) -> None:
    result = export(write_output(tmp_path), "--to", tmp_path / "texts", "--format", "txt")
    assert json.loads(result.stdout) == {
        "recordings": 4,
        "files": 3,
        "segments": 4,
        "dropped_segments": 0,
        "failed": 1,
        "to": str(tmp_path / "texts"),
    }
    assert "1 failed recordings have no file" in result.stderr


def test_flagged_segments_stay_unless_they_are_dropped(tmp_path: Path) -> None:
    out = write_output(tmp_path)
    export(out, "--format", "txt")
    assert (out / "export" / "song.txt").read_text(encoding="utf-8") == "la la la la la\n"
    result = export(out, "--format", "txt", "--drop-flags", "low_logprob,repetitive")
    assert (out / "export" / "song.txt").read_text(encoding="utf-8") == ""
    assert "1 flagged segments were left out" in result.stderr


def test_unknown_flags_and_formats_are_refused(tmp_path: Path) -> None:
    out = write_output(tmp_path)
    assert export(out, "--drop-flags", "boring").exit_code == 2
    assert export(out, "--format", "docx").exit_code == 2
    assert not (out / "export").exists()


def test_folder_without_transcripts_is_refused_with_a_hint(tmp_path: Path) -> None:
    result = export(tmp_path / "nothing")
    assert result.exit_code == 2
    error, hint = result.stderr.splitlines()
    assert error == f"error: there are no transcripts in {tmp_path / 'nothing'}"
    assert hint.startswith("hint: bulkscribe transcribe")


def test_equal_names_get_their_ids(tmp_path: Path) -> None:
    said = segment(0, 1, "One.")
    write_part(tmp_path, "part-1.parquet", [finished("id1", "/a/Talk.mp3", said), finished("id2", "/b/x.mp3", said)])
    write_part(tmp_path, "part-2.parquet", [finished("id3", "/b/talk.wav", said)])
    export(tmp_path, "--format", "txt")
    assert files(tmp_path / "export") == ["Talk-id1.txt", "talk-id3.txt", "x.txt"]


@pytest.mark.parametrize(
    "uri",
    [
        "/a/../../etc/passwd",
        "/a/..",
        "..",
        ".",
        "/",
        "s3://b/..%2F..%2Fx",
        "https://h/%2e%2e%2f%2e%2e%2fx?k=v",
        "/a/\n\x00.mp3",
    ],
)
def test_no_file_leaves_the_folder_whatever_the_uri_says(tmp_path: Path, uri: str) -> None:
    write_part(tmp_path / "out", "part-1.parquet", [finished("id1", uri, segment(0, 1, "One."))])
    export(tmp_path / "out", "--format", "txt", "--to", tmp_path / "a" / "b")
    written = [path for path in tmp_path.rglob("*.txt")]
    assert [path.parent for path in written] == [tmp_path / "a" / "b"]
    assert not written[0].name.startswith(".")


@pytest.mark.parametrize(
    ("uri", "stem"),
    [
        ("/radio/2024.05.01 news.mp3", "2024.05.01 news"),
        ("https://host/feed/episode%2012.m4a?token=abc", "episode 12"),
        ("s3://bucket/a%20b.wav", "a%20b"),
        ("/talks/Dr. Who", "Dr. Who"),
        ('/talks/what? "yes": no.ogg', "what_ _yes__ no"),
        ("/talks/.hidden.mp3", "hidden"),
        ("/talks/日本語.flac", "日本語"),
    ],
)
def test_name_of_a_file(uri: str, stem: str) -> None:
    assert file_stem(uri) == stem


def test_long_names_are_cut_between_characters() -> None:
    assert file_stem("/" + "é" * 300 + ".mp3") == "é" * 90


def test_long_names_that_become_equal_get_their_ids(tmp_path: Path) -> None:
    said = segment(0, 1, "One.")
    items = [finished(f"id{n}", f"/a/{'long' * 60}{n}.mp3", said) for n in (1, 2)]
    write_part(tmp_path, "part-1.parquet", items)
    export(tmp_path, "--format", "txt")
    assert [name[-8:] for name in files(tmp_path / "export")] == ["-id1.txt", "-id2.txt"]


def test_long_segments_become_several_subtitles(tmp_path: Path) -> None:
    text = "this sentence goes on " * 12
    write_part(tmp_path, "part-1.parquet", [finished("id1", "/a/talk.mp3", segment(0, 30, text))])
    export(tmp_path, "--max-line-chars", "30")
    lines = (tmp_path / "export" / "talk.srt").read_text(encoding="utf-8").splitlines()
    spoken = [line for line in lines if line and "-->" not in line and not line.isdigit()]
    assert max(map(len, spoken)) <= 30
    assert " ".join(spoken) == text.strip()


def test_rows_of_other_recordings_in_a_part_are_not_mixed(tmp_path: Path) -> None:
    out = write_output(tmp_path)
    export(out, "--format", "txt")
    assert (out / "export" / "news.txt").read_text(encoding="utf-8") == "Good evening.\nHere is the news.\n"


def test_output_in_a_store(tmp_path: Path) -> None:
    out = write_output(tmp_path)
    with s3_server():
        for path in files(out):
            storage.write_bytes(f"s3://audio/out/{path}", (out / path).read_bytes())
        result = export("s3://audio/out", "--format", "txt")
        assert json.loads(result.stdout)["to"] == "s3://audio/out/export"
        assert storage.names("s3://audio/out/export") == ["news.txt", "song.txt", "été.txt"]
        assert storage.read_bytes("s3://audio/out/export/été.txt").decode() == "Bonsoir.\n"
