"""What is taken out of texts, and what stays."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.redaction import RedactionOptions, redacted

OPTIONS = RedactionOptions(redact=True)


def rows(*texts: str, language: str = "en", gap_s: float = 0.0) -> list[dict[str, Any]]:
    return [
        {"start": n * (1 + gap_s), "end": n * (1 + gap_s) + 1, "text": text, "language": language}
        for n, text in enumerate(texts)
    ]


def clean(*texts: str, language: str = "en", gap_s: float = 0.0, regions: tuple[str, ...] = ()) -> list[str]:
    options = RedactionOptions(redact=True, phone_regions=regions)
    return [row["text"] for row in redacted(rows(*texts, language=language, gap_s=gap_s), options)[0]]


@pytest.mark.parametrize(
    ("text", "language", "wanted"),
    [
        ("Write to jo.doe+news@mail.example.co.uk.", "en", "Write to [email]."),
        ("(jörg@müller.de), oder anna@example.org!", "de", "([email]), oder [email]!"),
        ("Call 212-736-5000 or (212) 736-5000 now.", "en", "Call [phone] or [phone] now."),
        ("Dial 1-800-736-5000, please.", "en", "Dial [phone], please."),
        ("Ring +44 20 7946 0958 in London.", "de", "Ring [phone] in London."),
        ("Meine Nummer ist 030 1234567.", "de", "Meine Nummer ist [phone]."),
        ("Rufen Sie 0171 234 56 78 an.", "de", "Rufen Sie [phone] an."),
        ("Appelez le 06 12 34 56 78.", "fr", "Appelez le [phone]."),
        ("Llame al 912 345 678.", "es", "Llame al [phone]."),
        ("Позвоните 8 (495) 123-45-67.", "ru", "Позвоните [phone]."),
        ("電話は03-1234-5678です。", "ja", "電話は[phone]です。"),
        ("+91 98765 43210 is mine", "hi", "[phone] is mine"),
        ("The card is 4111 1111 1111 1111, expiring in May.", "en", "The card is [card], expiring in May."),
        ("4111, 1111, 1111, 1111", "en", "[card]"),
        ("Amex 3782 822463 10005 and 5555555555554444.", "en", "Amex [card] and [card]."),
        ("It is 4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1.", "en", "It is [card]."),
    ],
)
def test_found(text: str, language: str, wanted: str) -> None:
    assert clean(text, language=language) == [wanted]


@pytest.mark.parametrize(
    "language", ["en", "de", "fr", "es", "it", "ru", "ja", "zh", "no", "hi", "pt", "nl", "pl", "sv"]
)
@pytest.mark.parametrize(
    "text",
    [
        "It was in 1999, 2000 and 2001.",
        "From 1914 1918 to 1939 1945.",
        "At 10:30 on 12/05/2024, in room 2024.",
        "On 24 12 2023 and 2023-12-24 18:30:00.",
        "It costs 1,234,567 dollars or 12 345 678 euros.",
        "It weighs 3.1415926535 kilos, 1.234.567,89 of them.",
        "Between 1800 and 1900 there were 2 000 000 people.",
        "ISBN 978-3-16-148410-0, chapter 12, pages 100-250.",
        "Dial 911, 112 or 110. Press 1, 2, 3, 4, 5, 6, 7, 8, 9.",
        "1 2 3 4 5 6 7 8 9 10 11 12",
        "Version 10.0.19045.3803 at 192.168.100.200",
        "4111 1111 1111 1112 fails its check digit, 4,111,111,111,111,111 is a sum.",
        "Look @ me, @someone, a@b and one@two@three.",
    ],
)
def test_ordinary_numbers_stay(text: str, language: str) -> None:
    assert clean(text, language=language) == [text]


def test_number_that_goes_on_in_the_next_segment_is_found() -> None:
    assert clean("My number is 212", "736 5000, bye.") == ["My number is [phone]", ", bye."]
    assert clean("It is 4111 1111", "1111", "1111 I think") == ["It is [card]", "", " I think"]


def test_numbers_a_pause_apart_are_two() -> None:
    texts = ("My number is 212", "736 5000, bye.")
    assert clean(*texts, gap_s=5.0) == list(texts)


def test_other_regions_are_asked_where_they_are_named() -> None:
    text = "Call 020 7946 0958."
    assert clean(text) == [text]
    assert clean(text, regions=("US", "GB")) == ["Call [phone]."]


def test_language_without_a_country_finds_international_numbers() -> None:
    assert clean("+49 30 1234567 aŭ 030 1234567", language="eo") == ["[phone] aŭ 030 1234567"]


def test_counts_by_kind_and_nothing_else_changes() -> None:
    before = rows("a@example.org, b@example.org, +1 212 736 5000", "Nothing here.")
    after, counts = redacted(before, OPTIONS)
    assert counts == {"email": 2, "phone": 1}
    assert after[1] == before[1]
    assert after[0] == before[0] | {"text": "[email], [email], [phone]"}
