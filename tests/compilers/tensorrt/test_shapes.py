"""From limits to the shapes that each engine takes."""

from __future__ import annotations

import pytest

from tests.networks.tiny_models import config
from trtbuild.compilers.tensorrt import shapes
from trtbuild.networks.config.architectures import parse

DECODER = parse(config())
LIMITS = shapes.ProfileLimits(batch=4, input=100, sequence=256)


def test_dynamic_is_one_profile_from_one_token_to_the_longest_input() -> None:
    (plan,) = shapes.engines("dynamic", LIMITS)
    assert (plan.file, plan.static) == ("model.engine", False)
    made = shapes.inputs(DECODER, plan.phases[0])
    assert made["input_ids"] == ((1, 1), (4, 1), (4, 100))
    assert made["attention_bias"] == ((1, 1, 1, 1), (4, 1, 1, 128), (4, 1, 100, 355))
    assert made["past_key_values.1.value"] == ((1, 2, 0, 16), (4, 2, 127, 16), (4, 2, 255, 16))


def test_phases_are_two_profiles_of_one_engine() -> None:
    (plan,) = shapes.engines("phases", LIMITS)
    assert [phase.name for phase in plan.phases] == ["decode", "prefill"]
    decode, prefill = (shapes.inputs(DECODER, phase) for phase in plan.phases)
    assert decode["input_ids"] == ((1, 1), (4, 1), (4, 1))
    assert prefill["input_ids"] == ((1, 1), (4, 100), (4, 100))


def test_static_is_two_engines_of_one_shape_each() -> None:
    decode, prefill = shapes.engines("static", LIMITS)
    assert (decode.file, prefill.file) == ("decode.engine", "prefill.engine")
    for plan, tokens, past in ((decode, 1, 255), (prefill, 100, 156)):
        assert plan.static
        for name, each in shapes.inputs(DECODER, plan.phases[0]).items():
            assert len(set(each)) == 1, name
        made = shapes.inputs(DECODER, plan.phases[0])
        assert made["input_ids"][0] == (4, tokens)
        assert made["attention_bias"][0] == (4, 1, tokens, past + tokens)
        assert made["past_key_values.0.key"][0] == (4, 2, past, 16)


@pytest.mark.parametrize("kind", shapes.SHAPES)
@pytest.mark.parametrize("limits", [shapes.ProfileLimits(1, 1, 2), shapes.ProfileLimits(8, 1000, 1001)])
def test_least_typical_and_greatest_are_in_order_and_fill_the_sequence(kind: str, limits: shapes.ProfileLimits) -> None:
    for plan in shapes.engines(kind, limits):
        for phase in plan.phases:
            for extent in (phase.batch, phase.tokens, phase.past):
                assert 0 <= extent.least <= extent.typical <= extent.greatest
                assert extent.greatest <= max(limits.sequence - 1, limits.batch)
            for each in shapes.inputs(DECODER, phase).values():
                assert len({len(dims) for dims in each}) == 1
