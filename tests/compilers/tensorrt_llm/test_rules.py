"""What TensorRT-LLM refuses is told when planning: every preset on every GPU of the catalogue, and each other rule."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import pytest

from tests.compilers.tensorrt_llm import support
from tests.compilers.tensorrt_llm.support import LLAMA_1B, LLAMA_8B, keys, recipe
from trtbuild.compilers.registry import advice
from trtbuild.compilers.tensorrt_llm.contract import contract
from trtbuild.errors import InputError
from trtbuild.facts.recipe import SCHEMES, Profile, Recipe
from trtbuild.planning.plan import make_plan

#: preset -> what the contract calls it; written down here, apart from the code
ALGORITHMS = {
    "none": "NO_QUANT",
    "int8": "W8A16",
    "int4": "W4A16",
    "int4_awq": "W4A16_AWQ",
    "int4_gptq": "W4A16_GPTQ",
    "int8_sq": "W8A8_SQ_PER_CHANNEL",
    "w4a8_awq": "W4A8_AWQ",
    "fp8": "FP8",
    "fp8_kv": "FP8",
    "fp8_rowwise": "FP8_PER_CHANNEL_PER_TOKEN",
    "nvfp4": "NVFP4",
    "nvfp4_kv": "NVFP4",
}


def expected(preset: str, capability: str) -> bool:
    """What the contract says, read without the rules that are under test."""
    number = float(capability)
    name = ALGORITHMS[preset]
    refused = 10.0 <= number < 12.0 and name in contract()["rejected_on_sm_100_to_119"]
    return number >= float(contract()["min_compute_capability"][name]) and not refused


def small(preset: str) -> Mapping[str, Any]:
    return {**LLAMA_1B, **support.GPTQ} if preset == "int4_gptq" else LLAMA_1B


@pytest.mark.parametrize("target", support.targets())
@pytest.mark.parametrize("preset", ALGORITHMS)
def test_each_preset_on_each_gpu_of_the_catalogue(preset: str, target: str) -> None:
    asked = recipe(target, preset, config=small(preset))
    gpu = asked.target.gpu
    assert gpu is not None
    if expected(preset, gpu.compute_capability):
        assert make_plan(asked).final.name == "engine"
        return
    with pytest.raises(InputError) as refused:
        make_plan(asked)
    error = refused.value
    assert "compute capability" in error.message, "it names the rule"
    assert gpu.compute_capability in error.message
    assert error.hint, "and another way"
    for other in re.findall(r"quant=(\w+)", error.hint):
        assert make_plan(recipe(target, other, config=small(other))), f"{other} is taken"


def test_the_table_is_of_all_presets() -> None:
    assert set(ALGORITHMS) == set(support.presets())


@pytest.mark.parametrize("target", support.targets())
def test_presets_of_other_compilers_are_refused_with_their_names(target: str) -> None:
    for parts, name in SCHEMES.items():
        if name in support.OTHERS:
            with pytest.raises(InputError, match=f"and not to {name}") as refused:
                make_plan(with_quant(recipe(target), *parts))
            assert "compilers that have it: " in str(refused.value.hint)


def test_what_each_gpu_takes() -> None:
    """The table for people (docs/tensorrt-llm.md has it): compute capability -> presets."""
    found: dict[str, set[str]] = {}
    for name, target in support.targets().items():
        assert target.gpu is not None
        taken = set()
        for preset in ALGORITHMS:
            try:
                make_plan(recipe(name, preset, config=small(preset)))
            except InputError:
                continue
            taken.add(preset)
        assert found.setdefault(target.gpu.compute_capability, taken) == taken
    everywhere = {"none", "int8", "int4", "int4_awq", "int4_gptq", "int8_sq"}
    eight_bit = {"w4a8_awq", "fp8", "fp8_kv", "fp8_rowwise"}
    assert found == {
        "7.5": set(),
        "8.0": everywhere,
        "8.6": everywhere,
        "8.9": everywhere | eight_bit,
        "9.0": everywhere | eight_bit,
        "10.0": {"none", "fp8", "fp8_kv", "nvfp4", "nvfp4_kv"},
        "12.0": set(ALGORITHMS),
    }


def with_quant(asked: Recipe, *parts: str, **more: Any) -> Recipe:
    return dataclasses.replace(asked, quant=support.quant(*parts, **more))


LONG = Profile(None, None, 16384, None)
REFUSED: dict[str, tuple[Recipe, str, list[str]]] = {
    "an architecture that the engines lack": (
        recipe(config={**LLAMA_8B, "architectures": ["GptOssForCausalLM"]}),
        "model.source",
        ["GptOssForCausalLM", "not in its model map", "LlamaForCausalLM"],
    ),
    "an architecture whose converter is not driven": (
        recipe(config={**LLAMA_8B, "architectures": ["WhisperEncoder"]}),
        "model.source",
        ["has WhisperEncoder", "does not drive its converter"],
    ),
    "another release": (
        dataclasses.replace(recipe(), tools=dataclasses.replace(recipe().tools, packages={"tensorrt_llm": "1.3.0"})),
        "compiler.version",
        ["1.3.0", "1.2.1"],
    ),
    "heads that do not divide": (
        recipe(tp=3, config={**LLAMA_8B, "num_attention_heads": 32}),
        "parallel.tp",
        ["32 attention heads", "1, 2"],
    ),
    "KV heads that do not divide": (
        recipe(tp=4, config={**LLAMA_8B, "num_attention_heads": 24, "num_key_value_heads": 3}),
        "parallel.tp",
        ["3 KV heads", "parallel.tp=3"],
    ),
    "more pipeline ranks than layers": (recipe(pp=64), "parallel.pp=64", ["32 layers"]),
    "groups that do not divide": (
        recipe(preset="int4_awq", config={**LLAMA_8B, "hidden_size": 576}),
        "quant.group_size",
        ["groups of 128", "hidden_size of 576", "quant.group_size=64"],
    ),
    "groups that do not divide a rank's share": (
        recipe(preset="int4_awq", tp=8, config={**LLAMA_8B, "intermediate_size": 14336 + 128}),
        "quant.group_size",
        ["intermediate_size", "8 ranks"],
    ),
    "more tokens than positions": (
        recipe(profile=LONG),
        "profile.max_seq_len",
        ["16384 is beyond the model's 8192 positions", "streamingllm"],
    ),
    "a prompt longer than all": (
        recipe(profile=Profile(None, 4096, 2048, None)),
        "profile.max_input_len",
        ["more than profile.max_seq_len=2048"],
    ),
    "no text to calibrate on": (
        recipe(preset="fp8", calib_dataset=None),
        "compiler.calib_dataset",
        ["FP8 is calibrated", "load_dataset"],
    ),
    "a KV cache in NVFP4": (
        with_quant(recipe("b200"), "nvfp4", "nvfp4", "minmax", "nvfp4"),
        "quant.kv_cache",
        ["int8, fp8"],
    ),
    "an INT8 KV cache on Blackwell": (
        with_quant(recipe("b200"), "none", "none", "rtn", "int8"),
        "quant=none/none/rtn/int8",
        ["an INT8 KV cache", "10.0 to 11.9", "quant=fp8_kv"],
    ),
    "an FP8 KV cache on Ampere": (
        with_quant(recipe("a100_80gb"), "none", "none", "rtn", "fp8"),
        "quant=none/none/rtn/fp8",
        ["an FP8 KV cache needs compute capability 8.9"],
    ),
    "GPTQ of a checkpoint that has none": (recipe(preset="int4_gptq"), "model.source", ["quant=int4_awq"]),
    "GPTQ by a converter that has none": (
        recipe(preset="int4_gptq", config={**LLAMA_8B, "architectures": ["PhiForCausalLM"]}),
        "quant",
        ["converter of PhiForCausalLM has no int4_gptq"],
    ),
    "groups of what has none": (
        with_quant(recipe(), "int4", "none", "rtn", "auto", group_size=64),
        "quant.group_size",
        ["quant=int4_awq"],
    ),
    "zero points": (
        with_quant(recipe(), "int4", "none", "awq", "auto", symmetric=False),
        "quant.symmetric=false",
        ["zero points"],
    ),
    "a plugin that Blackwell refuses": (
        recipe("b200", gemm_swiglu_plugin="fp8"),
        "compiler.gemm_swiglu_plugin",
        ["10.0 to 11.9"],
    ),
    "draft heads": (
        recipe(speculative_decoding_mode="medusa", max_draft_len=5),
        "compiler.speculative_decoding_mode=medusa",
        ["draft heads", "lookahead_decoding"],
    ),
    "a draft without a length": (
        recipe(speculative_decoding_mode="lookahead_decoding"),
        "compiler.max_draft_len",
        ["both a mode and a length"],
    ),
    "adapters without the plugin": (
        recipe(lora_dir=(f"sha256:{'10' * 32}",)),
        "compiler.lora_plugin",
        ["compiler.lora_plugin=auto"],
    ),
    "a LoRA module that there is not": (
        recipe(lora_plugin="auto", lora_target_modules=("query",)),
        "compiler.lora_target_modules",
        ["query", "attn_q"],
    ),
    "a flag that quantize.py lacks": (
        recipe(preset="fp8", moe_ep_size=2),
        "compiler.moe_ep_size",
        ["quantize.py"],
    ),
    "a flag that the converter lacks": (
        recipe(cp_size=2, config={**LLAMA_8B, "architectures": ["PhiForCausalLM"]}),
        "compiler.cp_size",
        ["core/phi"],
    ),
    "a model that does not fit": (
        recipe("rtx4070"),
        "quant",
        ["does not fit rtx4070", "weights take 16.1 GB", "quant=int4_awq", "parallel.tp=2"],
    ),
    "more ranks than GPUs that were counted": (
        dataclasses.replace(
            recipe(tp=4),
            target=dataclasses.replace(recipe().target, gpus=2, origins={"gpus": "target.gpus="}),
        ),
        "parallel.tp",
        ["4 GPUs", "has 2", "target.gpus=4"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_and_why(name: str) -> None:
    asked, option, words = REFUSED[name]
    with pytest.raises(InputError) as refused:
        make_plan(asked)
    assert refused.value.option == option
    told = " ".join(refused.value.lines())
    for word in words:
        assert word in told


def test_rope_scaling_lengthens_as_trtllm_build_counts_it() -> None:
    scaled = {**LLAMA_8B, "rope_scaling": {"type": "linear", "factor": 2.0}}
    assert make_plan(recipe(config=scaled, profile=LONG))
    llama3 = {**LLAMA_8B, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}
    with pytest.raises(InputError, match="8192 positions"):
        make_plan(recipe(config=llama3, profile=LONG))
    assert make_plan(recipe(streamingllm=True, profile=LONG))


def test_ranks_of_a_gpu_of_the_catalogue_are_not_counted() -> None:
    """It is one of its kind, and nobody said how many there will be."""
    assert make_plan(recipe(tp=8))


def test_a_quantized_model_fits_where_it_did_not() -> None:
    assert make_plan(recipe("rtx4070", "int4_awq"))


def test_the_model_own_limits_spelt_out_give_the_same_key() -> None:
    spelt = Profile(2048, 1024, 8192, 8192)
    assert keys(recipe(profile=spelt)) == keys(recipe())


class TestCheckpointsServeManyGpus:
    """A checkpoint's key holds the compute capability only where its weights are laid out for it."""

    @pytest.mark.parametrize("preset", ["none", "int4_awq", "int8_sq"])
    def test_one_for_all(self, preset: str) -> None:
        ampere, hopper = keys(recipe("a100_80gb", preset)), keys(recipe("h100_sxm", preset))
        assert ampere["checkpoint"] == hopper["checkpoint"]
        assert ampere["engine"] != hopper["engine"]

    @pytest.mark.parametrize("preset", ["int8", "int4", "int4_gptq"])
    def test_one_for_each(self, preset: str) -> None:
        config = {**LLAMA_8B, **support.GPTQ}
        ampere, hopper = (keys(recipe(name, preset, config=config)) for name in ("a100_80gb", "h100_sxm"))
        assert ampere["checkpoint"] != hopper["checkpoint"]
        same = keys(recipe("h200", preset, config=config))
        assert same["checkpoint"] == hopper["checkpoint"]
        assert same["engine"] != hopper["engine"]

    def test_what_is_not_of_the_checkpoint_leaves_it(self) -> None:
        assert keys(recipe(gemm_plugin="auto"))["checkpoint"] == keys(recipe())["checkpoint"]
        assert keys(recipe(profile=LONG, streamingllm=True))["checkpoint"] == keys(recipe())["checkpoint"]


def test_the_team_gets_the_stripped_plan_and_not_what_is_refitted() -> None:
    shared = {name: step.handling.shared for name, step in support.steps(recipe(strip_plan=True)).items()}
    assert shared == {"checkpoint": True, "stripped": True, "engine": False}
    assert all(step.handling.shared for step in support.steps(recipe()).values())


def test_the_image_stands_for_versions() -> None:
    one, other = (recipe(image=f"sha256:{digit * 64}") for digit in "12")
    facts = support.steps(one)["engine"].facts
    assert facts["toolchain.image"] == f"sha256:{'1' * 64}"
    assert not [name for name in facts if name.startswith("toolchain.tensorrt")]
    assert keys(one)["checkpoint"] != keys(other)["checkpoint"]
    assert keys(one)["engine"] != keys(other)["engine"]


def test_the_dataset_is_known_by_its_content() -> None:
    assert keys(recipe(preset="fp8")) != keys(recipe(preset="fp8", calib_dataset=f"sha256:{'db' * 32}"))
    assert keys(recipe()) == keys(recipe(calib_dataset=None)), "where nothing is calibrated, nothing is read of it"


def test_memory_is_advised_on() -> None:
    long = {**LLAMA_8B, "max_position_embeddings": 131072}
    said = " ".join(advice(recipe("rtx4070", "int4_awq", config=long)))
    assert "never executed on TensorRT-LLM itself" in said
    assert "not one sequence of profile.max_seq_len fits" in said
    assert re.search(r"about 16\.1 GB of weights a GPU; \d+ sequences", " ".join(advice(recipe())))
