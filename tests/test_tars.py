"""Tars: members are recordings, wherever the tar lies; what is broken or hostile in it is told, and harms nothing."""

from __future__ import annotations

import io
import json
import random
import subprocess
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from faulty_store import faulty_store
from s3_server import s3_server
from store_servers import azurite, gcs_server
from web_server import web_server

from pipeline import pieces, storage
from pipeline.decode import Decoder
from pipeline.errors import OpenError, UserError
from pipeline.sources import Listing, resolve
from pipeline.stages import CutOptions, cut
from pipeline.types import Outcome, Recording

EXAMPLES = Path(__file__).parents[1] / "examples" / "audio"
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
DEEP = "/".join(["a folder with a long name"] * 12) + "/é.wav"


def packed(
    *members: tuple[str, bytes], kind: int = tarfile.PAX_FORMAT, change: Callable[..., None] | None = None
) -> bytes:
    """Return a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind, errors="surrogateescape") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if change:
                change(info)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def listed(folder: Path, data: bytes) -> Listing:
    (folder / "x.tar").write_bytes(data)
    return resolve([str(folder / "x.tar")])


def content(recording: Recording) -> bytes:
    with pieces.open_piece(recording.location, recording.version, recording.inside) as stream:
        return stream.read()


def names(listing: Listing) -> list[str | None]:
    return [storage.piece_name(one.uri) for one in listing.recordings]


@pytest.mark.parametrize("kind", FORMATS)
def test_members_are_recordings_in_all_formats(tmp_path: Path, kind: str) -> None:
    members = [("a.mp3", b"1" * 700), ("sub/b c.FLAC", b"22"), ("notes.md", b"x"), ("._a.mp3", b"x")]
    members += [] if kind == "ustar" else [(DEEP, b"333"), ("x" * 300 + ".ogg", b"4444"), ("caf\udce9.wav", b"5")]
    listing = listed(tmp_path, packed(*members, kind=FORMATS[kind]))
    assert dict(zip(names(listing), map(content, listing.recordings), strict=True)) == {
        name: data for name, data in members if name not in ("notes.md", "._a.mp3")
    }
    assert listing.passed_over == 2
    assert listing.notes == ()
    first = listing.recordings[0]
    assert (first.uri, first.size) == (f"{tmp_path}/x.tar#member=a.mp3", 700)
    assert first.version == storage.stat(f"{tmp_path}/x.tar").version
    assert resolve([first.uri]).recordings == [first]


def test_hostile_names_are_labels(tmp_path: Path) -> None:
    odd = ["../../up.wav", "/abs.wav", "a\nb.wav", "a\x1b[31m.wav", "#member=x&nth=9.wav", "\u202egpj.wav", "a%2Fb.wav"]
    listing = listed(tmp_path, packed(*((name, name.encode()) for name in odd)))
    assert names(listing) == odd
    assert [content(one) for one in listing.recordings] == [name.encode() for name in odd]
    assert [one.uri.partition("#")[2] for one in listing.recordings] == [
        "member=../../up.wav",
        "member=/abs.wav",
        "member=a%0Ab.wav",
        "member=a%1B[31m.wav",
        "member=%23member=x%26nth=9.wav",
        "member=%E2%80%AEgpj.wav",
        "member=a%252Fb.wav",
    ]
    assert all(storage.canonical(one.uri) == one.uri for one in listing.recordings)


def test_members_of_one_name_are_all_there(tmp_path: Path) -> None:
    listing = listed(tmp_path, packed(("a.wav", b"1"), ("a.wav", b"2"), ("a.wav", b"3")))
    assert [one.uri.partition("#")[2] for one in listing.recordings] == [
        "member=a.wav", "member=a.wav&nth=2", "member=a.wav&nth=3"
    ]  # fmt: skip
    assert [content(one) for one in listing.recordings] == [b"1", b"2", b"3"]
    assert listing.doubles == 0


def test_lines_of_a_manifest_name_members(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(packed(("a b.wav", b"1"), ("a b.wav", b"2"), ("c.wav", b"3")))
    (tmp_path / "no.tar").write_bytes(b"no tar")
    lines = ["x.tar#member=a%20b.wav&nth=2,,de", "x.tar#member=c.wav,1.5,", "x.tar#member=d.wav,,", "no.tar#member=e,,"]
    (tmp_path / "some.csv").write_text("\n".join(["uri,start,language", *lines]), encoding="utf-8")
    second, stretch, *absent = resolve([str(tmp_path / "some.csv")]).recordings
    assert (content(second), second.language, second.version) == (b"2", "de", stretch.version)
    assert (content(stretch), stretch.start) == (b"3", 24_000)
    assert [one.uri for one in resolve([str(tmp_path / "x.tar")]).recordings][1:] == [second.uri, stretch.uri]
    for one in absent:
        with pytest.raises(OpenError) as raised:
            content(one)
        assert raised.value.kind == "not_found"


def test_texts_beside_the_audio_travel(tmp_path: Path) -> None:
    listing = listed(
        tmp_path,
        packed(
            ("b.txt", "Grüße \n".encode()),
            ("a.wav", b"1"),
            ("b.wav", b"2"),
            ("a.json", b'{"text": "hello", "speaker": 7}'),
            ("c.wav", b"3"),
            ("a.txt", b"Hello."),
            ("d.wav", b"4"),
            ("d.json", b"not json"),
            ("alone.txt", b"x"),
        ),
    )
    assert [json.loads(one.metadata) for one in listing.recordings] == [
        {"text": "hello", "speaker": 7, "reference": "Hello."},
        {"reference": "Grüße"},
        {},
        {},
    ]
    assert len(listing.notes) == 1
    assert "d.json" in listing.notes[0]


def test_links_folders_and_devices_are_no_recordings(tmp_path: Path) -> None:
    kinds = {"l.wav": tarfile.SYMTYPE, "h.wav": tarfile.LNKTYPE, "d.wav": tarfile.DIRTYPE, "c.wav": tarfile.CHRTYPE}

    def change(info: tarfile.TarInfo) -> None:
        info.type = kinds.get(info.name, tarfile.REGTYPE)
        info.linkname = "/etc/passwd" if info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""

    listing = listed(tmp_path, packed(*((name, b"") for name in kinds), ("a.wav", b"1"), change=change))
    assert names(listing) == ["a.wav"]


def test_sparse_members_have_their_zeros(tmp_path: Path) -> None:
    with (tmp_path / "a.wav").open("wb") as file:
        file.write(b"begin")
        file.seek(1 << 20)
        file.write(b"middle" * 1000)
        file.seek(3 << 20)
        file.write(b"end")
        file.truncate(4 << 20)
    whole = (tmp_path / "a.wav").read_bytes()
    for kind in ("gnu", "posix"):
        command = ["tar", f"--format={kind}", "--sparse", "-cf", f"{kind}.tar", "a.wav"]
        subprocess.run(command, cwd=tmp_path, check=True)
        assert (tmp_path / f"{kind}.tar").stat().st_size < 200_000
        (recording,) = resolve([str(tmp_path / f"{kind}.tar")]).recordings
        assert recording.size == 4 << 20
        assert content(recording) == whole


def outcome(recording: Recording) -> Outcome:
    *_, last = cut(recording, CutOptions())
    assert isinstance(last, Outcome)
    return last


@pytest.mark.parametrize("name", ["fr_standard.m4a", "silence.wav"])  # an index at the end, and none
def test_a_member_sounds_as_its_file(tmp_path: Path, name: str) -> None:
    data = (EXAMPLES / name).read_bytes()
    listing = listed(tmp_path, packed(("before.mp3", b"x" * 1000), (name, data), ("after.mp3", b"x" * 1000)))
    member = listing.recordings[1]
    path, window = pieces.local_window(member.location, member.inside) or ("", None)
    opener = lambda: pieces.open_piece(member.location, member.version, member.inside)  # noqa: E731
    here = Decoder(opener, path, window=window)
    streamed = Decoder(opener)
    alone = Decoder(lambda: storage.open_audio(str(EXAMPLES / name)), str(EXAMPLES / name))
    heard = [np.concatenate(list(one.blocks())) for one in (here, streamed, alone)]
    assert np.array_equal(heard[0], heard[2])
    assert np.array_equal(heard[1], heard[2])


def test_a_tar_that_is_cut_off_gives_what_is_before_and_says_so(tmp_path: Path) -> None:
    silence = (EXAMPLES / "silence.wav").read_bytes()
    data = packed(("a.wav", silence), ("b.wav", silence), ("c.wav", silence))
    listing = listed(tmp_path, data[: len(silence) * 2])
    assert names(listing) == ["a.wav", "b.wav", None]
    assert len(listing.notes) == 1
    outcomes = [outcome(one) for one in listing.recordings]
    assert [one.status for one in outcomes] == ["ok", "partial", "failed"]
    assert [one.failure and one.failure.kind for one in outcomes[1:]] == ["truncated", "damaged"]


def test_a_tar_that_changes_behind_its_listing_is_refused(tmp_path: Path) -> None:
    listing = listed(tmp_path, packed(("a.wav", b"1" * 900), ("b.wav", b"2")))
    listed(tmp_path, packed(("b.wav", b"2" * 700), ("a.wav", b"1")))
    with pytest.raises(OpenError) as caught:
        content(listing.recordings[0])
    assert (caught.value.kind, caught.value.retryable) == ("changed", True)


def test_damage_in_the_middle_is_a_row(tmp_path: Path) -> None:
    data = bytearray(packed(("a.wav", b"1" * 500), ("b.wav", b"2" * 500), ("c.wav", b"3")))
    data[2048:2560] = random.Random(1).randbytes(512)  # the header of b, or behind its extension
    listing = listed(tmp_path, packed(("first.wav", b"0")).rstrip(b"\0").ljust(1024, b"\0") + bytes(data))
    assert names(listing)[-1] is None
    with pytest.raises(OpenError, match="damaged"):
        content(listing.recordings[-1])


@pytest.mark.parametrize(
    "data", [b"", b"no tar", b"\x1f\x8b" + bytes(2000), b"x" * 5000, random.Random(2).randbytes(20_000)]
)
def test_what_is_no_tar_is_a_row(tmp_path: Path, data: bytes) -> None:
    (recording,) = listed(tmp_path, data).recordings
    assert recording.uri == f"{tmp_path}/x.tar"
    assert outcome(recording).failure is not None


def test_hostile_headers_are_refused_at_once(tmp_path: Path) -> None:
    def header(kind: bytes, size: int) -> bytes:
        info = tarfile.TarInfo("x.wav")
        info.type, info.size = kind, size
        return info.tobuf(tarfile.GNU_FORMAT)

    endless = header(tarfile.XHDTYPE, 10) + b"9 path=a\n".ljust(512, b"\0")
    for data in (
        header(tarfile.GNUTYPE_LONGNAME, 1 << 40) + bytes(1024),
        header(tarfile.XHDTYPE, 1 << 30) + bytes(1024),
        header(tarfile.REGTYPE, 1 << 80) + bytes(1024),
        header(tarfile.GNUTYPE_LONGNAME, -512) + bytes(1024),
        header(tarfile.REGTYPE, -1536) + bytes(1024),
        endless * 3000,
        header(tarfile.XHDTYPE, 60) + b"30 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n".ljust(512, b"\0") + bytes(512),
    ):
        listing = listed(tmp_path, data)
        assert names(listing)[-1] is None or listing.recordings[-1].size


def test_damage_of_any_kind_is_told_and_never_raised(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)  # noqa: T201
    rng = random.Random(seed)
    whole = packed(*((f"{n}.wav", b"a" * 600) for n in range(4)), (DEEP, b"b"), kind=tarfile.PAX_FORMAT)
    whole += packed(("x" * 200 + ".wav", b"c"), kind=tarfile.GNU_FORMAT)
    for _ in range(300):
        data = bytearray(whole[: rng.randrange(1, len(whole))])
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            listing = listed(tmp_path, bytes(data))
        except UserError as error:  # nothing but text files left
            assert "no audio" in str(error)  # noqa: PT017
            continue
        for one in listing.recordings:
            try:
                content(one)
            except OpenError as error:
                assert error.kind in ("damaged", "truncated")  # noqa: PT017


def test_tars_one_behind_the_other_are_told(tmp_path: Path) -> None:
    listing = listed(tmp_path, packed(("a.wav", b"1")) + packed(("b.wav", b"2")))
    assert names(listing) == ["a.wav"]
    assert "goes on behind its end" in listing.notes[0]


# --- stores ---------------------------------------------------------------------------------------------------------

SERVERS: dict[str, Callable[[], AbstractContextManager[str]]] = {"s3": s3_server, "gs": gcs_server, "az": azurite}


@pytest.fixture(scope="module", params=SERVERS)
def bucket(request: pytest.FixtureRequest) -> Iterator[str]:
    with SERVERS[request.param]():
        yield f"{request.param}://audio"


def test_members_are_windows_in_every_store(bucket: str) -> None:
    members = [(f"{n}.wav", random.Random(n).randbytes(1_500_000)) for n in range(3)]
    storage.write_bytes(f"{bucket}/shards/1.tar", packed(*members, ("0.txt", b"zero")))
    storage.write_bytes(f"{bucket}/shards/2.tar", packed(("0.wav", b"other")))
    storage.write_bytes(f"{bucket}/shards/a.mp3", b"plain")
    listing = resolve([f"{bucket}/shards/"])
    assert [one.uri.removeprefix(f"{bucket}/shards/") for one in listing.recordings] == [
        "a.mp3", *(f"1.tar#member={n}.wav" for n in range(3)), "2.tar#member=0.wav"
    ]  # fmt: skip
    assert [content(one) for one in listing.recordings] == [b"plain", *(data for _, data in members), b"other"]
    assert listing.recordings[1].metadata == '{"reference": "zero"}'
    storage.write_bytes(f"{bucket}/shards/1.tar", packed(*members[1:]))
    with pytest.raises(OpenError) as caught:
        content(listing.recordings[1])
    assert (caught.value.kind, caught.value.retryable) == ("changed", True)


def test_a_server_without_ranges_serves_members_too(tmp_path: Path) -> None:
    members = [(f"{n}.wav", bytes([n]) * 1_000_000) for n in range(3)]
    (tmp_path / "x.tar").write_bytes(packed(*members))
    with web_server(tmp_path) as web:
        listing = resolve([f"{web}/x.tar"])
        assert [content(one) for one in listing.recordings] == [data for _, data in members]
        assert listing.recordings[2].uri == f"{web}/x.tar#member=2.wav"
        assert storage.canonical(listing.recordings[2].uri) == listing.recordings[2].uri


def test_a_listing_does_not_read_the_audio() -> None:
    data = packed(*((f"{n}.wav", bytes(2_000_000)) for n in range(20)))
    with faulty_store(data) as store:
        for uri in (f"{store.endpoint}/x.tar", "s3://audio/x.tar"):
            store.ranges.clear()
            assert len(resolve([uri]).recordings) == 20
            starts = {int((asked or "bytes=0").partition("=")[2].partition("-")[0]) for asked in store.ranges}
            assert len(starts) > 20  # a jump to each header
            assert len(store.ranges) < 50


def test_a_broken_connection_in_a_listing_is_resumed() -> None:
    data = packed(*((f"{n}.wav", bytes(2_000_000)) for n in range(5)))
    with faulty_store(data) as store:
        store.faults = ["503", "reset", "truncate"]
        assert len(resolve([f"{store.endpoint}/x.tar"]).recordings) == 5


def test_a_long_tar_takes_little_memory(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(10_000):
            info = tarfile.TarInfo(f"{number:06}.wav")
            info.size = 1
            tar.addfile(info, io.BytesIO(b"1"))
            tar.members.clear()
    listed(tmp_path / "..", packed(("a.wav", b"1")))  # loads what is loaded once
    tracemalloc.start()
    listing = resolve([str(tmp_path / "x.tar")])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(listing.recordings) == 10_000
    assert peak < 20_000_000
    assert listing.recordings.table().nbytes / 10_000 < 400
