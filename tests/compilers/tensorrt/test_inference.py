"""The host's part in generating: with the network in ONNX Runtime the tokens are those of a plain forward pass."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.compilers.tensorrt.support import OnnxRuntimeMachine, describe, network
from tests.networks.numpy_decoder import forward
from tests.networks.tiny_models import config, weights
from trtbuild.compilers.tensorrt import call_schedule, shapes
from trtbuild.errors import InputError

MODELS = {
    "llama": config(tie_word_embeddings=True),
    "qwen3": config("Qwen3ForCausalLM"),
    "mistral, window of 5": config("MistralForCausalLM", sliding_window=5),
}
PROMPT = [int(token) for token in np.random.default_rng(5).integers(0, 96, 11)]
ANSWER = 9


def by_forward(settings: dict[str, Any]) -> list[int]:
    tensors, ids = weights(settings), list(PROMPT)
    for _ in range(ANSWER):
        ids.append(int(forward(settings, tensors, np.array(ids))[-1].argmax()))
    return ids[len(PROMPT) :]


def spoken(settings: dict[str, Any], kind: str, limits: shapes.ProfileLimits, folder: Path) -> tuple[list[int], list]:
    decoder, path = network(folder, settings)
    layout = call_schedule.layout(describe(settings, kind, limits), len(PROMPT), ANSWER)
    past = {"prefill": layout.prefill.past, "decode": layout.decode.past}
    machine = OnnxRuntimeMachine(decoder, path, past)
    tokens = call_schedule.tokens(machine, layout, PROMPT, lambda logits: int(logits.argmax()))
    return list(islice(tokens, ANSWER)), machine.shapes


@pytest.mark.parametrize("kind", shapes.SHAPES)
@pytest.mark.parametrize("name", MODELS)
def test_greedy_tokens_are_those_of_a_forward_pass(name: str, kind: str, tmp_path: Path) -> None:
    found, called = spoken(MODELS[name], kind, shapes.ProfileLimits(1, 16, 64), tmp_path)
    assert found == by_forward(MODELS[name])
    assert len(set(found)) > 2  # the yardstick says something
    if kind == "static":
        assert set(called) == {(16, 48), (1, 63)}  # the shapes that the two engines have
    else:
        assert set(called) == {(11, 19), (1, 19)}


def test_each_call_lies_within_the_profile_that_it_is_made_for() -> None:
    limits = shapes.ProfileLimits(1, 16, 64)
    for kind in shapes.SHAPES:
        made = describe(MODELS["llama"], kind, limits)
        phases = {phase["name"]: phase for engine in made["engines"] for phase in engine["phases"]}
        for prompt, answer in ((1, 1), (16, 48), (16, 500), (3, 7)):
            layout = call_schedule.layout(made, prompt, answer)
            for name, shape in (("prefill", layout.prefill), ("decode", layout.decode)):
                phase = phases.get(name, phases.get("any"))
                assert phase["tokens"][0] <= shape.tokens <= phase["tokens"][2], (kind, name)
                assert phase["past"][0] <= shape.past <= phase["past"][2], (kind, name)


def test_a_prompt_that_does_not_fit_is_refused_by_name() -> None:
    made = describe(MODELS["llama"], "dynamic", shapes.ProfileLimits(1, 16, 64))
    with pytest.raises(InputError, match="17 tokens, and the engine takes 16") as caught:
        call_schedule.layout(made, 17, 1)
    assert caught.value.option == "prompt"
    assert call_schedule.room(made, 16) == 48


def test_a_bias_masks_empty_slots_padding_and_what_is_beyond_the_window() -> None:
    shapes_ = call_schedule.CallSchedule(call_schedule.CallShape(3, 4), call_schedule.CallShape(1, 4), 3, -9.0)
    seen = call_schedule.bias(call_schedule.CallShape(3, 4), shapes_, at=2, count=2) == 0
    # slots 0 to 3, then the new tokens 2, 3 and one of padding
    assert seen[:2].tolist() == [
        [True, True, False, False, True, False, False],
        [False, True, False, False, True, True, False],
    ]
