"""What TensorRT-LLM's tools take, write and refuse, by its source code: package data, with origin and date.

TensorRT-LLM silently ignores unknown names of BuildConfig and PluginConfig, and reports broken rules after minutes on a
GPU. So names and rules are checked against this file before anything runs. Standard library only: workers read it, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

VERSION = "1.2"  # of TensorRT-LLM, that the contract describes
FILE = Path(__file__).with_name(f"contract-{VERSION}.json")
#: Shown with every engine of this compiler.
UNEXECUTED = (
    "validated against the contract of TensorRT-LLM 1.2 and a stand-in of its tools, "
    "and never executed on TensorRT-LLM itself"
)


@cache
def contract() -> Mapping[str, Any]:
    """The whole contract. Callers must not change it."""
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


@cache
def converters() -> Mapping[str, Mapping[str, Any]]:
    """The folder of each family of models, such as "core/llama" -> the flags of its convert_checkpoint.py."""
    flags = contract()["convert_checkpoint_flags"]
    return {
        path.removeprefix("examples/models/").removesuffix("/convert_checkpoint.py"): accepted
        for path, accepted in flags.items()
    }


#: Architecture -> the folder of examples/models whose converter reads it. The contract's model map has more: those are
#: no causal language models, or their converters do not take a Hugging Face folder.
FAMILIES: Mapping[str, str] = {
    "LlamaForCausalLM": "core/llama",
    "MistralForCausalLM": "core/llama",
    "MixtralForCausalLM": "core/llama",
    "InternLM2ForCausalLM": "core/internlm2",
    "QWenLMHeadModel": "core/qwen",
    "QWenForCausalLM": "core/qwen",
    "Qwen2ForCausalLM": "core/qwen",
    "Qwen2MoeForCausalLM": "core/qwen",
    "Qwen3ForCausalLM": "core/qwen",
    "Qwen3MoeForCausalLM": "core/qwen",
    "PhiForCausalLM": "core/phi",
    "Phi3ForCausalLM": "core/phi",
    "PhiMoEForCausalLM": "core/phi",
    "GPT2LMHeadModel": "core/gpt",
    "GPTBigCodeForCausalLM": "core/gpt",
    "Starcoder2ForCausalLM": "core/gpt",
    "NemotronForCausalLM": "core/gpt",
    "ChatGLMModel": "core/glm-4-9b",
    "ChatGLMForConditionalGeneration": "core/glm-4-9b",
    "CohereForCausalLM": "core/commandr",
    "BaichuanForCausalLM": "contrib/baichuan",
    "BaiChuanForCausalLM": "contrib/baichuan",
    "BloomForCausalLM": "contrib/bloom",
    "DbrxForCausalLM": "contrib/dbrx",
    "FalconForCausalLM": "contrib/falcon",
    "RWForCausalLM": "contrib/falcon",
    "GPTJForCausalLM": "contrib/gptj",
    "GPTNeoXForCausalLM": "contrib/gptneox",
    "Grok1ModelForCausalLM": "contrib/grok",
    "MPTForCausalLM": "contrib/mpt",
    "MptForCausalLM": "contrib/mpt",
    "OPTForCausalLM": "contrib/opt",
}


def takes(family: str, flag: str, value: object = None) -> bool:
    """Whether the family's converter has `flag`, and `value`, unless None, among its choices."""
    accepted = converters()[family].get(flag)
    return accepted is not None and (value is None or value in accepted.get("choices", (value,)))
