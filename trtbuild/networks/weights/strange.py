"""What the tensors are that no decoder is made of: leftovers that change nothing, and signs of another kind of model.

Standard library only: the command line says this from headers alone, before any weight is downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from trtbuild.errors import InputError

OPTION = "model.source"
#: Buffers that old checkpoints carry along -> why they change nothing. transformers passes over all of them.
_LEFTOVERS: Mapping[str, str] = {
    r"(.*\.)?rotary_emb\.inv_freq": "rotary frequencies, which are made from the config",
    r"(.*\.)?rotary_emb\.(cos|sin)_cached": "a rotary table, which is made from the config",
    r"(.*\.)?(self_attn|attn|attention)\.(bias|masked_bias)": "a causal mask, which is made from the positions",
    r"(.*\.)?(position_ids|causal_mask)": "a table of positions, which is made anew",
}
_INTEGERS = re.compile(r"BOOL|[IU]\d+")
#: The end of a tensor's name -> the method whose weights have such tensors; the first that fits is said.
_METHODS: tuple[tuple[str, str], ...] = (
    (r"\.(g_idx)", "GPTQ"),
    (r"\.(qweight|qzeros)", "GPTQ or AWQ"),
    (
        r"\.(absmax|nested_absmax|quant_map|nested_quant_map|quant_state\..+|SCB|weight_format)",
        "bitsandbytes",
    ),
    (r"\.(weight_packed|weight_zero_point|weight_shape|weight_g_idx)", "compressed-tensors"),
    (r"\.weight_scale_inv", "FP8 with a scale a block"),
    (r"\.(W_q|W_q\..+)", "HQQ"),
    (r"\.(codebooks|codes)", "AQLM"),
    (r"\.weight\._(data|scale|shift|zeropoint)", "Quanto"),
    (r"\.weight_scales", "EETQ"),
    (r"(_blocks|_scales)", "MXFP4"),
    (
        r"\.(weight_scale|weight_scale_2|weight_global_scale|input_scale|input_global_scale|output_scale"
        r"|activation_scale|act_scale|pre_quant_scale|[kv]_scale|[kv]_proj\.output_scale)",
        "FP8, NVFP4 or INT8 with scales",
    ),
    (r"\.(scales|biases)", "GPTQ, AWQ or MLX"),
)
_QUANTIZED = [(re.compile(f".*{end}"), method) for end, method in _METHODS]
#: An adapter's own matrices, by PEFT's names (peft/tuners: LoRA, DoRA, IA3, LoHa, LoKr, VeRA, prompts).
_ADAPTER = re.compile(
    r".*(\.lora_[ab]|\.lora_(A|B|embedding_A|embedding_B|magnitude_vector)(\..+)?|\.ia3_l(\..+)?|\.(hada|lokr|oft|boft|vera)_\w+(\..+)?)"
    r"|prompt_embeddings|(.*\.)?prompt_encoder\..+"
)
MERGE = (
    "merge the adapter into its base first: model = peft.AutoPeftModelForCausalLM.from_pretrained(FOLDER), then "
    "model.merge_and_unload().save_pretrained(OUT), and the tokenizer's files beside it"
)
_MERGE_GGUF = "merge it into its base first, with llama.cpp's llama-export-lora"
UNQUANTIZED = "start from the checkpoint that it was quantized from, or from a GGUF of it: model.source"
#: What a tensor's name says that it is of -> what to do about it.
_PARTS: tuple[tuple[str, str, str], ...] = (
    (
        r"(.*\.)?(vision|visual|vision_model|vision_tower|vision_encoder|multi_modal_projector|mm_projector"
        r"|image_newline|audio_tower|audio_encoder|embed_vision|aligner|connector)(\..+|)",
        "is of a vision or audio part",
        "only the language model can be built: save it alone with transformers, as model.language_model",
    ),
    (
        r"(model\.)?(score|classifier|reward_head|value_head|v_head|qa_outputs|classification_head|dense|projection)\..+",
        "is of a head that scores or classifies, which no text generation uses",
        "choose the causal language model that it was made from",
    ),
    (
        r"(.*\.)?(mtp|mtp_block|nextn|eh_proj|enorm|hnorm|shared_head|medusa_head|eagle)(\..+|)",
        "is of a head that guesses several tokens ahead, which is not built",
        "take the checkpoint without it",
    ),
    (
        r"(.*\.)?(experts|gate|shared_expert|router|block_sparse_moe)(\..+|)",
        "is of a mixture of experts, which is not built",
        "is its config.json that of another model?",
    ),
    (
        r"(optimizer|state|lr_scheduler|exp_avg)(\..+|)",
        "is of a training state",
        "save the model alone: model.save_pretrained(FOLDER)",
    ),
)


def kind(name: str) -> str:
    """What a type of safetensors that no plain weights have stands for, as half a sentence."""
    if name.startswith("F8"):
        return "this is a checkpoint quantized to FP8"
    if name.startswith(("F4", "F6")):
        return "this is a checkpoint quantized to 4 or 6 bits"
    return "this type is of quantized weights, or of no weights"


def leftover(name: str, kind: str) -> str | None:
    """Why a stored tensor that no decoder is made of changes nothing; None when it may."""
    for pattern, reason in _LEFTOVERS.items():
        if re.fullmatch(pattern, name):
            return reason
    if _INTEGERS.fullmatch(kind):
        return f"values of the type {kind}, and no weight of a decoder is of such"
    return None


def refuse_adapter(names: Iterable[str], file: str) -> None:
    """Raises InputError when a weight file called `file` holds an adapter's matrices, merged into nothing."""
    for name in names:
        if _ADAPTER.fullmatch(name):
            raise InputError(
                f"{file} holds {name}, a matrix of an adapter that is not merged into its base",
                option=OPTION,
                hint=_MERGE_GGUF if file.endswith(".gguf") else MERGE,
            )


def refuse_quantized(kinds: Mapping[str, str], file: str) -> None:
    """Raises InputError when the tensors (name -> type) of `file` are of a checkpoint that was quantized."""
    for pattern, method in _QUANTIZED:
        for name in kinds:
            if pattern.fullmatch(name):
                raise InputError(
                    f"{file} holds {name}: the checkpoint is quantized already ({_told(method, kinds)})",
                    option=OPTION,
                    hint=UNQUANTIZED,
                )


def _told(method: str, kinds: Mapping[str, str]) -> str:
    """GPTQ lists the group of each row (g_idx), AWQ does not; MLX has no packed zeros."""
    if method.startswith("GPTQ or"):
        return "GPTQ" if any(name.endswith(".g_idx") for name in kinds) else "GPTQ or AWQ"
    if method.endswith("MLX") and any(name.endswith(".biases") for name in kinds):
        return "MLX"
    return method


def explain(name: str, layers: int) -> tuple[str, str]:
    """(what is wrong with a decoder of `layers` layers holding it, the way out), of a tensor that none uses."""
    beyond = re.match(r"model\.layers\.(\d+)\.", name)
    if beyond and int(beyond[1]) >= layers:
        return (
            f"the config has num_hidden_layers={layers}, and layer {beyond[1]} would be left out (a head that guesses "
            "several tokens ahead is often stored so)",
            "if the model has more layers, mend num_hidden_layers in config.json; else save the model again with "
            "transformers, which leaves the rest out",
        )
    for pattern, what, mend in _PARTS:
        if re.fullmatch(pattern, name):
            return f"it {what}", mend
    return "nothing here would use it", "is its config.json that of another model?"
