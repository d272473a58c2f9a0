"""Text <-> tokens, and where the special tokens lie. Knows no audio and no model.

The layout is that of the reference implementation's tokenizer: text tokens, then end of text, start of transcript,
the languages, the tasks, the markers, and at last 1501 timestamps, 0.02 s apart.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tokenizers import Tokenizer as BytePairTokenizer

from pipeline.errors import UserError

MULTILINGUAL_VOCABULARY = 51_865  # and larger: with 99 languages, one more for each further token
TIMESTAMPS = 1501  # 0.00 s ... 30.00 s
TASKS = ("translate", "transcribe")
# Of the decoder's 448 positions, behind 223 of context and five of a start, with one left for text.
PREFIX_ROOM = 448 - 223 - 5 - 1


@dataclass(frozen=True)
class Layout:
    """Ids of the special tokens, from the size of the vocabulary alone."""

    vocabulary: int

    @property
    def multilingual(self) -> bool:
        return self.vocabulary >= MULTILINGUAL_VOCABULARY

    @property
    def languages(self) -> int:
        return 99 + max(0, self.vocabulary - MULTILINGUAL_VOCABULARY)

    @property
    def eot(self) -> int:
        return 50_257 if self.multilingual else 50_256

    @property
    def sot(self) -> int:
        return self.eot + 1

    @property
    def first_language(self) -> int:
        return self.eot + 2

    @property
    def translate(self) -> int:
        return self.first_language + self.languages

    @property
    def transcribe(self) -> int:
        return self.translate + 1

    @property
    def sot_lm(self) -> int:
        return self.translate + 2

    @property
    def sot_prev(self) -> int:
        return self.translate + 3

    @property
    def no_speech(self) -> int:
        return self.translate + 4

    @property
    def no_timestamps(self) -> int:
        return self.translate + 5

    @property
    def first_timestamp(self) -> int:
        return self.translate + 6


class Tokens:
    """A checkpoint's tokenizer: text, prompts and the lists that the rules need."""

    def __init__(self, path: Path) -> None:
        """Read a tokenizer.json; UserError when it is not of a Whisper model."""
        try:
            self._bpe = BytePairTokenizer.from_file(str(path))
        except Exception as error:  # the tokenizers library raises nothing narrower
            raise UserError(f"{path} cannot be read: {error}", "download the model again") from error
        last = self._bpe.token_to_id("<|notimestamps|>")
        if last is None:
            raise UserError(f"{path} is not of a Whisper model: it has no timestamps", "choose another model")
        self.layout = Layout(last + 1 + TIMESTAMPS)

    def encode(self, text: str) -> list[int]:
        """Return the text's tokens, special ones never."""
        ids: list[int] = self._bpe.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, tokens: list[int]) -> str:
        """Return the text of `tokens`; timestamps and other special tokens are left out, broken UTF-8 is replaced."""
        text: str = self._bpe.decode([t for t in tokens if t < self.layout.eot], skip_special_tokens=False)
        return text

    @cached_property
    def language_codes(self) -> tuple[str, ...]:
        """Codes of the languages that the model knows, in the order of their tokens."""
        if not self.layout.multilingual:
            return ("en",)
        first = self.layout.first_language
        return tuple(str(self._bpe.id_to_token(first + i)).strip("<|>") for i in range(self.layout.languages))

    def language_token(self, code: str) -> int:
        """Return the token of a language; UserError for one that the model does not know."""
        if code not in self.language_codes:
            raise UserError(f"the model knows no language {code!r}", "it knows " + " ".join(self.language_codes))
        return self.layout.first_language + self.language_codes.index(code)

    def prompt(self, language: str, task: str, context: Sequence[int], *, timestamps: bool) -> tuple[list[int], int]:
        """Return the prompt of a window and the index of its start-of-transcript token."""
        layout = self.layout
        before = [layout.sot_prev, *context] if context else []
        start = [layout.sot]
        if layout.multilingual:
            start += [self.language_token(language), layout.transcribe if task == "transcribe" else layout.translate]
        return before + start + ([] if timestamps else [layout.no_timestamps]), len(before)

    def prefix(self, text: str) -> list[int]:
        """Return the tokens that a window begins with; UserError for more than there is room for."""
        tokens = self.encode(" " + text.strip()) if text else []
        if len(tokens) > PREFIX_ROOM:
            raise UserError(f"--prefix has {len(tokens)} tokens", f"a window has room for {PREFIX_ROOM}")
        return tokens

    def suppressed(self, asked: Iterable[int]) -> tuple[int, ...]:
        """Return the tokens that never come: those `asked` for (-1 stands for `symbols`), and the tasks' markers.

        UserError for one that the model does not have.
        """
        asked, layout = tuple(asked), self.layout
        if unknown := [token for token in asked if not -1 <= token < layout.vocabulary]:
            hint = f"tokens go from 0 to {layout.vocabulary - 1}, and -1 stands for the symbols"
            raise UserError(f"--suppress-tokens {unknown[0]} is no token of the model", hint)
        ids = {layout.translate, layout.transcribe, layout.sot, layout.sot_prev, layout.sot_lm, layout.no_speech}
        for token in asked:
            ids |= self.symbols if token == -1 else {token}
        return tuple(sorted(ids))

    @cached_property
    def symbols(self) -> set[int]:
        """Tokens of symbols that stand in annotations and music, not in speech."""
        ids = {self.encode(" -")[0], self.encode(" '")[0]}  # a hyphen or a quote may join words, never start one
        brackets = set(string.punctuation) - set("!$%&',-.?") | set("「」『』")
        groups = set("<< >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪".split())  # noqa: SIM905 (one line reads best)
        notes = set("♩♪♫♬♭♮♯")  # each of several tokens, the first of which they share
        for symbol in brackets | groups | notes:
            for tokens in (self.encode(symbol), self.encode(" " + symbol)):
                if len(tokens) == 1 or symbol in notes:
                    ids.add(tokens[0])
        return ids

    @cached_property
    def blank(self) -> tuple[int, ...]:
        """Tokens that may not come first: a lone space, and the end."""
        return (*self.encode(" "), self.layout.eot)
