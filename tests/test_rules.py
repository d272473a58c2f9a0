"""The filters on the logits against the reference implementation's, on random transcripts in the making."""

from __future__ import annotations

import random

import reference
import torch
from whisper.decoding import ApplyTimestampRules, SuppressBlank, SuppressTokens

from pipeline.whisper.locate import locate
from pipeline.whisper.rules import Rules
from pipeline.whisper.tokens import Tokens

REFERENCE = reference.tokenizer()
ROWS, STEPS = 8, 40


def test_filters_equal_the_reference_at_each_step() -> None:
    seed = random.randrange(2**31)
    print("seed", seed)  # noqa: T201 (a failure must be repeatable)
    generator = torch.Generator().manual_seed(seed)
    tokens = Tokens(locate("base").tokenizer)
    rules = Rules(tokens, torch.device("cpu"))
    history = rules.new_history(ROWS)
    prompt = torch.tensor([REFERENCE.sot_sequence] * ROWS)
    filters = [
        SuppressBlank(REFERENCE, prompt.shape[1]),
        SuppressTokens(list(tokens.suppressed((-1,)))),
        ApplyTimestampRules(REFERENCE, prompt.shape[1], 50),
    ]
    for _ in range(STEPS):
        logits = torch.randn(ROWS, tokens.layout.vocabulary, generator=generator) * 3
        # Timestamps are drawn to be likely for half of the rows, so that every branch of the grammar is met.
        logits[::2, tokens.layout.first_timestamp :] += 4
        expected = logits.clone()
        for one in filters:
            one.apply(expected, prompt)
        actual = rules.filter(logits, history)
        assert torch.equal(actual, expected)
        token = torch.multinomial(actual.softmax(1), 1, generator=generator)[:, 0]
        token = token.masked_fill(token == REFERENCE.eot, 1000)  # rows that go on
        history = rules.follow(history, token)
        prompt = torch.cat([prompt, token[:, None]], 1)
