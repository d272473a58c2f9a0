"""A step of decoding as a GPU takes it: fixed shapes, and no question to the device, so that it can be recorded.

Tensors without contents stand for the device's: they know where they are, and raise where a step mixes devices or asks
for a value. What the rounded shapes compute is held on the CPU, with the real model.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from speech_examples import LANGUAGES, answers, clip, passage, said, with_options

from pipeline.whisper import encoding, evidence, slots
from pipeline.whisper import engine as engines
from pipeline.whisper.device import Arriving
from pipeline.whisper.engine import WhisperEngine
from pipeline.whisper.locate import locate
from pipeline.whisper.model import Dims, Whisper
from pipeline.whisper.options import WhisperOptions
from pipeline.whisper.rules import Rules
from pipeline.whisper.search import Beam, Draw, Greedy, Lines, Sampling, Search
from pipeline.whisper.slots import MAX_NEW_TOKENS, Slots
from pipeline.whisper.steps import REACHES, Shape, Steps
from pipeline.whisper.tokens import Tokens

ELSEWHERE = torch.device("meta")  # tensors without contents
CAPACITY = 4


class Unrecorded(Steps):
    """Steps of the shapes and in the order of a GPU's, each taken as it is."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.graphs, self.stride = True, 4
        self.shapes: list[Shape] = []
        steps.append(self)

    def _replay(self, shape: Shape) -> None:
        self.shapes.append(shape)
        self.step(shape)


steps: list[Unrecorded] = []


class Late(Arriving):
    """Numbers that are not there at first, as they were when they were asked for: as a GPU's come."""

    def __init__(self, data: torch.Tensor) -> None:
        super().__init__(data.clone())
        self._asked = 0

    @property
    def there(self) -> bool:
        self._asked += 1
        return self._asked > 2


def searches(eot: int) -> dict[str, Search]:
    return {
        "greedy": Greedy(eot),
        "sampling": Sampling(5, CAPACITY, eot, MAX_NEW_TOKENS, ELSEWHERE),
        "beam": Beam(5, 1.0, CAPACITY, eot, MAX_NEW_TOKENS, ELSEWHERE),
    }


@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize("name", ["greedy", "beam"])
def test_a_step_asks_the_device_nothing(name: str, timestamps: bool) -> None:
    tokens = Tokens(locate("base").tokenizer)
    with ELSEWHERE, torch.inference_mode():
        model = Whisper(Dims(80, 51_865, 64, 2, 2, 2))
        kinds = searches(tokens.layout.eot)
    rules = Rules(tokens, ELSEWHERE, timestamps=timestamps)
    with torch.inference_mode():
        taken = Steps(model, [Slots(model, rules, kinds[kind], CAPACITY) for kind in (name, "sampling")])
        for shape in (((4, REACHES[0]), (0, 0)), ((0, 0), (2, REACHES[1])), ((2, REACHES[2]), (1, REACHES[0]))):
            taken.step(shape)
    with pytest.raises((RuntimeError, NotImplementedError)):
        rules.new_history(1).last_is_time.nonzero()  # what such a question would end in


def test_kernel_attends_as_torch_does() -> None:
    # Without a GPU; Triton is here because openai-whisper needs it.
    driver, env = Path(__file__).with_name("kernel_driver.py"), os.environ | {"TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, driver], check=True, env=env)


@pytest.mark.parametrize(
    "search", [Greedy(9), Sampling(2, 2, 9, 8, torch.device("cpu")), Beam(2, 0.5, 2, 9, 8, torch.device("cpu"))]
)
def test_lines_that_have_ended_stay_as_they_are_until_the_host_looks(search: Search) -> None:
    search.admit(0, [Draw(0.5, (1, 2))] * 2)
    done = torch.ones(4, dtype=torch.bool)
    lines = Lines(torch.full((4, 9), 3), torch.zeros(4, 9), torch.full((4,), 8), torch.randn(4), done)
    choice = search.choose(torch.randn(4, 300), lines, 0)
    assert choice.done.all()
    assert (choice.token == 9).all()
    assert torch.equal(choice.logprob, lines.logprob)
    assert choice.source is None or choice.source.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("beam", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_rounded_shapes_and_late_looks_change_no_text(beam: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = WhisperEngine(
        WhisperOptions(dtype="float32", temperatures=(0.0, 0.6), logprob_threshold=-0.2, best_of=2, beam=beam)
    )
    clips = [clip(passage(name, LANGUAGES[name]), 10) for name in ("en_switchboard.mp3", "it_centralino.flac")]
    expected = answers(plain, *clips)
    monkeypatch.setattr(engines, "Steps", Unrecorded)
    for module in (slots, encoding, evidence):
        monkeypatch.setattr(module, "Arriving", Late)
    rounded = answers(with_options(plain, replace(plain.options, slots=6)), *clips)
    assert {name: said(one.segments) for name, one in rounded.items()} == {
        name: said(one.segments) for name, one in expected.items()
    }
    shapes = {shape for one in steps for shape in one.shapes}
    assert any(sampled for _, (sampled, _) in shapes), "no window was sampled: the test does not see the second lane"
