"""The words of each tool, pinned: a golden file for each case, which the stand-in's parser accepts.

`python -m tests.compilers.tensorrt_llm.test_arguments` writes the files anew; a change of one is a change of what is
built, so it comes with a new step version.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path, PurePath
from typing import Any

import pytest

from tests.compilers.tensorrt_llm import support
from tests.compilers.tensorrt_llm.support import recipe
from tests.support.tensorrt_llm_standin import parser
from trtbuild.compilers.tensorrt_llm import arguments, rules
from trtbuild.compilers.tensorrt_llm.arguments import Places
from trtbuild.facts.key import Step
from trtbuild.facts.recipe import Profile, Recipe

GOLDEN = Path(__file__).parent / "golden"
LIMITS = Profile(8, 2048, 4096, 16384)

CASES: dict[str, Recipe] = {
    "none": recipe(),
    "tp2": recipe(tp=2),
    "tp8": recipe(tp=8),
    "tp4_pp2": recipe(tp=4, pp=2),
    "cp2": recipe(cp_size=2),
    "limits": recipe(profile=LIMITS),
    "moe": recipe(moe_tp_size=1, moe_ep_size=2, tp=2, use_parallel_embedding=True, embedding_sharding_dim=1),
    **{name: recipe(preset=name) for name in support.presets() if not name.startswith(("nvfp4", "int4_gptq"))},
    **{name: recipe("b200", name) for name in ("nvfp4", "nvfp4_kv")},
    "int4_gptq": recipe(preset="int4_gptq", config={**support.LLAMA_8B, **support.GPTQ}),
    "int8_kv8": dataclasses.replace(recipe(), quant=support.quant("int8", "none", "rtn", "int8")),
    "none_kv8": dataclasses.replace(recipe(), quant=support.quant("none", "none", "rtn", "fp8")),
    "qwen_int4_gptq": recipe(
        preset="int4_gptq",
        config={**support.LLAMA_8B, **support.GPTQ, "architectures": ["Qwen2ForCausalLM"]},
    ),
    "int8_smoothquant": recipe(preset="int8_sq", smoothquant=0.5, per_channel=True, per_token=True),
    "qwen_fp8_rowwise": recipe(
        preset="fp8_rowwise", config={**support.LLAMA_8B, "architectures": ["Qwen2ForCausalLM"]}
    ),
    "lora": recipe(lora_plugin="auto", lora_dir=(f"sha256:{'10' * 32}",), lora_target_modules=("attn_q", "attn_v")),
    "speculative": recipe(speculative_decoding_mode="draft_tokens_external", max_draft_len=5),
    "lookahead": recipe(speculative_decoding_mode="lookahead_decoding", max_draft_len=7),
    "strip_plan": recipe(strip_plan=True),
    "many": recipe(
        gemm_plugin="auto",
        weight_streaming=True,
        fast_build=True,
        multiple_profiles=True,
        kv_cache_type="continuous",
        opt_num_tokens=64,
        logits_dtype="float32",
        gather_context_logits=True,
        tokens_per_block=64,
    ),
}


def commands(asked: Recipe) -> list[list[str]]:
    """Each tool with its words, in the order of the steps; places stand for themselves."""
    found = []
    for name, step in support.steps(asked).items():
        if name == "checkpoint":
            found.append(_checkpoint(step, asked))
        elif "stripped" in step.inputs:
            words = arguments.refit(PurePath("STRIPPED"), PurePath("CHECKPOINT"), PurePath("OUT"))
            found.append(["trtllm-refit", *words])
        else:
            lora = [PurePath(f"LORA{at}") for at, _ in enumerate(step.facts["compiler.lora_dir"] or ())]
            places = Places(PurePath("CHECKPOINT"), PurePath("OUT"), None, PurePath("OLD"), PurePath("NEW"), lora)
            found.append(["trtllm-build", *arguments.build(step.facts, places)])
    return found


def _checkpoint(step: Step, asked: Recipe) -> list[str]:
    quant, architecture = asked.quant, str(asked.model.architecture)
    parts = (quant.weights, quant.activations, quant.method, quant.kv_cache)
    scheme = rules.scheme(parts, architecture, step.facts)
    dataset = PurePath("DATASET") if scheme.calibrated else None
    places = Places(PurePath("MODEL"), PurePath("OUT"), dataset)
    if scheme.tool == "quantize":
        return ["quantize.py", *arguments.quantize(step.facts, places)]
    family = rules.family(architecture)
    return [f"examples/models/{family}/convert_checkpoint.py", *arguments.convert(step.facts, places, family)]


def shown(asked: Recipe) -> str:
    """One flag a line, with its values."""
    lines = []
    for tool, *words in commands(asked):
        lines.append(tool)
        for word in words:
            if word.startswith("--"):
                lines.append(f"  {word}")
            else:
                lines[-1] += f" {word}"
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", CASES)
def test_the_words_are_as_they_were(name: str) -> None:
    assert shown(CASES[name]) == (GOLDEN / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", CASES)
def test_a_parser_of_the_contract_takes_them(name: str) -> None:
    for tool, *words in commands(CASES[name]):
        parser(tool).parse_args(words)  # it exits where it does not


def test_every_golden_file_is_of_a_case() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(CASES)


def test_every_value_is_a_flag() -> None:
    """trtllm-build's own defaults decide nothing: what is not given is null in the config, or a bare flag left out."""
    words: list[Any] = commands(CASES["limits"])[1]
    given = {word for word in words if word.startswith("--")}
    options = support.options()
    for name in arguments.BUILD:
        value = options[f"compiler.{name}"]
        left_out = value is None or value == () or (value is False and name not in arguments.SWITCHES)
        unused = name in (*arguments.LORA, "speculative_decoding_mode", "max_draft_len")
        assert (f"--{name}" in given) != (left_out or unused), name
    assert {"--input_timing_cache", "--output_timing_cache"} <= given


if __name__ == "__main__":
    for name, asked in CASES.items():
        (GOLDEN / f"{name}.txt").write_text(shown(asked))
