"""Who makes the checkpoint, and what its key reads: ModelOpt where it can, NVIDIA's scripts for all else."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.compilers.tensorrt_llm import support
from tests.compilers.tensorrt_llm.support import LLAMA_1B, LLAMA_8B, keys, recipe, steps
from trtbuild.compilers.registry import advice
from trtbuild.errors import InputError
from trtbuild.facts.recipe import Recipe
from trtbuild.planning.plan import make_plan

MODELOPT, SCRIPTS = (
    "trtbuild.compilers.tensorrt_llm.modelopt_checkpoint",
    "trtbuild.compilers.tensorrt_llm.scripts_checkpoint",
)
BY_MODELOPT = ("none", "int8", "int4", "int8_sq", "int4_awq", "w4a8_awq", "fp8", "fp8_kv")
MEASURED = ("int8_sq", "int4_awq", "w4a8_awq", "fp8", "fp8_kv")


def auto(preset: str = "fp8", target: str = "h100_sxm", **given: Any) -> Recipe:
    return recipe(target, preset, checkpoint_by=given.pop("checkpoint_by", "auto"), **given)


def by(asked: Recipe) -> str:
    return steps(asked)["checkpoint"].worker.module


@pytest.mark.parametrize("preset", BY_MODELOPT)
def test_modelopt_makes_what_it_can(preset: str) -> None:
    assert by(auto(preset)) == MODELOPT
    assert by(auto(preset, tp=2)) == MODELOPT
    assert by(auto(preset, checkpoint_by="scripts")) == SCRIPTS
    assert by(auto(preset, config={**LLAMA_8B, "architectures": ["MistralForCausalLM"]})) == MODELOPT


QWEN = {**LLAMA_8B, "architectures": ["Qwen2ForCausalLM"]}
NOT: dict[str, tuple[Recipe, str]] = {
    "qwen": (auto(config=QWEN), "this model is a Qwen2ForCausalLM"),
    "rowwise": (auto("fp8_rowwise"), "no fp8/fp8/rowwise here"),
    "gptq": (auto("int4_gptq", config={**LLAMA_8B, **support.GPTQ}), "no int4/none/gptq here"),
    "nvfp4": (auto("nvfp4", "b200"), "packs NVFP4 on a GPU alone"),
    "cp": (auto(cp_size=2), "compiler.cp_size is an option of NVIDIA's scripts"),
    "head": (auto(quantize_lm_head=True), "compiler.quantize_lm_head is an option of NVIDIA's scripts"),
    "alpha": (auto("int8_sq", smoothquant=0.5), "compiler.smoothquant is an option of NVIDIA's scripts"),
    "int8 cache": (
        dataclasses.replace(auto(), quant=support.quant("fp8", "fp8", "minmax", "int8")),
        "int8 KV cache is not offered",
    ),
    "cache alone": (
        dataclasses.replace(auto("none"), quant=support.quant("none", "none", "rtn", "fp8")),
        "an FP8 KV cache with calibrated weights alone",
    ),
    "bias": (auto(config={**LLAMA_8B, "attention_bias": True}), "that the model has attention_bias"),
    "float32": (
        dataclasses.replace(auto(), model=dataclasses.replace(auto().model, dtype="float32")),
        "as float16 or bfloat16",
    ),
}


@pytest.mark.parametrize(("asked", "why"), NOT.values(), ids=NOT)
def test_scripts_make_all_else_and_modelopt_says_why_not(asked: Recipe, why: str) -> None:
    assert by(asked) == SCRIPTS
    tools = asked.tools
    insisted = dataclasses.replace(tools, options={**tools.options, "compiler.checkpoint_by": "modelopt"})
    with pytest.raises(InputError) as refused:
        make_plan(dataclasses.replace(asked, tools=insisted))
    assert refused.value.option == "compiler.checkpoint_by=modelopt"
    assert why in refused.value.message


@pytest.mark.parametrize("preset", BY_MODELOPT)
def test_what_was_not_measured_reads_nothing_of_how(preset: str) -> None:
    """One checkpoint for all that only measuring would change; another for each of it where scales are measured."""
    one = keys(auto(preset))["checkpoint"]
    changes: list[dict[str, Any]] = [
        {"calib_dataset": f"sha256:{'ab' * 32}"},
        {"calib_dataset": None},
        {"calib_size": 64},
        {"calib_batch_size": 2},
        {"calib_max_seq_length": 128},
        {"calib_level": "x86_64_v4"},
        {"calib_device": "cuda"},
        {"threads": 2},
    ]
    others = [keys(auto(preset, **change))["checkpoint"] for change in changes]
    if preset in MEASURED:
        assert len({one, *others}) == len(changes) + 1
    else:
        assert set(others) == {one}
    assert keys(auto(preset, tokenizer_max_seq_length=7, random_seed=5))["checkpoint"] == one


def test_a_checkpoint_serves_every_gpu_unless_a_gpu_measured_it() -> None:
    where = ("h100_sxm", "l40s")
    for preset in BY_MODELOPT:
        assert len({keys(auto(preset, target))["checkpoint"] for target in where}) == 1, preset
    assert len({keys(auto("fp8", target, calib_device="cuda"))["checkpoint"] for target in where}) == 2
    on_cuda = [keys(auto("fp8", calib_device="cuda", **change))["checkpoint"] for change in ({}, {"threads": 2})]
    assert len(set(on_cuda)) == 1, "a GPU's threads are its own"


def test_ranks_have_checkpoints_of_their_own() -> None:
    assert len({keys(auto(tp=tp, pp=pp))["checkpoint"] for tp, pp in ((1, 1), (2, 1), (1, 2))}) == 3


def refusal(asked: Recipe) -> InputError:
    with pytest.raises(InputError) as refused:
        make_plan(asked)
    return refused.value


def test_what_modelopt_gets_silently_wrong_is_refused() -> None:
    odd = {**LLAMA_1B, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576, "head_dim": 64}
    assert "9 attention heads do not divide by tp x cp = 2" in refusal(auto(config=odd, tp=2)).message
    assert by(auto(config=odd, tp=3)) == MODELOPT
    stages = refusal(auto(config={**LLAMA_1B, "num_hidden_layers": 15}, pp=2))
    assert stages.option == "parallel.pp=2"
    assert "15 layers do not divide by 2" in stages.message
    few = refusal(auto("int8_sq", config={**LLAMA_1B, "num_key_value_heads": 2}, tp=4))
    assert few.option == "parallel.tp=4"
    assert "parallel.tp=2" in str(few.hint)
    groups = refusal(auto("int4_awq", config={**LLAMA_1B, "hidden_size": 576, "intermediate_size": 1536}))
    assert groups.option == "quant.group_size"
    assert "64" in str(groups.hint)


@pytest.mark.parametrize("name", ["calib_size", "calib_batch_size", "calib_max_seq_length", "threads"])
def test_numbers_are_above_nothing(name: str) -> None:
    assert refusal(auto(**{name: 0})).option == f"compiler.{name}=0"


def test_too_few_samples_are_said() -> None:
    few = advice(auto(calib_size=16))
    assert any("quant=fp8 wants 512 samples, and compiler.calib_size=16 gives fewer" in said for said in few)
    packaged = advice(auto(calib_dataset=None))
    assert any("46 short samples that come with trtbuild" in said for said in packaged)
    assert not any("samples" in said for said in advice(auto("int8", calib_dataset=None)))
