"""The arguments of TensorRT-LLM's tools, from the facts of a step: every value that a tool has a flag for is given.

`trtllm-build --build_config FILE` is not used: the command line's defaults overwrite its plugins and more. Paths are in
`Places`, and in no fact. Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from trtbuild.compilers.tensorrt_llm.algorithms import KV_CACHES, NAMES, QFORMATS
from trtbuild.compilers.tensorrt_llm.contract import takes

Facts = Mapping[str, Any]

#: Flags of trtllm-build that trtbuild does not offer -> the reason.
NOT_OFFERED: Mapping[str, str] = {
    "--model_config": "the checkpoint's own config.json says it",
    "--build_config": "its plugins and more are overwritten by the command line's defaults: every value is a flag here",
    "--model_cls_file": "it executes a file",
    "--model_cls_name": "goes with --model_cls_file",
    "--paged_kv_cache": "the older spelling of --kv_cache_type",
    "--workers": "one GPU builds rank after rank, so the host's memory holds one",
    "--log_level": "the log is kept at its default",
    "--visualize_network": "it writes pictures, not an engine",
    "--dry_run": "it makes no engine",
    "--monitor_memory": "it prints, and changes nothing",
    "--gather_all_token_logits": "compiler.gather_context_logits and compiler.gather_generation_logits say the same",
}
#: Flags whose values are paths, or options of other groups -> which.
ELSEWHERE: Mapping[str, str] = {
    "--checkpoint_dir": "place",
    "--output_dir": "place",
    "--input_timing_cache": "place",
    "--output_timing_cache": "place",
    "--max_batch_size": "profile.max_batch_size",
    "--max_input_len": "profile.max_input_len",
    "--max_seq_len": "profile.max_seq_len",
    "--max_num_tokens": "profile.max_num_tokens",
}
#: Plugins that are on or off.
SWITCHES = (
    "dora_plugin",
    "context_fmha",
    "bert_context_fmha_fp32_acc",
    "remove_input_padding",
    "norm_quant_fusion",
    "reduce_fusion",
    "user_buffer",
    "use_paged_context_fmha",
    "use_fp8_context_fmha",
    "fuse_fp4_quant",
    "multiple_profiles",
    "paged_state",
    "streamingllm",
    "use_fused_mlp",
    "pp_reduce_scatter",
)
PLUGINS = (
    "bert_attention_plugin",
    "gpt_attention_plugin",
    "gemm_plugin",
    "gemm_swiglu_plugin",
    "fp8_rowwise_gemm_plugin",
    "nccl_plugin",
    "lora_plugin",
    "moe_plugin",
    "mamba_conv1d_plugin",
    "low_latency_gemm_plugin",
    "low_latency_gemm_swiglu_plugin",
    "gemm_allreduce_plugin",
    "tokens_per_block",
    *SWITCHES,
)
#: Flags without a value.
BARE = (
    "strip_plan",
    "weight_sparsity",
    "weight_streaming",
    "fast_build",
    "enable_debug_output",
    "gather_context_logits",
    "gather_generation_logits",
)
VALUES = (
    "max_beam_width",
    "opt_num_tokens",
    "max_encoder_input_len",
    "max_prompt_embedding_table_size",
    "kv_cache_type",
    "profiling_verbosity",
    "logits_dtype",
)
LORA = ("lora_ckpt_source", "lora_target_modules", "max_lora_rank")
BUILD = (*VALUES, *BARE, "lora_dir", *LORA, "speculative_decoding_mode", "max_draft_len", *PLUGINS)

#: Option -> flag of quantize.py and of the converters.
CALIBRATION: Mapping[str, str] = {
    "calib_size": "--calib_size",
    "calib_batch_size": "--batch_size",
    "calib_max_seq_length": "--calib_max_seq_length",
    "tokenizer_max_seq_length": "--tokenizer_max_seq_length",
    "random_seed": "--seed",
}
CONVERTER_CALIBRATION = ("calib_size", "calib_max_seq_length")
MAPPING = ("cp_size", "moe_tp_size", "moe_ep_size", "use_parallel_embedding", "embedding_sharding_dim")
SMOOTH = ("smoothquant", "per_channel", "per_token")


@dataclass(frozen=True)
class Places:
    """The paths that a tool reads and writes."""

    model: PurePath  # a Hugging Face checkpoint, or one of TensorRT-LLM
    out: PurePath
    dataset: PurePath | None = None
    input_cache: PurePath | None = None
    output_cache: PurePath | None = None
    lora: Sequence[PurePath] = ()


def build(facts: Facts, places: Places, max_seq_len: int | None = None) -> list[str]:
    """The arguments of `trtllm-build`. `max_seq_len` is the model's own, for facts that leave it open."""
    words = ["--checkpoint_dir", str(places.model), "--output_dir", str(places.out)]
    if places.input_cache is not None:
        words += ["--input_timing_cache", str(places.input_cache)]
    words += ["--output_timing_cache", str(places.output_cache)]
    for name in ("max_batch_size", "max_input_len", "max_seq_len", "max_num_tokens"):
        value = facts[f"profile.{name}"] or (max_seq_len if name == "max_seq_len" else None)
        words += _valued(name, value)
    for name in VALUES:
        words += _valued(name, facts[f"compiler.{name}"])
    words += [f"--{name}" for name in BARE if facts[f"compiler.{name}"]]
    if places.lora:
        words += ["--lora_dir", *map(str, places.lora)]
    if facts["compiler.lora_plugin"] != "disable":
        for name in LORA:
            words += _valued(name, facts[f"compiler.{name}"])
    if facts["compiler.speculative_decoding_mode"] != "none":
        words += _valued("speculative_decoding_mode", facts["compiler.speculative_decoding_mode"])
        words += _valued("max_draft_len", facts["compiler.max_draft_len"])
    for name in PLUGINS:
        value = facts[f"compiler.{name}"]
        words += [f"--{name}", ("enable" if value else "disable") if name in SWITCHES else str(value)]
    return words


def refit(stripped: PurePath, checkpoint: PurePath, out: PurePath) -> list[str]:
    """The arguments of `trtllm-refit`."""
    return ["--engine_dir", str(stripped), "--checkpoint_dir", str(checkpoint), "--output_dir", str(out)]


def convert(facts: Facts, places: Places, family: str) -> list[str]:
    """The arguments of a family's `convert_checkpoint.py`: of `MAPPING` those flags that it has."""
    words = _from_to(facts, places)
    words += _ranks(facts, ("tp", "pp"))
    for name in MAPPING:
        if takes(family, f"--{name}"):
            words += _valued(name, facts[f"compiler.{name}"])
    words += list(_algorithm(facts, places, family))
    if facts["quant.kv_cache"] != "auto":
        words += ["--int8_kv_cache" if facts["quant.kv_cache"] == "int8" else "--fp8_kv_cache"]
    if places.dataset is not None:
        words += ["--calib_dataset", str(places.dataset)]
        for name in CONVERTER_CALIBRATION:
            if takes(family, CALIBRATION[name]):
                words += [CALIBRATION[name], str(facts[f"compiler.{name}"])]
    return words


def _algorithm(facts: Facts, places: Places, family: str) -> Iterator[str]:
    name = NAMES[facts["quant.weights"], facts["quant.activations"], facts["quant.method"]]
    if name in ("W8A16", "W4A16"):
        yield from ("--use_weight_only", "--weight_only_precision", facts["quant.weights"])
    elif name in ("W8A16_GPTQ", "W4A16_GPTQ"):
        yield from ("--use_weight_only", "--weight_only_precision", f"{facts['quant.weights']}_gptq")
        group = ("--group_size", str(facts["quant.group_size"]))
        # Llama's converter has its own flag for the quantized checkpoint; the others read the model's folder.
        for words in (("--per_group",), group, ("--quant_ckpt_path", str(places.model))):
            yield from words if takes(family, words[0]) else ()
    elif name == "FP8_PER_CHANNEL_PER_TOKEN":
        yield "--use_fp8_rowwise"
    elif facts.get("compiler.smoothquant") is not None:
        yield from ("--smoothquant", str(facts["compiler.smoothquant"]))
        yield from (f"--{flag}" for flag in ("per_channel", "per_token") if facts[f"compiler.{flag}"])


def quantize(facts: Facts, places: Places) -> list[str]:
    """The arguments of `quantize.py`."""
    name = NAMES[facts["quant.weights"], facts["quant.activations"], facts["quant.method"]]
    words = _from_to(facts, places)
    words += [
        "--qformat",
        QFORMATS[name],
        *_ranks(facts, ("tp", "pp")),
        *_valued("cp_size", facts["compiler.cp_size"]),
    ]
    if "quant.group_size" in facts:
        words += ["--awq_block_size", str(facts["quant.group_size"])]
    if KV_CACHES[facts["quant.kv_cache"]] is not None:
        words += ["--kv_cache_dtype", facts["quant.kv_cache"]]
    if facts["compiler.quantize_lm_head"]:
        words.append("--quantize_lm_head")
    if places.dataset is not None:
        words += ["--calib_dataset", str(places.dataset)]
        for option, flag in CALIBRATION.items():
            words += [flag, str(facts[f"compiler.{option}"])]
    return words


def _from_to(facts: Facts, places: Places) -> list[str]:
    return [
        "--model_dir",
        str(places.model),
        "--output_dir",
        str(places.out),
        "--dtype",
        facts["model.dtype"],
    ]


def _ranks(facts: Facts, names: Sequence[str]) -> list[str]:
    return [word for name in names for word in (f"--{name}_size", str(facts[f"parallel.{name}"]))]


def _valued(name: str, value: Any) -> list[str]:
    """A flag with its value: one word for each item of a list, a bare flag for True, nothing if it is not set."""
    if value is None or value is False or value in ((), []):
        return []
    if value is True:
        return [f"--{name}"]
    if isinstance(value, list | tuple):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}", str(value)]
