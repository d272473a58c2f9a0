"""`bulkscribe export`: which files, under which names, with what in them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from lhotse import SupervisionSet
from outputs import finished, segment, write_output, write_part
from s3_server import s3_server

from jobs import main
from jobs.export import file_stem
from pipeline import storage
from pipeline.asr_manifests import Manifests
from pipeline.asr_manifests import lhotse as lhotse_lines
from schemas.speakers import SPEAKERS

AUDIO = Path(__file__).parents[1] / "examples" / "audio"


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
    assert (out / "export" / "news.txt").read_text(encoding="utf-8") == "Good evening. Here is the news.\n"


def test_output_in_a_store(tmp_path: Path) -> None:
    out = write_output(tmp_path)
    with s3_server():
        for path in files(out):
            storage.write_bytes(f"s3://audio/out/{path}", (out / path).read_bytes())
        result = export("s3://audio/out", "--format", "txt")
        assert json.loads(result.stdout)["to"] == "s3://audio/out/export"
        assert storage.names("s3://audio/out/export") == ["news.txt", "song.txt", "été.txt"]
        assert storage.read_bytes("s3://audio/out/export/été.txt").decode() == "Bonsoir.\n"


def test_nemo_has_a_line_a_segment_of_all_recordings(tmp_path: Path) -> None:
    out = write_output(tmp_path)
    assert json.loads(export(out, "--format", "nemo", "--drop-flags", "repetitive").stdout)["files"] == 1
    lines = (out / "export/nemo/manifest_0.json").read_text(encoding="utf-8").splitlines()
    first, second, third = map(json.loads, lines)
    assert first == {
        "audio_filepath": "/radio/news.mp3", "offset": 0.0, "duration": 2.5, "text": "Good evening.", "lang": "en",
    }  # fmt: skip
    assert (second["offset"], second["text"]) == (2.5, "Here is the news.")
    assert (third["audio_filepath"], third["lang"]) == ("s3://radio/été.opus", "fr")


def test_lhotse_reads_real_audio_by_the_manifests(tmp_path: Path) -> None:
    import lhotse
    import soundfile

    out = tmp_path / "out"
    sources = [AUDIO / "it_centralino.flac", AUDIO / "ru_kommutator.ogg", AUDIO / "silence.wav"]
    arguments = ["transcribe", *map(str, sources), "--out", str(out), "--model", "fake", "--runner", "local"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0
    segments = json.loads(done.stdout)["segments"]
    assert export(out, "--format", "lhotse,nemo").exit_code == 0
    recordings = lhotse.load_manifest(out / "export/lhotse/recordings.000000.jsonl.gz")
    supervisions = lhotse.load_manifest(out / "export/lhotse/supervisions.000000.jsonl.gz")
    lhotse.validate_recordings_and_supervisions(recordings, supervisions)
    cuts = lhotse.CutSet.from_manifests(recordings=recordings, supervisions=supervisions)
    assert len(recordings) == 3
    assert len(supervisions) == len(cuts.trim_to_supervisions(keep_overlapping=False).to_eager()) == segments > 0
    for recording in recordings:
        audio = recording.load_audio()
        assert audio.shape == (recording.num_channels, recording.num_samples)
        assert recording.sampling_rate == soundfile.info(recording.sources[0].source).samplerate
    cut = next(iter(cuts.trim_to_supervisions()))
    assert cut.load_audio().shape[1] == cut.num_samples > 0
    assert cut.supervisions[0].text.startswith("Speech of ")
    assert len((out / "export/nemo/manifest_0.json").read_text(encoding="utf-8").splitlines()) == len(supervisions)


def test_manifests_are_cut_into_shards_between_recordings(tmp_path: Path) -> None:
    manifests = Manifests("lhotse", str(tmp_path), shard=3)
    rows = [{"index": n, "start": n, "end": n + 1, "text": "One.", "language": "en"} for n in range(2)]
    for number in range(5):
        about = {"recording_id": f"id{number}", "uri": "/a.wav", "sample_rate": 8000, "channels": 2, "duration_s": 2.0}
        manifests.add(about, rows)
    manifests.close()
    held = [
        [json.loads(line)["recording_id"] for line in gzip.decompress(path.read_bytes()).splitlines()]
        for path in sorted((tmp_path / "lhotse").glob("supervisions.*"))
    ]
    assert held == [["id0", "id0", "id1", "id1"], ["id2", "id2", "id3", "id3"], ["id4", "id4"]]
    assert manifests.files == 6


def test_channel_that_was_listened_to_is_the_channel_of_the_supervisions(tmp_path: Path) -> None:
    row = {"index": 0, "start": 0.0, "end": 1.0, "text": "One.", "language": "en", "speaker": "A", "flags": []}
    about = {"recording_id": "id", "uri": "/a.wav", "sample_rate": 8000, "channels": 2, "duration_s": 2.0}
    for selection, channel in (("mix", [0, 1]), ("channel 1", 1)):
        _, (_, supervisions) = lhotse_lines(about | {"selection": selection}, [row])
        (line,) = supervisions
        assert (line["channel"], line["speaker"], line["custom"]) == (channel, "id/A", {"flags": []})


def test_recording_of_a_stretch_reaches_to_its_end_at_least() -> None:
    about = {
        "recording_id": "id",
        "uri": "/a.wav",
        "sample_rate": 8000,
        "channels": 1,
        "duration_s": 2.0,
        "start_s": 3.0,
    }
    (_, [recording]), _ = lhotse_lines(about, [])
    assert (recording["duration"], recording["num_samples"]) == (5.0, 40_000)


def test_redacted_texts_in_every_format(tmp_path: Path) -> None:
    said = segment(0, 4, "Write to jo@example.org or call +1 212 736 5000.")
    write_part(tmp_path, "part-1.parquet", [finished("id1", "/a/talk.mp3", said)])
    result = export(tmp_path, "--format", "srt,vtt,txt,json,nemo,lhotse", "--redact")
    assert json.loads(result.stdout)["redacted"] == {"email": 1, "phone": 1, "card": 0}
    assert "redacted: 1 x [email], 1 x [phone], 0 x [card]" in result.stderr
    for path in (path for path in (tmp_path / "export").rglob("*") if path.is_file()):
        text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text("utf-8")
        assert "example" not in text
        assert "736" not in text
        assert "[email]" in text or "recordings" in path.name


def test_unknown_phone_region_is_refused(tmp_path: Path) -> None:
    result = export(write_output(tmp_path), "--redact", "--phone-regions", "US,XX")
    assert result.exit_code == 2
    assert "XX is no country" in result.stderr


def test_rttm_has_the_turns_that_its_readers_read(tmp_path: Path) -> None:
    out = write_output(tmp_path)
    (out / "speakers").mkdir()
    turns = {"Speaker 1": [(0.5, 3.0), (6.0, 7.25)], "Speaker 2": [(2.5, 4.0)]}
    speakers = [
        {
            "recording_id": "aaaa",
            "speaker": name,
            "speech_s": sum(end - start for start, end in mine),
            "turns": [{"start": start, "end": end} for start, end in mine],
            "vector": [1.0],
        }
        for name, mine in turns.items()
    ]
    pq.write_table(pa.Table.from_pylist(speakers, SPEAKERS), out / "speakers" / "part-0001.parquet")
    assert export(out, "--format", "rttm").exit_code == 0
    assert files(out / "export") == sorted(["news.rttm", "song.rttm", "été.rttm"])
    read = SupervisionSet.from_rttm(out / "export" / "news.rttm")
    assert [(one.recording_id, one.start, one.end, one.speaker) for one in read] == [
        ("news", 0.5, 3.0, "Speaker_1"), ("news", 2.5, 4.0, "Speaker_2"), ("news", 6.0, 7.25, "Speaker_1")
    ]  # fmt: skip
    assert (out / "export" / "song.rttm").read_text(encoding="utf-8") == ""


def test_rttm_without_speakers_is_refused_with_a_hint(tmp_path: Path) -> None:
    result = export(write_output(tmp_path), "--format", "rttm")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[1] == "hint: bulkscribe transcribe --speakers tells them apart"
