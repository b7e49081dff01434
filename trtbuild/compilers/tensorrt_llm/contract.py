"""What TensorRT-LLM's tools take, write and refuse, as its source says: package data, with its source and its date.

TensorRT-LLM ignores unknown names of BuildConfig and PluginConfig without a word, and has rules that are told after
minutes on a GPU; so names and rules are checked against this file before anything runs. Standard library only: the
workers read it too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

VERSION = "1.2"  # the releases that the contract is of
FILE = Path(__file__).with_name(f"contract-{VERSION}.json")
#: Said wherever an engine of this compiler is shown.
UNEXECUTED = (
    "validated against the contract of TensorRT-LLM 1.2 and a stand-in of its tools, "
    "and never executed on TensorRT-LLM itself"
)


@cache
def contract() -> Mapping[str, Any]:
    """The whole of it. Treat it as read-only."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


@cache
def converters() -> Mapping[str, Mapping[str, Any]]:
    """convert_checkpoint.py of each family of models, by the family's folder: "core/llama" -> its flags."""
    flags = contract()["convert_checkpoint_flags"]
    return {
        path.removeprefix("examples/models/").removesuffix("/convert_checkpoint.py"): found
        for path, found in flags.items()
    }


#: Architecture -> the folder of examples/models whose converter reads it. The contract's model map has more: those
#: are of no causal language model, or their converters do not take a folder of Hugging Face's.
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
    """Whether the family's converter has `flag`, and (unless None) `value` among its choices."""
    found = converters()[family].get(flag)
    if found is None:
        return False
    return value is None or value in found.get("choices", (value,))
