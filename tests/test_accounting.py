"""The law: recordings in = rows out, each exactly once, whatever died on the way."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from failing_proxy import FailingProxy, failing_proxy
from ledger_driver import INTERRUPTED, REFUSED, work
from material import CONFIG, listing, material, shuffled
from s3_server import s3_server
from store_servers import ACCOUNT, azurite, gcs_server
from tables import assert_same_tables, assert_whole, read_runs, read_table

from pipeline import commits
from pipeline.errors import UserError
from pipeline.ledger import Ledger, LedgerOptions
from pipeline.storage import StoreOptions

TESTS = Path(__file__).parent
KILLED = -9
FRESH_OR_REPLACING = [
    pytest.param(False, id="fresh"),
    pytest.param(True, id="replacing", marks=pytest.mark.slow),
]

Drive = Callable[..., int]


@pytest.fixture
def seed() -> int:
    seed = random.randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")  # pytest shows it where a test fails
    return seed


@pytest.fixture
def drive() -> Iterator[Drive]:
    """Return a function that runs a driver process (see `ledger_driver.py`) and returns how it ended."""
    with started() as process:

        def order(out: Path | str, seed: int, *, again: bool = False, **disturbance: Any) -> int:
            line = json.dumps({"out": str(out), "seed": seed, "again": again} | disturbance)
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(line + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield order


def started() -> subprocess.Popen[str]:
    """Start the process that forks drivers; it ends with its stdin."""
    return subprocess.Popen(
        [sys.executable, str(TESTS / "ledger_driver.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def environment() -> dict[str, str]:
    """Return the environment of a script of the tests."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}


def assert_readers_see_whole_commits(out: Path, *, fresh: bool) -> None:
    """Join the tables as a user would, right after a kill, then see that opening the ledger makes them whole."""
    half_moved = (out / "_staging" / "commit.json").exists()
    if list(out.glob("recordings/*.parquet")):
        rows, ids, torn = duckdb.sql(
            f"""
            with s as (select recording_id, count(*) as n from '{out}/segments/*.parquet' group by 1)
            select count(*), count(distinct r.recording_id), count_if(r.segments != coalesce(s.n, 0))
            from '{out}/recordings/*.parquet' r left join s using (recording_id)
            """
        ).fetchall()[0]
        assert rows == ids
        assert torn == 0 or (half_moved and not fresh)  # between two moves of a replacement
    if not half_moved:
        assert {path.name for path in out.glob("recordings/*")} == {path.name for path in out.glob("segments/*")}
    commits.recover(str(out))
    assert_whole(str(out))


def first_run(tmp_path: Path, drive: Drive, seed: int, *, again: bool) -> tuple[Path, Path]:
    """Return an output to disturb (empty, or, for `again`, finished once) and what an undisturbed run makes of it."""
    start, expected = tmp_path / "start", tmp_path / "expected"
    start.mkdir()
    if again:
        assert drive(start, seed) == 0
    shutil.copytree(start, expected)
    assert drive(expected, seed, again=again) == 0
    assert_whole(str(expected))
    return start, expected


@pytest.mark.parametrize("again", FRESH_OR_REPLACING)
def test_killed_before_any_change_of_the_file_system(tmp_path: Path, drive: Drive, seed: int, again: bool) -> None:
    start, expected = first_run(tmp_path, drive, seed, again=again)
    for at in range(1, 1000):
        out = tmp_path / f"out{at}"
        shutil.copytree(start, out)
        ended = drive(out, seed, again=again, at=at, how="kill")
        if ended == 0:  # there is no such step any more
            break
        assert ended == KILLED
        assert_readers_see_whole_commits(out, fresh=not again)
        assert drive(out, seed, again=again) == 0
        assert_whole(str(out))
        assert_same_tables(str(out), str(expected))
        shutil.rmtree(out)
    assert at > 50


@pytest.mark.slow  # as many runs as the one above, which kills harder
@pytest.mark.parametrize("again", FRESH_OR_REPLACING)
def test_interrupted_before_any_change_of_the_file_system(tmp_path: Path, drive: Drive, seed: int, again: bool) -> None:
    start, expected = first_run(tmp_path, drive, seed, again=again)
    for at in range(1, 1000):
        out = tmp_path / f"out{at}"
        shutil.copytree(start, out)
        ended = drive(out, seed, again=again, at=at, how="interrupt")
        if ended == 0:
            break
        assert ended == INTERRUPTED
        assert_readers_see_whole_commits(out, fresh=not again)
        assert drive(out, seed, again=again) == 0
        assert_same_tables(str(out), str(expected))
        shutil.rmtree(out)
    assert at > 50


@pytest.mark.parametrize("again", FRESH_OR_REPLACING)
def test_disk_that_is_full_from_any_change_on(tmp_path: Path, drive: Drive, seed: int, again: bool) -> None:
    rng = random.Random(seed)
    start, expected = first_run(tmp_path, drive, seed, again=again)
    full = at = 0
    while True:
        at += rng.randint(1, 4)
        out = tmp_path / f"out{at}"
        shutil.copytree(start, out)
        ended = drive(out, seed, again=again, at=at, how="full")
        if ended == 0:  # nothing is written behind it
            break
        assert ended == REFUSED
        full += 1
        assert_readers_see_whole_commits(out, fresh=not again)
        assert drive(out, seed, again=again) == 0
        assert_whole(str(out))
        assert_same_tables(str(out), str(expected))
        shutil.rmtree(out)
    assert full > 10


PRIVATE = ("unshare", "--map-root-user", "--mount")  # mounts of its own, for any user where the kernel lets them


def test_real_disk_that_is_full(tmp_path: Path, seed: int) -> None:
    if not shutil.which("unshare") or subprocess.run([*PRIVATE, "true"], check=False).returncode:
        pytest.skip("mounts of one's own are not to be had here; the disk that is full is a made-up one, above")
    disk, copies, expected = tmp_path / "disk", tmp_path / "copies", tmp_path / "expected"
    disk.mkdir()
    copies.mkdir()
    sizes = ["4", "12", "24", "48", "96", *(str(random.Random(seed).randrange(4, 200, 4)) for _ in range(5))]
    script = [sys.executable, str(TESTS / "full_disk.py"), str(disk), str(seed), str(copies), *dict.fromkeys(sizes)]
    done = subprocess.run([*PRIVATE, *script], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    work(str(expected), seed, again=False)
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum("No space left on device; free some space" in one["said"] for one in said) > 2
    for one in said:
        assert "No space left" in one["said"] or one["said"] == ""
        assert_whole(str(copies / str(one["size"])))
        assert_same_tables(str(copies / str(one["size"])), str(expected))


def refusal(out: str, seed: int) -> str | None:
    """Do the job; return what stopped it."""
    try:
        work(out, seed, again=False)
    except UserError as error:
        return str(error)
    return None


@contextmanager
def behind_a_proxy(store: str) -> Iterator[FailingProxy]:
    """Run the server of a kind of store, and a proxy before it that all clients go through."""
    server, variable, account = {
        "s3": (s3_server, "AWS_ENDPOINT_URL", ""),
        "gs": (gcs_server, "STORAGE_EMULATOR_HOST", ""),
        "az": (azurite, "AZURE_STORAGE_SERVICE_ENDPOINT", f"/{ACCOUNT}"),
    }[store]
    with server() as endpoint, failing_proxy(endpoint) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable, proxy.endpoint + account)
        patch.delenv("AWS_MAX_ATTEMPTS", raising=False)  # it is stronger than our own
        yield proxy


@pytest.mark.parametrize(
    ("store", "how"),
    [
        pytest.param(store, how, marks=[] if (store, how) == ("s3", "lost for good") else [pytest.mark.slow])
        for store in ("s3", "gs", "az")
        for how in ("refused", "lost", "lost for good")
    ],
)
def test_store_that_fails_in_the_middle_of_a_commit(
    tmp_path: Path, seed: int, store: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr("pipeline.stores.trying._FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("pipeline.stores.options._current", [StoreOptions(store_attempts=2 if how == "lost" else 1)])
    work(str(tmp_path), seed, again=False)
    with behind_a_proxy(store) as proxy:
        work(f"{store}://audio/undisturbed", seed, again=False)
        writes = proxy.writes
        assert writes > 20
        for at in rng.sample(range(1, writes + 1), 3):
            out = f"{store}://audio/out{at}"
            proxy.fail(at, how)
            refused = refusal(out, seed)
            if how == "lost":
                assert refused is None  # what passes is not noticed
            elif proxy.writes >= at:  # a slow machine may have touched the lease more often before
                assert re.match("cannot (write|delete)", refused or "")
            proxy.heal()
            commits.recover(out)
            assert_whole(out)
            work(out, seed, again=False)
            assert_whole(out)
            assert_same_tables(out, str(tmp_path))


def test_killed_at_random_again_and_again(tmp_path: Path, drive: Drive, seed: int) -> None:
    rng = random.Random(seed)
    start, expected = first_run(tmp_path, drive, seed, again=True)
    kills = 0
    for number in range(10):
        out = tmp_path / f"out{number}"
        shutil.copytree(start, out)
        longest_s = 0.1
        while (ended := drive(out, seed, again=True, kill_after_s=rng.uniform(0.0, longest_s))) != 0:
            assert ended == KILLED
            kills += 1
            longest_s *= 1.1  # on a busy machine a driver may do nothing in a tenth of a second
            assert_readers_see_whole_commits(out, fresh=False)
        assert_whole(str(out))
        assert_same_tables(str(out), str(expected))
    assert kills > 10


@pytest.mark.parametrize(
    "store", ["s3", pytest.param("gs", marks=pytest.mark.slow), pytest.param("az", marks=pytest.mark.slow)]
)
def test_killed_at_random_on_an_object_store(tmp_path: Path, seed: int, store: str) -> None:
    rng = random.Random(seed)
    with {"s3": s3_server, "gs": gcs_server, "az": azurite}[store](), started() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        out = f"{store}://audio/out"
        ends = []
        for again in (False, True):
            # The first kill comes before anything can have ended, on however fast a machine.
            for kill in [0.01, *(rng.uniform(0.02, 1.5) for _ in range(4)), None]:
                order: dict[str, Any] = {"out": out, "seed": seed, "again": again}
                process.stdin.write(json.dumps(order | ({"kill_after_s": kill} if kill else {})) + "\n")
                process.stdin.flush()
                ends.append(int(process.stdout.readline()))
            assert ends[-1] == 0
            expected = str(tmp_path / "expected")
            work(expected, seed, again)
            assert_whole(out)
            assert_same_tables(out, expected)
        assert KILLED in ends


@pytest.mark.parametrize("number", range(10))
def test_each_recording_has_one_row_in_any_order_with_replays(tmp_path: Path, seed: int, number: int) -> None:
    rng = random.Random(seed)
    names = listing(rng.randint(1, 40))
    options = LedgerOptions(
        flush_recordings=rng.randint(1, 20), flush_segments=rng.randint(1, 100), flush_s=rng.choice([0.0, 30.0])
    )
    out = str(tmp_path)
    told = []
    with Ledger.open(out, CONFIG, model="base", options=options) as ledger:
        missing = ledger.todo(names + rng.sample(names, len(names) // 2))
        assert missing == names
        while missing:
            for items in shuffled(missing, seed, rng, healed=False, lost=0.2):
                told += [finished.outcome.recording.id for finished in ledger.receive(items)]
            missing = ledger.missing()
        assert ledger.receive([item for name in names for item in material(name, seed)]) == []
    assert ledger.done == len(names)
    assert sorted(told) == [name.id for name in names]
    assert sorted(row["recording_id"] for row in read_table(out, "recordings")) == [name.id for name in names]
    assert_whole(out)
    (run,) = read_runs(out)
    assert sum(run["counts"][status] for status in ("ok", "partial", "failed")) == len(names)


def test_an_undisturbed_run_depends_on_nothing_but_its_material(tmp_path: Path, seed: int) -> None:
    for name in ("a", "b"):
        work(str(tmp_path / name), seed, again=False)
    assert_same_tables(str(tmp_path / "a"), str(tmp_path / "b"))
    assert len(list((tmp_path / "a" / "recordings").iterdir())) > 1


def test_the_comparison_of_tables_finds_a_difference(tmp_path: Path, seed: int) -> None:
    work(str(tmp_path / "a"), seed, again=False)
    work(str(tmp_path / "b"), seed + 1, again=False)
    with pytest.raises(AssertionError, match=r"is .* and|keys differ"):
        assert_same_tables(str(tmp_path / "a"), str(tmp_path / "b"))
