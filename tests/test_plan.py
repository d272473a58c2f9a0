"""`bulkscribe plan`: headers, arithmetic, and whether what it foretells comes true."""

from __future__ import annotations

import json
import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from faulty_store import faulty_store

from jobs import main
from pipeline.draws import draw
from pipeline.ffmpeg_process import find_ffmpeg
from pipeline.forecast import Heard, Measured, audio_seconds, forecast, listed_of
from pipeline.parts import encode
from pipeline.probes import Probe, probe, probe_all
from pipeline.resampling import ResampleOptions
from pipeline.types import SAMPLE_RATE, Recording

ROOT = Path(__file__).parents[1]
AUDIO = ROOT / "examples" / "audio"
LENGTHS = {  # seconds, as ffmpeg decodes them
    "en_switchboard.mp3": 39.4, "episode.m4a": 241.6, "es_centralita.opus": 40.4, "fr_standard.m4a": 35.4,
    "it_centralino.flac": 33.1, "music.mp3": 30.7, "ru_kommutator.ogg": 33.5, "silence.wav": 12.7,
}  # fmt: skip
RESAMPLING = ResampleOptions()


def plan(*args: str | Path | int) -> Result:
    return CliRunner().invoke(main, ["plan", *map(str, args), "--model", "fake"])


def told(*args: str | Path | int) -> dict[str, Any]:
    """Return the JSON line of a plan with the fake engine."""
    result = plan(*args)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_second_opinion_is_counted_as_it_comes_true(tmp_path: Path) -> None:
    asked = "--second-opinion", "fake", "--doubt-hallucination", "0"
    plain, found = told(AUDIO / "es_centralita.opus"), told(AUDIO / "es_centralita.opus", *asked)
    assert "second_opinion" not in plain
    line = [
        "transcribe",
        str(AUDIO / "es_centralita.opus"),
        "--out",
        str(tmp_path),
        "--model",
        "fake",
        "--runner",
        "local",
    ]
    result = CliRunner().invoke(main, [*line, *asked])
    assert result.exit_code == 0, result.output
    done, second = json.loads(result.stdout)["second_opinion"], found["second_opinion"]
    assert done["asked"] > 0
    assert second["heard_again_hours"]["value"] * 3600 == pytest.approx(done["heard_again_s"], abs=0.1)
    assert second["model"] == "fake"
    assert 0 < second["machine_hours"]["value"] < found["machine_hours"]["value"]
    assert 0 < second["cpu_hours"]["value"] < found["cpu_hours"]["value"]
    assert found["output_bytes"]["value"] > plain["output_bytes"]["value"]


def test_without_doubts_a_second_opinion_costs_nothing() -> None:
    second = told(AUDIO / "silence.wav", "--second-opinion", "fake")["second_opinion"]
    assert second["heard_again_hours"]["value"] == second["machine_hours"]["value"] == 0.0


def recording(name: str, size: int = 1000) -> Recording:
    return Recording(name, name, size)


# --- headers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LENGTHS)
def test_header_tells_the_length_that_is_decoded(name: str) -> None:
    path = AUDIO / name
    assert probe(Recording("x", str(path), path.stat().st_size)).seconds == pytest.approx(LENGTHS[name], abs=0.15)


def test_of_a_stretch_only_its_own_length_counts() -> None:
    path = str(AUDIO / "silence.wav")
    lengths = [
        probe(Recording("x", path, start=start * SAMPLE_RATE, end=end and end * SAMPLE_RATE)).seconds
        for start, end in ((2, 5), (10, 99), (5, None), (50, None))
    ]
    assert lengths == pytest.approx([3.0, 2.7, 7.7, 0.0], abs=0.01)


def test_container_that_only_ffmpeg_knows_is_probed_by_it(tmp_path: Path) -> None:
    path = tmp_path / "x.mkv"
    command = [find_ffmpeg(), "-v", "error", "-i", str(AUDIO / "silence.wav"), "-c:a", "flac", str(path)]
    subprocess.run(command, check=True)
    assert probe(Recording("x", str(path))).seconds == pytest.approx(12.7, abs=0.1)


@pytest.mark.parametrize("codec", ["libopus", "libvorbis"])
def test_ogg_of_the_middle_of_a_stream_is_as_long_as_its_own_audio(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "x.ogg"
    command = [find_ffmpeg(), "-v", "error", "-i", str(AUDIO / "es_centralita.opus"), "-output_ts_offset", "500"]
    subprocess.run([*command, "-c:a", codec, str(path)], check=True)
    # Less a page: where in it the stream begins would take reading its packets.
    assert 40.4 - 5 < (probe(Recording("x", str(path), path.stat().st_size)).seconds or 0) < 40.5


def test_long_file_of_a_store_is_read_at_its_ends_only(tmp_path: Path) -> None:
    path = tmp_path / "long.opus"
    command = [
        find_ffmpeg(),
        "-v",
        "error",
        "-stream_loop",
        "29",
        "-i",
        str(AUDIO / "es_centralita.opus"),
        "-c",
        "copy",
    ]
    subprocess.run([*command, str(path)], check=True)
    with faulty_store(path.read_bytes()) as store:
        found = probe(Recording("x", f"{store.endpoint}/long.opus", path.stat().st_size))
    assert found.seconds == pytest.approx(30 * 40.36, rel=0.01)
    first, *others = (int((asked or "bytes=0-")[6:].partition("-")[0]) for asked in store.ranges)
    assert first == 0
    assert len(others) == 1
    assert others[0] > path.stat().st_size - 200_000  # of more than three million bytes


@pytest.mark.parametrize(
    "content", [b"", b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f", b"OggS" + bytes(99), bytes(10_000), b"RIFF"]
)
@pytest.mark.parametrize("ending", ["mp3", "ogg", "m4a", "wav", "flac", "wma", "dat"])
def test_what_is_no_audio_is_an_answer(tmp_path: Path, content: bytes, ending: str) -> None:
    path = tmp_path / f"x.{ending}"
    path.write_bytes(content)
    found = probe(Recording("x", str(path)))
    assert found.trouble is not None or found.seconds is None


def test_probes_come_in_order_and_say_what_is_absent() -> None:
    names = ["silence.wav", "absent.mp3", "truncated.m4a", "music.mp3"]
    found = probe_all([Recording(name, str(AUDIO / name)) for name in names])
    assert [one.recording.id for one in found] == names
    assert [(one.trouble or "").partition(":")[0] for one in found] == ["", "not_found", "not_audio", ""]
    assert [one.format for one in found if one.seconds] == ["wav, 8 kHz, mono", "mp3, 16 kHz, mono"]


# --- arithmetic -------------------------------------------------------------------------------------------------------


def test_hours_are_exact_where_every_header_was_read() -> None:
    probes = [Probe(recording("a.mp3"), 10.0), Probe(recording("b.mp3"), trouble="empty: 0 bytes")]
    found, samples = audio_seconds(listed_of(["a.mp3", "b.mp3"], [1000, 1000]), probes, RESAMPLING)
    assert (found.value, found.low, found.high) == (10.0, 10.0, 10.0)
    assert not len(samples)


def test_hours_of_the_others_are_told_by_their_bytes_and_format() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(10_000, 100_000, 3000)
    names = [f"{at}.{'mp3' if at % 3 else 'wav'}" for at in range(3000)]
    pace = np.array([1 / 2000 if name.endswith("mp3") else 1 / 32_000 for name in names])
    seconds = sizes * pace * rng.uniform(0.8, 1.25, 3000)
    looked_at = rng.choice(3000, 200, replace=False)
    probes = [Probe(recording(names[at], int(sizes[at])), float(seconds[at])) for at in looked_at]
    found, _ = audio_seconds(listed_of(names, sizes.tolist()), probes, RESAMPLING)
    assert found.value == pytest.approx(seconds.sum(), rel=0.03)
    assert found.low < seconds.sum() < found.high
    assert found.high - found.low < 0.1 * found.value


def test_sizes_that_no_store_tells_leave_the_mean_length() -> None:
    probes = [Probe(Recording("a", "a.mp3"), 10.0), Probe(Recording("b", "b.mp3"), 20.0)]
    found, _ = audio_seconds(listed_of([f"{n}.mp3" for n in range(10)], [-1] * 10), probes, RESAMPLING)
    assert found.value == 150.0


@pytest.fixture
def chance() -> random.Random:
    seed = random.randrange(2**31)
    print("seed", seed)  # noqa: T201 (a failure must be repeatable)
    return random.Random(seed)


def probes_of(*lengths: float | None) -> list[Probe]:
    return [Probe(recording(f"{at}.mp3"), seconds) for at, seconds in enumerate(lengths)]


@pytest.mark.parametrize("count", [1, 3, 8, 40, 99])
def test_what_is_drawn_stands_for_all_audio_and_the_longest_for_itself(count: int, chance: random.Random) -> None:
    probes = probes_of(*(chance.uniform(1, 9) for _ in range(40)), 800.0)
    drawn = draw(probes, count, chance)
    assert len(drawn) == min(count, 41)
    assert sum(drawn.values()) == pytest.approx(sum(one.seconds or 0 for one in probes))
    if count > 1:
        assert drawn["40.mp3"] == 800.0
    if count >= 41:
        assert drawn == {one.recording.id: one.seconds for one in probes}


def test_recordings_are_drawn_as_often_as_they_are_long(chance: random.Random) -> None:
    probes = probes_of(1.0, 2.0, 3.0, 4.0, 10.0)
    many = [draw(probes, 2, chance) for _ in range(4000)]
    shares = [sum(f"{at}.mp3" in drawn for drawn in many) / len(many) for at in range(5)]
    assert shares == pytest.approx([0.1, 0.2, 0.3, 0.4, 1.0], abs=0.04)  # five standard deviations


def test_recording_of_unknown_length_is_drawn_as_one_of_the_mean(chance: random.Random) -> None:
    assert draw(probes_of(10.0, 30.0, None), 3, chance) == {"0.mp3": 10.0, "1.mp3": 30.0, "2.mp3": 20.0}
    assert draw(probes_of(None, None), 2, chance) == {"0.mp3": 1.0, "1.mp3": 1.0}


def heard(*ones: tuple[float, float, str]) -> tuple[Heard, ...]:
    """Return measured recordings by seconds, work and language."""
    return tuple(
        Heard(f"{at}.mp3", seconds, 0.8 * seconds, work, language, int(10 * seconds))
        for at, (seconds, work, language) in enumerate(ones)
    )


def test_costs_go_with_the_audio_and_their_range_with_how_unlike_recordings_are() -> None:
    listed = listed_of([f"{n}.mp3" for n in range(100)], [1000] * 100)
    probes = probes_of(*[10.0] * 100)
    standing = {f"{at}.mp3": 250.0 for at in range(4)}
    alike = heard(*[(10.0, 1.0, "en")] * 4)
    found = forecast(listed, probes, Measured(alike, 5.0, 8.0, 16.0, 400), standing, RESAMPLING)
    assert (found.wall_s.value, found.wall_s.low, found.wall_s.high) == pytest.approx((200.0, 200.0, 200.0))
    assert (found.cpu_s.value, found.speech_s.value, found.output_bytes.value) == pytest.approx(
        (400.0, 800.0, 1000 * 10)
    )
    unlike = heard(*((10.0, work, "en" if work > 1 else "de") for work in (1.0, 3.0, 1.0, 3.0)))
    found = forecast(listed, probes, Measured(unlike, 5.0, 8.0, 16.0, 400), standing, RESAMPLING)
    assert found.wall_s.value == pytest.approx(200.0)
    assert found.wall_s.low < 150 < 250 < found.wall_s.high
    assert found.languages == {"de": 0.5, "en": 0.5}


def test_each_measured_recording_counts_by_what_it_stands_for_however_much_was_heard_of_it() -> None:
    probes = probes_of(1000.0, 5.0, 5.0)
    ran = Measured(heard((100.0, 10.0, "fr"), (5.0, 5.0, "en"), (0.0, 3.0, "none")), 1.0, 18.0, 36.0, 105)
    listed = listed_of([one.recording.uri for one in probes], [1000] * 3)
    found = forecast(listed, probes, ran, draw(probes, 3, random.Random(0)), RESAMPLING)
    assert (found.wall_s.value, found.cpu_s.value) == pytest.approx((105.0, 210.0))  # 10 s for each 100 s, and 5
    assert found.output_bytes.value == pytest.approx(1005.0)
    assert found.languages == pytest.approx({"fr": 1000 / 1010, "en": 5 / 1010, "none": 5 / 1010})


# --- the command ------------------------------------------------------------------------------------------------------


def test_everything_is_one_json_line_and_people_read_stderr() -> None:
    result = plan(AUDIO, "--price-per-hour", "3", "--actors", "1,2", "--measure", "9")
    found = json.loads(result.stdout)
    assert (found["recordings"], found["probed"], found["unreadable"]["value"]) == (9, 9, 1.0)
    assert 3600 * found["audio_hours"]["value"] == pytest.approx(sum(LENGTHS.values()), rel=0.01)
    assert found["measured"]["audio_s"] == pytest.approx(sum(LENGTHS.values()) - 181.6, abs=1)  # a minute of the long
    assert found["troubles"] == {"not_audio": 1}
    walls = [found["wall_s"][count]["value"] - found["measured"]["load_s"] for count in ("1", "2")]
    assert walls[0] == pytest.approx(2 * walls[1], abs=0.3)
    assert found["price"]["value"] == pytest.approx(3 * found["machine_hours"]["value"], abs=0.01)
    assert 0 < found["price"]["low"] + 1 < found["price"]["high"] + 1.01
    assert "measured here" in result.stderr
    assert "wall time, 2 actors" in result.stderr


def test_same_seed_looks_at_the_same_recordings(tmp_path: Path) -> None:
    for number in range(12):
        shutil.copy(
            AUDIO / ("silence.wav" if number % 2 else "music.mp3"),
            tmp_path / f"{number}{'.wav' if number % 2 else '.mp3'}",
        )
    few = "--probe", "5", "--measure", "2", "--measure-min-s", "0"
    a, b, other = (told(tmp_path, *few, "--seed", seed) for seed in ("1", "1", "2"))
    assert (a["audio_hours"], a["formats"]) == (b["audio_hours"], b["formats"])
    assert (a["probed"], a["measured"]["recordings"]) == (5, 2)
    assert (a["measured"]["audio_s"], a["speech_hours"]) == (b["measured"]["audio_s"], b["speech_hours"])
    assert 3600 * a["audio_hours"]["value"] == pytest.approx(6 * (12.7 + 30.8), abs=1)  # both kinds were among the five
    assert other["formats"] != {} != a["formats"]


def test_of_long_recordings_any_part_is_measured(tmp_path: Path) -> None:
    command = [
        find_ffmpeg(),
        "-v",
        "error",
        "-i",
        str(AUDIO / "es_centralita.opus"),
        "-af",
        "adelay=40s,apad=whole_dur=120",
    ]
    subprocess.run([*command, str(tmp_path / "x.flac")], check=True)  # speech from 40 to 80 s of 120
    speech_s = [
        3600 * told(tmp_path, "--measure-max-s", "20", "--seed", seed)["speech_hours"]["value"] for seed in range(8)
    ]
    assert min(speech_s) < 20  # of silence
    assert max(speech_s) > 60  # of speech


def test_of_video_the_beginning_is_measured(tmp_path: Path) -> None:
    """What lies before a place in it would be decoded, and measured, too."""
    source = str(AUDIO / "es_centralita.opus")
    command = [find_ffmpeg(), "-v", "error", "-i", source, "-f", "lavfi", "-i", "testsrc=s=64x48:d=80"]
    subprocess.run([*command, "-c:a", "aac", "-c:v", "mpeg4", str(tmp_path / "x.mp4")], check=True)  # speech up to 40 s
    for seed in range(5):
        found = told(tmp_path, "--measure-max-s", "20", "--seed", seed)
        assert 3600 * found["speech_hours"]["value"] > 60  # as if it went on so


def test_recordings_of_unknown_length_count_as_much_as_is_measured_of_each(tmp_path: Path) -> None:
    for number in range(9):
        command = [find_ffmpeg(), "-v", "error", "-i", str(AUDIO / "silence.wav"), "-f", "matroska", "-live", "1"]
        subprocess.run([*command, str(tmp_path / f"{number}.mka")], check=True)
    found = told(tmp_path, "--measure", "2", "--measure-min-s", "30", "--measure-max-s", "10")
    assert found["measured"]["recordings"] == 3


def test_of_short_recordings_more_are_measured(tmp_path: Path) -> None:
    for number in range(9):
        shutil.copy(AUDIO / "silence.wav", tmp_path / f"{number}.wav")  # 12.7 s
    counts = [
        told(tmp_path, "--measure", "2", "--measure-min-s", seconds)["measured"]["recordings"]
        for seconds in ("0", "30", "60", "480")
    ]
    assert counts == [2, 3, 5, 9]


def test_sources_of_which_nothing_can_be_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "x.mp3").write_bytes(b"no audio at all")
    result = plan(tmp_path)
    assert result.exit_code == 2
    assert "error: none of the recordings that were looked at can be read" in result.stderr
    assert "hint: the first: not_audio" in result.stderr


def test_sources_of_which_nothing_can_be_decoded_are_told(tmp_path: Path) -> None:
    whole = (AUDIO / "it_centralino.flac").read_bytes()
    (tmp_path / "x.flac").write_bytes(whole[:5000] + bytes(len(whole)))  # a header, and no frame
    result = plan(tmp_path, "--measure-max-s", "5", "--seed", "1")
    assert result.exit_code == 2
    assert "error: nothing of the recordings that were to be measured could be decoded" in result.stderr
    assert "hint: the first: " in result.stderr


def test_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told(AUDIO / "silence.wav")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_real_run_hears_and_writes_what_was_foretold(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    for name in ("episode.m4a", "en_switchboard.mp3", "es_centralita.opus", "fr_standard.m4a", "it_centralino.flac"):
        pieces = str(sources / f"{Path(name).stem}-%02d.wav")
        cutting = [find_ffmpeg(), "-v", "error", "-i", str(AUDIO / name), "-f", "segment", "-segment_time", "20"]
        subprocess.run([*cutting, pieces], check=True)
    both = [str(sources), "--model", "base", "--threads", "1"]
    foretold = run("plan", *both, "--measure", "22")
    before = cpu_s()
    run("transcribe", *both, "--out", str(tmp_path / "out"), "--runner", "local")
    # How near it comes is told by bench/plan.py: beside other work on a machine, times are no test but of their units.
    assert 1 / 4 < 3600 * foretold["cpu_hours"]["value"] / (cpu_s() - before) < 4
    written = pd.concat(map(pd.read_parquet, (tmp_path / "out/recordings").glob("*.parquet")))
    assert foretold["measured"]["recordings"] == len(written)
    assert 3600 * foretold["audio_hours"]["value"] == pytest.approx(written["duration_s"].sum(), abs=1)
    assert 3600 * foretold["speech_hours"]["value"] == pytest.approx(written["speech_s"].sum(), abs=1)
    assert foretold["languages"].keys() == set(written["language"].fillna("none"))
    size = sum(size_of_rows(tmp_path / "out" / table) for table in ("recordings", "segments"))
    assert foretold["output_bytes"]["value"] == pytest.approx(size, rel=0.05)


def cpu_s() -> float:
    """Return the CPU time of all processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def size_of_rows(folder: Path) -> int:
    """Return what a table's rows take in one file: a slow machine writes more, each with its own dictionaries."""
    table = pq.read_table(folder)
    return len(encode(table)) - len(encode(table.slice(0, 0)))


def run(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "jobs", *arguments], cwd=ROOT, check=True, capture_output=True, text=True, timeout=600
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found
