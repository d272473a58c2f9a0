"""How tokens are chosen, which candidate stands, and when lines are given up as loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from pipeline.whisper.encoding import kept
from pipeline.whisper.locate import locate
from pipeline.whisper.model import Dims, Whisper
from pipeline.whisper.padding import Thinned, apart
from pipeline.whisper.rules import Rules
from pipeline.whisper.search import Beam, Candidate, Draw, Greedy, Lines, Sampling, Search, _largest, likeliest
from pipeline.whisper.slots import MAX_NEW_TOKENS, Order, Slots
from pipeline.whisper.steps import Steps
from pipeline.whisper.tokens import Tokens

CPU = torch.device("cpu")
EOT = 9
EVERY = 16  # tokens of a line between two looks
DRAW = Draw(1.0, (1, 2))


def drawn(logits: torch.Tensor, temperature: float, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the tokens that `rows` candidates of one window draw from the same logits [V], and what each is worth."""
    search = Sampling(rows, 1, EOT, 4, CPU)
    search.admit(0, [Draw(temperature, tuple(range(rows)))])
    alive = torch.zeros(rows, dtype=torch.bool)
    empty = torch.full((rows, 5), EOT), torch.zeros(rows, 5), torch.zeros(rows, dtype=torch.int64), torch.zeros(rows)
    choice = search.choose(logits.expand(rows, -1).clone(), Lines(*empty, alive), 0)
    return choice.token, choice.step


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_tokens_are_drawn_by_their_odds_at_the_temperature_and_scored_at_one(temperature: float) -> None:
    logits = torch.tensor([1.0, 0.0, -math.inf, 0.5, -1.0, 0.2])
    rows = 4000
    token, step = drawn(logits, temperature, rows)
    share = torch.bincount(token, minlength=len(logits)) / rows
    expected = (logits / temperature).softmax(0)
    assert (share - expected).abs().max() < 4 * math.sqrt(0.25 / rows)  # four standard deviations; the seeds are fixed
    torch.testing.assert_close(step, logits.log_softmax(0)[token])


def test_temperature_zero_after_another_takes_the_likeliest() -> None:
    logits = torch.tensor([0.1, 2.0, 1.9, -math.inf])
    token, step = drawn(logits, 0.0, 3)
    assert token.tolist() == [1, 1, 1]
    torch.testing.assert_close(step, logits.log_softmax(0)[1].expand(3))


def test_likeliest_is_by_the_mean_a_token_or_by_the_penalty_for_length() -> None:
    short, long = Candidate([1], [0.0], -1.0), Candidate([1] * 9, [0.0] * 9, -4.0)
    assert likeliest([short, long], None) is long
    assert likeliest([short, long], 0.0) is short
    # ((5 + 9) / 6) ** 1 = 2.33: -1.71 a unit, beside -1 / ((5 + 1) / 6) = -1.
    assert likeliest([short, long], 1.0) is short


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return Tokens(locate("base").tokenizer)


@pytest.fixture(scope="module")
def model(tokens: Tokens) -> Whisper:
    torch.manual_seed(11)
    network = Whisper(Dims(80, tokens.layout.vocabulary, 64, 2, 1, 1)).eval().requires_grad_(False)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


Hopeless = Callable[[list[int], int], bool]


@torch.inference_mode()
def decoded(
    model: Whisper,
    tokens: Tokens,
    search: Search,
    arrivals: dict[int, int],
    hopeless: Hopeless,
    steps: int,
    *,
    stride: int = 1,
    orders: Callable[[int], Order[int]] | None = None,
) -> dict[int, list[list[int]]]:
    """Return what each window says that begins at so many steps: all its lines, when it ends or at last.

    The host looks every `stride` steps. `orders` says what each window is, by its name.
    """
    orders = orders or (lambda name: order(model, tokens, name))
    slots: Slots[int] = Slots(model, Rules(tokens, CPU), search, len(arrivals), hears=False)
    walk = Steps(model, [slots])
    walk.stride = stride
    ended: dict[int, list[list[int]]] = {}
    for step in range(0, steps, stride):
        if late := [name for name, arrival in arrivals.items() if arrival == step]:
            slots.admit([orders(name) for name in late])
        slots.look()
        walk.take()
        slots.give_up(hopeless, EVERY, walk.stride)
        for slot in slots.ended():
            ended[slots.jobs[slot]] = [line.tokens for line in slots.candidates(slot)]
            slots.release(slot)
    slots.look()
    return ended | {name: [line.tokens for line in slots.candidates(slot)] for slot, name in enumerate(slots.jobs)}


def order(model: Whisper, tokens: Tokens, seed: int, thinned: Thinned | None = None) -> Order[int]:
    """Return a window with made-up cross keys and values."""
    prompt, sot = tokens.prompt("en", "transcribe", [], timestamps=True)
    layers, two, _, heads, positions, size = model.new_audio(1).shape
    shape = (layers, two, heads, thinned.positions if thinned else positions, size)
    return Order(seed, prompt, sot, torch.randn(shape, generator=torch.Generator().manual_seed(seed)), DRAW, thinned)


PADDED = (None, Thinned(404), Thinned(204), None, None, Thinned(204), Thinned(204), Thinned(1492))


@pytest.mark.parametrize("width", [1, 3])
@torch.inference_mode()
def test_thinned_windows_are_decoded_as_if_all_their_positions_were_there(
    model: Whisper, tokens: Tokens, width: int
) -> None:
    eot = tokens.layout.eot
    arrivals = {name: 5 * (name // 3) for name in range(len(PADDED))}  # they end, and move, one after the other

    def spread(name: int) -> Order[int]:
        padded = PADDED[name]
        one = order(model, tokens, name, padded)
        return replace(one, audio=padded.spread(one.audio), thinned=None) if padded else one

    dense, whole = (
        decoded(
            model,
            tokens,
            Beam(width, 1.0, len(PADDED), eot, MAX_NEW_TOKENS, CPU) if width > 1 else Greedy(eot),
            arrivals,
            lambda line, room: len(line) >= 2 * EVERY,
            60,
            orders=orders,
        )
        for orders in (lambda name: order(model, tokens, name, PADDED[name]), spread)
    )
    assert dense == whole
    assert len({tuple(line) for (line, *_) in dense.values()}) == len(PADDED), "the audio is not listened to"


@torch.inference_mode()
def test_a_window_keeps_its_audio_when_its_slot_moves(model: Whisper, tokens: Tokens) -> None:
    orders = [order(model, tokens, name, padded) for name, padded in enumerate(PADDED)]
    slots: Slots[int] = Slots(model, Rules(tokens, CPU), Greedy(tokens.layout.eot), len(orders), hears=False)
    slots.admit(orders)
    for slot in (0, 2, 1):
        slots.release(slot)
    for slot, name in enumerate(slots.jobs):
        padded = PADDED[name]
        again = kept(*slots.audio(slot)).result()
        assert again.thinned == padded
        assert torch.equal(again.kv, orders[name].audio)
        assert torch.equal(again.audio, padded.spread(again.kv) if padded else again.kv)


def test_neighbours_with_all_positions_attend_together_and_thinned_windows_apart() -> None:
    thin, other = Thinned(204), Thinned(404)
    assert apart([]) == []
    assert apart([None] * 3) == [(slice(0, 3), None)]
    assert apart([thin, thin, None, None, other, None]) == [
        (slice(0, 1), thin), (slice(1, 2), thin), (slice(2, 4), None), (slice(4, 5), other), (slice(5, 6), None)
    ]  # fmt: skip


def test_a_line_is_judged_by_its_own_length_whoever_is_beside_it(model: Whisper, tokens: Tokens) -> None:
    asked: list[int] = []

    def hopeless(line: list[int], room: int) -> bool:
        asked.append(len(line))
        assert len(line) + room == MAX_NEW_TOKENS
        return len(line) > EVERY

    together = decoded(model, tokens, Greedy(tokens.layout.eot), {0: 0, 1: 5, 2: 11}, hopeless, 60)
    assert set(asked) == {EVERY, 2 * EVERY}
    for name, (line,) in together.items():
        assert len(line) == 2 * EVERY
        assert decoded(model, tokens, Greedy(tokens.layout.eot), {name: 0}, hopeless, 60) == {name: [line]}


@pytest.mark.parametrize("stride", [3, 5, 8])
def test_a_line_is_judged_as_often_where_the_host_looks_seldom(model: Whisper, tokens: Tokens, stride: int) -> None:
    asked: list[int] = []

    def hopeless(line: list[int], room: int) -> bool:
        asked.append(len(line))
        return False

    decoded(model, tokens, Greedy(tokens.layout.eot), {0: 0}, hopeless, 100, stride=stride)
    assert [length // EVERY for length in asked] == list(range(1, len(asked) + 1))
    assert len(asked) >= 100 // EVERY - 1
    assert all(length % EVERY < stride for length in asked)


def test_a_beam_goes_on_as_if_nothing_were_while_one_of_its_lines_has_hope(model: Whisper, tokens: Tokens) -> None:
    def beam() -> Beam:
        return Beam(3, 1.0, 1, tokens.layout.eot, MAX_NEW_TOKENS, CPU)

    turns = iter(range(10**6))
    steps = 3 * EVERY + 2
    free = decoded(model, tokens, beam(), {0: 0}, lambda line, room: False, steps)
    judged = decoded(model, tokens, beam(), {0: 0}, lambda line, room: next(turns) % 3 != 2, steps)
    assert next(turns) > 3, "nothing was judged"
    assert judged == free
    given_up = decoded(model, tokens, beam(), {0: 0}, lambda line, room: True, steps)
    assert {len(line) for line in given_up[0]} == {EVERY}


def test_samples_of_a_window_end_together(model: Whisper, tokens: Tokens) -> None:
    def sampled(hopeless: Hopeless) -> list[list[int]]:
        search = Sampling(2, 1, tokens.layout.eot, MAX_NEW_TOKENS, CPU)
        return decoded(model, tokens, search, {0: 0}, hopeless, 3 * EVERY)[0]

    free = sampled(lambda line, room: False)
    assert free[0] != free[1]
    assert sampled(lambda line, room: line == free[0][: len(line)]) == free
    assert [len(line) for line in sampled(lambda line, room: True)] == [EVERY, EVERY]


@pytest.mark.parametrize("vocabulary", [5, 64, 300, 51865])
@pytest.mark.parametrize("closed", [0.0, 0.9, 0.999])
def test_the_likeliest_are_those_of_a_sort(vocabulary: int, closed: float) -> None:
    torch.manual_seed(7)
    logits = torch.randn(9, vocabulary)
    logits.masked_fill_(torch.rand(9, vocabulary) < closed, -torch.inf)
    values, tokens = _largest(logits, 5)
    assert torch.equal(values, logits.sort(descending=True).values[:, :5])
    assert torch.equal(logits.gather(1, tokens), values)
    assert all(len(set(row)) == 5 for row in tokens.tolist())
