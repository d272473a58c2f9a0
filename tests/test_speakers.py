"""Who is who, whose is what: on voices that are made up, so that what must come out is known."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from material import listing, shuffled
from outputs import segment
from tables import read_table

from pipeline import hops, links, rows, score, speakers
from pipeline.books import transcripts_book
from pipeline.ledger import Ledger
from pipeline.speakers import SpeakerOptions, Turns
from pipeline.types import SAMPLE_RATE, Outcome, Recording, Span, Speaker, Transcript, Voice, Word

ON = SpeakerOptions(speakers=True)
AXES = np.eye(8)
ANNA, BEN, CLEO = AXES[0], AXES[1], AXES[2]


def seconds(start_s: float, end_s: float) -> Span:
    return Span(round(start_s * SAMPLE_RATE), round(end_s * SAMPLE_RATE))


def voice(
    window: int, start_s: float, end_s: float, who: np.ndarray, *, noise: float = 0.0, alone_s: float = 3
) -> Voice:
    """Return a voice that sounds like somebody, not always quite."""
    vector = who + noise * np.random.default_rng(window).normal(size=len(who))
    vector /= np.linalg.norm(vector)
    return Voice(window, (seconds(start_s, end_s),), round(alone_s * SAMPLE_RATE), tuple(vector.tolist()))


def passage(index: int, *voices: Voice) -> Transcript:
    """Return a passage of 30 s with these voices, whose times count from its start."""
    at = index * 30 * SAMPLE_RATE
    moved = (replace(v, spans=tuple(Span(at + s.start, at + s.end) for s in v.spans)) for v in voices)
    return Transcript("a", index, Span(at, at + 30 * SAMPLE_RATE), (), (), "en", 1.0, voices=tuple(moved))


def turns(found: tuple[Speaker, ...]) -> dict[str, list[tuple[float, float]]]:
    return {one.label: [(s.start / SAMPLE_RATE, s.end / SAMPLE_RATE) for s in one.spans] for one in found}


def test_voices_that_sound_alike_are_one_speaker_across_passages() -> None:
    first = passage(0, voice(0, 2, 7, BEN, noise=0.1), voice(1, 8, 12, ANNA, noise=0.1))
    second = passage(1, voice(0, 1, 5, ANNA, noise=0.1), voice(1, 6, 9, BEN, noise=0.1))
    found = speakers.tell([first, second], ON)
    assert turns(found) == {"Speaker 1": [(2, 7), (36, 39)], "Speaker 2": [(8, 12), (31, 35)]}
    assert np.dot(found[0].vector, BEN) > 0.95
    assert np.dot(found[1].vector, ANNA) > 0.95


def test_a_turn_goes_on_from_window_to_window_and_over_a_breath() -> None:
    found = speakers.tell([passage(0, voice(0, 0, 7.5, ANNA), voice(1, 7.5, 10, ANNA), voice(2, 10.1, 12, ANNA))], ON)
    assert turns(found) == {"Speaker 1": [(0, 12)]}


def test_voices_of_one_window_are_different_people_however_alike() -> None:
    found = speakers.tell([passage(0, voice(0, 0, 5, ANNA), voice(0, 4, 9, ANNA + 0.05 * BEN))], ON)
    assert turns(found) == {"Speaker 1": [(0, 5)], "Speaker 2": [(4, 9)]}


def test_a_voice_that_says_little_founds_no_speaker() -> None:
    between = (ANNA + 0.4 * CLEO) / np.linalg.norm(ANNA + 0.4 * CLEO)
    odd = voice(2, 12, 12.4, between * [1, 1, 3, 1, 1, 1, 1, 1], alone_s=0.4)
    found = speakers.tell([passage(0, voice(0, 0, 5, ANNA), voice(1, 6, 11, BEN), odd)], ON)
    assert turns(found) == {"Speaker 1": [(0, 5), (12, 12.4)], "Speaker 2": [(6, 11)]}


def test_where_all_say_little_there_are_speakers_all_the_same() -> None:
    found = speakers.tell([passage(0, voice(0, 0, 0.4, ANNA, alone_s=0.4), voice(1, 1, 1.3, ANNA, alone_s=0))], ON)
    assert turns(found) == {"Speaker 1": [(0, 0.4), (1, 1.3)]}


def test_no_voices_no_speakers() -> None:
    assert speakers.tell([passage(0), passage(1)], ON) == ()
    assert speakers.tell([], ON) == ()


def test_max_speakers_joins_the_most_alike() -> None:
    near = ANNA + 0.8 * BEN
    heard = [passage(0, voice(0, 0, 5, ANNA), voice(1, 6, 11, CLEO), voice(2, 12, 17, near / np.linalg.norm(near)))]
    assert len(speakers.tell(heard, SpeakerOptions(True, speaker_threshold=0.1))) == 3
    found = speakers.tell(heard, SpeakerOptions(True, speaker_threshold=0.1, max_speakers=2))
    assert turns(found) == {"Speaker 1": [(0, 5), (12, 17)], "Speaker 2": [(6, 11)]}


def test_threshold_decides_how_many_there_are() -> None:
    near = (ANNA + BEN) / np.sqrt(2)  # a distance of 0.29 from Anna
    heard = [passage(0, voice(0, 0, 5, ANNA), voice(1, 6, 11, near))]
    assert [len(speakers.tell(heard, SpeakerOptions(True, t))) for t in (0.28, 0.3)] == [2, 1]


def test_more_voices_than_found_speakers_are_given_to_those_found(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = [passage(0, *(voice(i, i, i + 0.7, (ANNA, BEN)[i % 2], noise=0.05, alone_s=1 + i) for i in range(20)))]
    expected = turns(speakers.tell(heard, ON))
    assert len(expected) == 2
    monkeypatch.setattr(speakers, "MOST", 6)
    assert turns(speakers.tell(heard, ON)) == expected


def two() -> Turns:
    return Turns([Speaker("A", (seconds(0, 10), seconds(20, 30)), ()), Speaker("B", (seconds(8, 21),), ())])


def test_a_segment_without_words_is_whose_time_it_mostly_is() -> None:
    told = speakers.attributed(segment(7, 20, "..."), two())
    assert told.speaker == "B"
    assert told.overlap == pytest.approx(2 / 13)


def test_words_have_their_speakers_and_the_segment_that_of_most() -> None:
    spoken = [(1, 3, "I"), (5, 7, " see"), (7.9, 9.5, " you"), (12, 15, " too")]
    words = tuple(Word(round(start * SAMPLE_RATE), round(end * SAMPLE_RATE), text, 1.0) for start, end, text in spoken)
    told = speakers.attributed(replace(segment(1, 15, "I see you too"), words=words), two())
    assert [word.speaker for word in told.words] == ["A", "A", "A", "B"]
    assert told.speaker == "A"  # though B speaks longer in it


def test_a_word_beside_a_turn_belongs_to_it_and_one_far_from_all_to_nobody() -> None:
    assert two().of(seconds(30.2, 30.4)) == "A"
    assert two().of(seconds(31, 32)) is None
    assert two().of(seconds(15, 15)) == "B"
    assert Turns([]).of(seconds(0, 1)) is None


def test_overlap_is_where_more_than_one_speaks() -> None:
    three = Turns(
        [Speaker(name, (seconds(*span),), ()) for name, span in {"A": (0, 10), "B": (5, 10), "C": (9, 12)}.items()]
    )
    assert three.overlap(seconds(0, 20)) == pytest.approx(5 / 20)
    assert three.overlap(seconds(0, 5)) == 0
    assert three.overlap(seconds(6, 8)) == 1
    assert three.overlap(seconds(6, 6)) == 0


def test_turns_of_a_long_recording_are_found_as_among_few() -> None:
    draw = random.Random(1)
    spans = [seconds(at, at + draw.choice([0.5, 5, 30])) for at in range(0, 3000, 7)]
    people = [Speaker(f"{n}", tuple(spans[n::5]), ()) for n in range(5)]
    quick = Turns(people)
    for _ in range(200):
        start = draw.uniform(0, 3000)
        asked = seconds(start, start + draw.uniform(0.1, 40))
        shares = {one.label: sum(span.overlap(asked) for span in one.spans) for one in people}
        if max(shares.values()):
            assert shares[quick.of(asked) or ""] == max(shares.values())


def test_without_speakers_asked_for_nothing_is_told() -> None:
    heard = passage(0, voice(0, 0, 5, ANNA))
    text = replace(heard, segments=(segment(0, 5, "Hello."),))
    outcome = Outcome(Recording("a", "/a.mp3"), 1, 30 * SAMPLE_RATE, 0)
    plain = score.finish([text], outcome)
    assert (plain.speakers, plain.segments[0][1].speaker, plain.segments[0][1].overlap) == ((), None, None)
    told = score.finish([text], outcome, ON)
    assert (told.segments[0][1].speaker, told.segments[0][1].overlap) == ("Speaker 1", 0.0)
    (row,) = rows.speaker_rows([told]).to_pylist()
    assert (row["speaker"], row["speech_s"], row["turns"]) == ("Speaker 1", 5.0, [{"start": 0.0, "end": 5.0}])


def test_times_of_a_stretch_are_those_of_its_file() -> None:
    outcome = Outcome(Recording("a", "/a.mp3", start=100 * SAMPLE_RATE), 1, 30 * SAMPLE_RATE, 0)
    told = score.finish([passage(0, voice(0, 1, 5, ANNA))], outcome, ON)
    assert rows.speaker_rows([told]).to_pylist()[0]["turns"] == [{"start": 101.0, "end": 105.0}]


def test_voices_travel_between_stages() -> None:
    sent = passage(3, voice(0, 0, 5, ANNA), voice(1, 2, 3, BEN))
    (back,) = hops.read_transcripts(hops.transcripts_table([sent]))
    assert isinstance(back, Transcript)
    assert back == sent


def test_material_in_any_order_gives_the_same_speakers(tmp_path: object) -> None:
    recordings, tables = listing(30), []
    for number in (1, 2):
        out, rng = f"{tmp_path}/{number}", random.Random(number)
        with Ledger.open(out, {}, model="m", book=transcripts_book(ON)) as ledger:
            ledger.todo(recordings)
            for block in shuffled(recordings, 1, rng, healed=False, lost=0.0):
                ledger.receive(block)
        links.link(out, 0.5)
        tables.append(
            [_read(out, "speakers", "recording_id", "speaker"), _read(out, "people", "recording_id", "speaker")]
        )
    assert tables[0] == tables[1]
    assert len(tables[0][0]) > 20
    assert {row["person"] for row in tables[0][1]} == {"Person 1", "Person 2", "Person 3"}  # of `material`


def _read(out: str, table: str, *keys: str) -> list[dict[str, object]]:
    found = [{name: value for name, value in row.items() if name != "file"} for row in read_table(out, table)]
    return sorted(found, key=lambda row: [str(row[key]) for key in keys])


def test_people_are_those_of_average_linkage_over_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(3)
    centres = draw.normal(size=(12, 16))
    vectors = centres[draw.integers(0, 12, 150)] + 0.55 * draw.normal(size=(150, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    monkeypatch.setattr(links, "BLOCK", 17)
    ours, whole = links.people(vectors, 0.4), speakers.clusters(vectors, 0.4)
    assert 5 < len(set(whole.tolist())) < 100
    assert (
        len(set(zip(ours.tolist(), whole.tolist(), strict=True))) == len(set(whole.tolist())) == len(set(ours.tolist()))
    )


def test_a_group_that_is_too_large_is_split_by_a_stricter_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(3)
    vectors = np.repeat([ANNA, BEN, ANNA + 0.7 * BEN], 10, axis=0) + 0.01 * draw.normal(size=(30, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    monkeypatch.setattr(links, "LIMIT", 12)
    assert len(set(links.people(vectors, 0.5).tolist())) == 3


def test_linking_nobody_writes_an_empty_table(tmp_path: object) -> None:
    assert links.link(str(tmp_path), 0.5) == 0
    assert _read(str(tmp_path), "people") == []
