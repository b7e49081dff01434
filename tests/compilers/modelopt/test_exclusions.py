"""`compiler.exclude_modules`: what its patterns mean, what cannot be meant, and what a key reads of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.compilers.tensorrt_llm.support import recipe, steps
from tests.support import tiny
from tests.support.cli import Project
from trtbuild.compilers.modelopt import exclusions
from trtbuild.errors import InputError
from trtbuild.planning.plan import make_plan

FIRST = frozenset(f"model.layers.0.{part}.{name}" for part, names in exclusions.MAPS.items() for name in names)


def test_patterns_are_of_hugging_face_s_names() -> None:
    assert exclusions.modules([], 3) == frozenset()
    assert exclusions.modules(["model.layers.0.*"], 3) == FIRST
    found = exclusions.modules(["*.down_proj", "model.layers.[01].self_attn.[qkv]_proj"], 3)
    assert len(found) == 3 + 2 * 3


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        (
            ["lm_head"],
            "'lm_head' is the name of no linear map that is quantized; the embedding and the head never are",
        ),
        (["model.layers.3.*"], "'model.layers.3.*' is the name of no linear map"),
        (["*.MLP.*"], "'*.MLP.*' is the name of no linear map"),
        (
            ["*.q_proj"],
            "servers compute q_proj, k_proj, v_proj of a layer at once, and of model.layers.0 some",
        ),
        (
            ["model.layers.1.mlp.up_proj"],
            "servers compute gate_proj, up_proj of a layer at once, and of model.layers.1",
        ),
        (["*.self_attn.*", "*.mlp.*"], "nothing is left to quantize"),
    ],
)
def test_what_cannot_be_meant_is_said(patterns: list[str], said: str) -> None:
    with pytest.raises(InputError) as refused:
        exclusions.modules(patterns, 3)
    assert refused.value.option == "compiler.exclude_modules"
    assert refused.value.message.startswith(said)
    assert refused.value.hint


def test_a_key_reads_the_patterns_in_any_order_and_nothing_where_there_are_none(
    project: Project, tmp_path: Path
) -> None:
    model = f"model.source={tiny.write_model(tmp_path / 'model')}"

    def key(*words: str) -> str:
        done = project.trtbuild("plan", "compiler=modelopt", "quant=int8", "target=cpu", model, *words, "output=json")
        assert done.code == 0, done.err
        return str(done.json["steps"][-1]["key"])

    one = key("compiler.exclude_modules=[model.layers.0.*,*.down_proj]")
    assert one == key("compiler.exclude_modules=[*.down_proj,model.layers.0.*,*.down_proj]")
    assert one != key() == key("compiler.exclude_modules=[]")
    done = project.trtbuild("plan", "compiler=modelopt", "quant=none", model, "compiler.exclude_modules=[*.o_proj]")
    assert done.code == 2
    assert "compiler.exclude_modules: quant=none quantizes nothing" in done.err


def test_tensorrt_llm_s_checkpoints_leave_maps_too_where_modelopt_makes_them() -> None:
    def asked(**given: Any) -> list[str]:
        return exclusions.read(steps(recipe("h100_sxm", "fp8", checkpoint_by="auto", **given))["checkpoint"].facts)

    assert asked(exclude_modules=("*.down_proj",)) == ["*.down_proj"]
    assert asked() == []
    for quant, given, said in (
        ("int8", {}, "TensorRT-LLM's loader quantizes the weights of W8A16 itself"),
        ("fp8", {"pp": 2}, "the checkpoint numbers layers within each stage"),
        ("fp8", {"checkpoint_by": "scripts"}, "NVIDIA's scripts leave no layers out"),
    ):
        pp = given.pop("pp", 1)
        with pytest.raises(InputError) as refused:
            made = recipe("h100_sxm", quant, **{"checkpoint_by": "auto", "exclude_modules": ("*.o_proj",), **given})
            make_plan(dataclasses.replace(made, pp=pp, target=dataclasses.replace(made.target, gpus=pp)))
        assert refused.value.option == "compiler.exclude_modules"
        assert said in refused.value.message
