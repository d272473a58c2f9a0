"""Near-duplicates: what belongs together, and what does not."""

from __future__ import annotations

import random

from pipeline.dedup import TextGroups, normalised, shingles

LINE = "Thank you for calling Super Awesome Company, please hold the line."


def groups(*texts: str) -> list[int]:
    found = TextGroups(0.8)
    numbers = [found.add(text) for text in texts]
    return found.groups()[numbers].tolist()


def test_texts_that_differ_in_case_and_punctuation_are_one() -> None:
    assert groups(LINE, LINE.upper().replace(",", " -"), "Something else is said.") == [0, 0, 1]


def test_a_letter_more_makes_no_other_text() -> None:
    assert groups(LINE, LINE + "s") == [0, 0]


def test_half_a_text_is_another_text() -> None:
    assert groups(LINE, LINE[: len(LINE) // 2]) == [0, 1]


def test_short_texts_are_equal_or_not() -> None:
    assert groups("Yes.", "yes", "No.", "") == [0, 0, 1, 2]


def test_scripts_without_spaces_work() -> None:
    assert groups(
        "ただいま電話に出ることができません。", "ただいま電話に出ることができません", "少々お待ちください。"
    ) == [0, 0, 1]


def test_groups_do_not_depend_on_the_process() -> None:
    assert groups(*map(str, range(1000, 1050))) == groups(*map(str, range(1000, 1050)))


def test_pairs_above_the_similarity_are_found() -> None:
    """Against the exact shares: of 300 pairs that share about nine tenths, nearly all; of those under half, none."""
    rng = random.Random(1)
    missed = wrong = 0
    for _ in range(300):
        words = ["".join(rng.choices("abcdefghij", k=6)) for _ in range(30)]
        near, far = list(words), list(words)
        near[rng.randrange(30)] = "changed"
        for at in rng.sample(range(30), 15):
            far[at] = "".join(rng.choices("klmnopq", k=6))
        a, b, c = (set(shingles(normalised(" ".join(text)))) for text in (words, near, far))
        assert len(a & b) / len(a | b) > 0.85
        assert len(a & c) / len(a | c) < 0.5
        found = groups(" ".join(words), " ".join(near), " ".join(far))
        missed += found[0] != found[1]
        wrong += found[2] == found[0]
    assert missed <= 15
    assert wrong == 0
