"""Which models onnxruntime-genai's own builder (0.18.0, with transformers 5.17) gets right: asked when planning.

A family is in `PROVEN` only if tests/reference/test_genai_families.py builds a tiny model of it and finds the
logits of transformers. `REFUSED` has the builder's other architectures, each with the reason.
Standard library only. Defaults of absent fields are those of transformers' config classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trtbuild.errors import InputError
from trtbuild.networks.config import architectures
from trtbuild.networks.config.fields import Config
from trtbuild.networks.genai.rules import (
    Family,
    Reason,
    Values,
    epsilon,
    gpt_oss,
    granite_hybrid,
    hunyuan,
    natively,
    original_of,
    phi3,
    phi3_longrope,
    rope_of,
    rope_type,
    windows,
)

#: onnxruntime-genai reads the whole sequence anew when it grows beyond this length, for Phi-3 with longrope alone
#: (its Generator has the number built in). Beyond any other, cached keys keep the rotation of the short factors.
_REREAD_AT = 4096


_GELU = ("gelu_pytorch_tanh", "gelu")

PROVEN: Mapping[str, Family] = {
    "Ernie4_5ForCausalLM": Family("ernie4_5"),
    "Gemma2ForCausalLM": Family(
        "gemma2",
        activations=("gelu_pytorch_tanh",),
        knows=frozenset({"attn_logit_softcapping", "final_logit_softcapping", "layer_types", "hidden_activation"}),
        scaled_embedding=True,
    ),
    "GemmaForCausalLM": Family("gemma", activations=_GELU, scaled_embedding=True),
    "GptOssForCausalLM": Family(
        "gpt_oss",
        ropes=("default", "yarn"),
        only={"swiglu_limit": (7.0,)},
        knows=frozenset({"layer_types"}),
        also=gpt_oss,
    ),
    "GraniteForCausalLM": Family("granite"),
    "GraniteMoeHybridForCausalLM": Family("granitemoehybrid", knows=frozenset({"layer_types"}), also=granite_hybrid),
    "HunYuanDenseV1ForCausalLM": Family(
        "hunyuan_v1_dense", ropes=("default", "dynamic"), whole_heads=False, also=hunyuan
    ),
    "Lfm2ForCausalLM": Family("lfm2", only={"conv_bias": (False,)}, knows=frozenset({"layer_types"})),
    "Lfm2MoeForCausalLM": Family(
        "lfm2_moe",
        only={"conv_bias": (False,), "norm_topk_prob": (True,)},
        knows=frozenset({"layer_types", "moe_intermediate_size"}),
    ),
    "LlamaForCausalLM": Family("llama", ropes=("default", "llama3"), also=natively),
    "MistralForCausalLM": Family("mistral", also=natively, given=windows(4096)),
    "NemotronForCausalLM": Family(
        "nemotron",
        activations=("relu2",),
        only={"mlp_bias": (False,)},
        partial=0.5,
        given=epsilon("norm_eps"),
    ),
    "Phi3ForCausalLM": Family("phi3", ropes=("default", "longrope"), partial=1.0, also=phi3_longrope, given=phi3),
    "PhiForCausalLM": Family(
        "phi",
        activations=("gelu_new", "gelu"),
        only={"qk_layernorm": (False,)},
        partial=0.5,
        given=epsilon("layer_norm_eps"),
    ),
    "Qwen2ForCausalLM": Family("qwen2", knows=frozenset({"layer_types"}), also=natively),
    "Qwen3ForCausalLM": Family("qwen3", knows=frozenset({"layer_types"}), also=natively),
}

_OWN_CODE = "it needs code that lies in the checkpoint (trust_remote_code), and trtbuild does not run that"
_MULTIMODAL = "it is multimodal, and trtbuild builds text-only decoders"
_SPEECH = "it is a speech model, and trtbuild builds text-only decoders"

REFUSED: Mapping[str, str] = {
    "ChatGLMForConditionalGeneration": _OWN_CODE,
    "ChatGLMModel": _OWN_CODE,
    "Gemma3ForCausalLM": "it fails: KeyError 'rope_type'",
    "Gemma3ForConditionalGeneration": _MULTIMODAL,
    "Gemma4ForConditionalGeneration": _MULTIMODAL,
    "Gemma4UnifiedForConditionalGeneration": _MULTIMODAL,
    "InternLM2ForCausalLM": _OWN_CODE,
    "Lfm2AudioForConditionalGeneration": _SPEECH,
    "Lfm2VlForConditionalGeneration": _MULTIMODAL,
    "Mistral3ForConditionalGeneration": _MULTIMODAL,
    "OlmoForCausalLM": "it gives other logits: it computes RMSNorm where Olmo has LayerNorm",
    "Phi3SmallForCausalLM": _OWN_CODE,
    "Phi3VForCausalLM": _MULTIMODAL,
    "Phi4MMForCausalLM": _MULTIMODAL,
    "PhiMoEForCausalLM": "it makes this one for CUDA in int4 alone, and not for CPUs in float32",
    "Qwen2_5_VLForConditionalGeneration": _MULTIMODAL,
    "Qwen3VLForConditionalGeneration": _MULTIMODAL,
    "Qwen3_5ForConditionalGeneration": _MULTIMODAL,
    "Qwen3_5MoeForConditionalGeneration": _MULTIMODAL,
    "SmolLM3ForCausalLM": "it fails at layers without rope: KeyError 'position_ids'",
    "VideoChatFlashQwenForCausalLM": _MULTIMODAL,
    "WhisperForConditionalGeneration": _SPEECH,
}

# Read by the builder of any config, and by transformers of the families that know them.
_READ_OF_ANY: Mapping[str, Values] = {
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "layer_types": (None,),
    "moe_intermediate_size": (None,),
    "ffn_hidden_size": (None,),
    "multi_query_group_num": (None,),
    "seq_length": (None,),
    "rope_embedding_base": (None,),
    "rope_position_scale": (None, 1, 1.0),
    "compression_ratio": (None, 1, 1.0),
    "text_config": (None,),
    "peft_type": (None,),
}
_CAUSAL: Mapping[str, Values] = {"is_causal": (None, True), "use_bidirectional_attention": (None, False)}
_PARTIAL = "partial_rotary_factor"


def check(config: Config) -> None:
    """Raises InputError for a model that the builder gets wrong or lacks, with the reason."""
    architecture = architectures.architecture_of(config)
    reason = refusal(config)
    if reason is not None:
        raise InputError(
            f"onnxruntime-genai 0.18's builder cannot be used for this {architecture}: {reason}",
            option="model.source",
            hint=f"its logits are right for {', '.join(sorted(PROVEN))}, and trtbuild's own definition has "
            f"{', '.join(architectures.SUPPORTED)}",
        )


def refusal(config: Config) -> Reason:
    """Why the builder is not used for a parsed config.json; None where its logits are those of transformers.

    Raises InputError for what trtbuild's own definition of the same architecture refuses.
    """
    architecture = architectures.architecture_of(config)
    if architecture not in PROVEN:
        return REFUSED.get(architecture, "it lacks this architecture")
    family = PROVEN[architecture]
    if config.get("model_type", family.model_type) != family.model_type:
        return f"model_type={config['model_type']!r} is another family's than architectures={architecture!r}"
    if config.get("quantization_config"):
        return "its weights are quantized already: start from the unquantized checkpoint"
    return family.also(config) or _fields(config, family) or _rotation(config, family)


def given(config: Config) -> Mapping[str, Any]:
    """Fields that the builder needs besides those of config.json, so that its logits are right."""
    return PROVEN[architectures.architecture_of(config)].given(config)


def embedding_scale(config: Config) -> float | None:
    """What embeddings are multiplied by, where the builder rounds that to two decimals."""
    family = PROVEN[architectures.architecture_of(config)]
    return float(config.get("hidden_size", 0)) ** 0.5 if family.scaled_embedding else None


def longest(config: Config) -> int | None:
    """The tokens up to which an engine is right, prompt included, where that is less than the model's context."""
    if architectures.architecture_of(config) != "Phi3ForCausalLM" or rope_type(config) == "default":
        return None
    original = original_of(config)
    return None if original == _REREAD_AT else int(original)


def _fields(config: Config, family: Family) -> Reason:
    read = {name: values for name, values in _READ_OF_ANY.items() if name not in family.knows}
    for name, values in {**_CAUSAL, **read, **family.only}.items():
        value = config.get(name, values[0])
        if value not in values:
            return f"it fails or gives other logits with {name}={value!r}"
    act = config.get("hidden_activation") or config.get("hidden_act") or family.activations[0]
    if act not in family.activations:
        return f"the activation {act!r} was not compared with transformers"
    plain = config.get("hidden_act")
    if "hidden_activation" not in family.knows and plain is not None and act != plain:
        return f"it takes hidden_activation={act!r} where transformers takes hidden_act={plain!r}"
    return None


def _rotation(config: Config, family: Family) -> Reason:
    kind = rope_type(config)
    if kind not in family.ropes:
        return f"its logits with a rope of type {kind!r} are not proven"
    share = config.get(_PARTIAL, rope_of(config).get(_PARTIAL))
    if family.partial is None and share not in (None, 1, 1.0):
        return f"it gives other logits with {_PARTIAL}={share!r}"
    size = _head(config)
    if not family.whole_heads or size is None:
        return None
    turned = int(size * (share or family.partial or 1.0))
    if size % 16 or turned % 16:
        return f"its attention takes heads and rotations in steps of 16 dimensions, and these are {size} and {turned}"
    return None


def _head(config: Config) -> int | None:
    if isinstance(config.get("head_dim"), int):
        return int(config["head_dim"])
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    return hidden // heads if isinstance(hidden, int) and isinstance(heads, int) and heads > 0 else None
