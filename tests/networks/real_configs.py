"""config.json as real checkpoints have it, from memory: what matters of each, and what becomes of it.

`BUILT` maps a name to (config, some of the decoder's values); `REFUSED` to (config, words of the refusal). Sizes are
the models' own; token ids and training's fields are there where the files have them.
"""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]


def _llama(**changes: Any) -> Config:
    """As LLaMA's and Llama 2's configs look in transformers 4.31 to 4.40."""
    return {
        "_name_or_path": "meta-llama/Llama-2-7b-hf",
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "initializer_range": 0.02,
        "intermediate_size": 11008,
        "max_position_embeddings": 4096,
        "model_type": "llama",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 32,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "transformers_version": "4.31.0.dev0",
        "use_cache": True,
        "vocab_size": 32000,
    } | changes


_LLAMA3_ROPE = {
    "factor": 8.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}


def _llama3(**changes: Any) -> Config:
    return (
        _llama(
            _name_or_path="meta-llama/Llama-3.1-8B-Instruct",
            attention_bias=False,
            attention_dropout=0.0,
            bos_token_id=128000,
            eos_token_id=[128001, 128008, 128009],
            intermediate_size=14336,
            max_position_embeddings=131072,
            mlp_bias=False,
            num_key_value_heads=8,
            rope_scaling=dict(_LLAMA3_ROPE),
            rope_theta=500000.0,
            torch_dtype="bfloat16",
            transformers_version="4.43.0.dev0",
            vocab_size=128256,
        )
        | changes
    )


def _mistral(**changes: Any) -> Config:
    return {
        "architectures": ["MistralForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "initializer_range": 0.02,
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "model_type": "mistral",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.34.0.dev0",
        "use_cache": True,
        "vocab_size": 32000,
    } | changes


def _qwen2(**changes: Any) -> Config:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "hidden_act": "silu",
        "hidden_size": 3584,
        "initializer_range": 0.02,
        "intermediate_size": 18944,
        "max_position_embeddings": 32768,
        "max_window_layers": 28,
        "model_type": "qwen2",
        "num_attention_heads": 28,
        "num_hidden_layers": 28,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 131072,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.43.1",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": 152064,
    } | changes


def _qwen3(**changes: Any) -> Config:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 1024,
        "initializer_range": 0.02,
        "intermediate_size": 3072,
        "max_position_embeddings": 40960,
        "max_window_layers": 28,
        "model_type": "qwen3",
        "num_attention_heads": 16,
        "num_hidden_layers": 28,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": 151936,
    } | changes


def _without(config: Config, *names: str) -> Config:
    return {name: value for name, value in config.items() if name not in names}


_YARN4 = {"factor": 4.0, "original_max_position_embeddings": 32768, "rope_type": "yarn"}

BUILT: dict[str, tuple[Config, dict[str, Any]]] = {
    "llama-1-7b": (
        _without(
            _llama(
                max_sequence_length=2048,
                pad_token_id=-1,
                transformers_version="4.27.0.dev0",
                rms_norm_eps=1e-06,
            ),
            "max_position_embeddings",
            "num_key_value_heads",
            "rope_scaling",
            "pretraining_tp",
        ),
        {
            "max_positions": 2048,
            "kv_heads": 32,
            "head_dim": 128,
            "pad_token_id": None,
            "note": "pad_token_id=-1",
        },
    ),
    "llama-2-7b-chat": (_llama(), {"tied": False, "rope.kind": "default", "max_positions": 4096}),
    "llama-2-70b": (
        _llama(
            hidden_size=8192,
            intermediate_size=28672,
            num_attention_heads=64,
            num_hidden_layers=80,
            num_key_value_heads=8,
        ),
        {"kv_heads": 8, "head_dim": 128},
    ),
    "llama-3-8b": (
        _llama3(rope_scaling=None, max_position_embeddings=8192, eos_token_id=128009),
        {"rope.theta": 500000.0, "rope.kind": "default", "eos_token_ids": (128009,)},
    ),
    "llama-3.1-8b-instruct": (
        _llama3(),
        {
            "rope.kind": "llama3",
            "rope.factor": 8.0,
            "eos_token_ids": (128001, 128008, 128009),
            "max_positions": 131072,
        },
    ),
    "llama-3.2-1b": (
        _llama3(
            head_dim=64,
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=16,
            rope_scaling=_LLAMA3_ROPE | {"factor": 32.0},
            tie_word_embeddings=True,
        ),
        {"tied": True, "head_dim": 64, "rope.factor": 32.0},
    ),
    "llama-guard-3-8b": (_llama3(quantization_config=None), {"rope.kind": "llama3"}),
    "llama-3.1-minitron-4b-width": (
        _llama3(head_dim=128, hidden_size=3072, intermediate_size=9216),
        {"head_dim": 128, "hidden": 3072},
    ),
    "llama-3-8b-gradient-1048k": (
        _llama3(rope_scaling=None, rope_theta=3580165449.0, max_position_embeddings=1048576),
        {"rope.theta": 3580165449.0, "max_positions": 1048576},
    ),
    "llama-3.2-3b-by-unsloth": (
        _llama3(
            head_dim=128,
            hidden_size=3072,
            intermediate_size=8192,
            num_attention_heads=24,
            num_hidden_layers=28,
            pad_token_id=128004,
            rope_scaling=_LLAMA3_ROPE | {"factor": 32.0},
            tie_word_embeddings=True,
            unsloth_fixed=True,
            unsloth_version="2024.9",
        ),
        {"tied": True, "pad_token_id": 128004, "heads": 24},
    ),
    "llama-by-axolotl": (
        _llama(eos_token_id=32000, vocab_size=32002, use_cache=False, _name_or_path="./out"),
        {"vocab": 32002, "eos_token_ids": (32000,)},
    ),
    "llama-by-transformers-5": (
        _without(
            _llama3(
                dtype="bfloat16",
                head_dim=128,
                rope_parameters=_LLAMA3_ROPE | {"rope_theta": 500000.0},
                transformers_version="5.2.0",
            ),
            "rope_scaling",
            "rope_theta",
            "torch_dtype",
        ),
        {"rope.kind": "llama3", "rope.theta": 500000.0},
    ),
    "vocabulary-padded-by-megatron": (
        _llama(vocab_size=32128, make_vocab_size_divisible_by=128),
        {"vocab": 32128, "note": "make_vocab_size_divisible_by"},
    ),
    "codellama-7b": (
        _llama(max_position_embeddings=16384, rope_theta=1000000, vocab_size=32016),
        {"rope.theta": 1000000.0, "vocab": 32016},
    ),
    "vicuna-7b-v1.5-16k": (
        _llama(max_sequence_length=16384, rope_scaling={"factor": 4.0, "type": "linear"}, pad_token_id=0),
        {"rope.kind": "linear", "rope.factor": 4.0, "max_positions": 4096},
    ),
    "longchat-7b-32k": (
        _llama(max_position_embeddings=32768, rope_scaling={"factor": 8.0, "type": "linear"}),
        {"rope.kind": "linear", "rope.factor": 8.0},
    ),
    "yarn-llama-2-7b-128k": (
        _llama(
            auto_map={
                "AutoConfig": "configuration_llama.LlamaConfig",
                "AutoModelForCausalLM": "modeling_llama_together_yarn.LlamaForCausalLM",
            },
            max_position_embeddings=131072,
            rope_scaling={
                "factor": 32.0,
                "finetuned": True,
                "original_max_position_embeddings": 4096,
                "type": "yarn",
            },
        ),
        {"rope.kind": "yarn", "rope.factor": 32.0, "rope.original_max_positions": 4096, "note": "auto_map"},
    ),
    "tinyllama-1.1b": (
        _llama(
            attention_bias=False,
            hidden_size=2048,
            intermediate_size=5632,
            max_position_embeddings=2048,
            num_hidden_layers=22,
            num_key_value_heads=4,
            rope_theta=10000.0,
            torch_dtype="bfloat16",
        ),
        {"kv_heads": 4, "head_dim": 64},
    ),
    "yi-34b-200k": (
        _llama(
            hidden_size=7168,
            intermediate_size=20480,
            max_position_embeddings=200000,
            num_attention_heads=56,
            num_hidden_layers=60,
            num_key_value_heads=8,
            pad_token_id=0,
            rope_theta=10000000.0,
            vocab_size=64000,
        ),
        {"heads": 56, "rope.theta": 10000000.0, "pad_token_id": 0},
    ),
    "deepseek-llm-7b": (
        _llama(
            bos_token_id=100000,
            eos_token_id=100001,
            num_hidden_layers=30,
            vocab_size=102400,
            rms_norm_eps=1e-06,
        ),
        {"vocab": 102400, "norm_eps": 1e-06},
    ),
    "deepseek-coder-6.7b": (
        _llama(
            bos_token_id=32013,
            eos_token_id=32021,
            max_position_embeddings=16384,
            rope_scaling={"factor": 4.0, "type": "linear"},
            rope_theta=100000,
            vocab_size=32256,
        ),
        {"rope.kind": "linear", "rope.theta": 100000.0},
    ),
    "deepseek-r1-distill-llama-8b": (
        _llama3(bos_token_id=128000, eos_token_id=128001),
        {"rope.kind": "llama3", "eos_token_ids": (128001,)},
    ),
    "internlm2-as-llama-dynamic": (
        _llama(
            max_position_embeddings=32768,
            num_key_value_heads=8,
            intermediate_size=14336,
            rope_scaling={"factor": 2.0, "type": "dynamic"},
            rope_theta=1000000,
            vocab_size=92544,
        ),
        {"rope.theta": 1000000.0, "note": "dynamic"},
    ),
    "baichuan-as-llama": (
        _without(
            _llama(vocab_size=64000, pad_token_id=0, rms_norm_eps=1e-06),
            "num_key_value_heads",
            "rope_scaling",
        ),
        {"kv_heads": 32},
    ),
    "smollm2-135m": (
        _llama(
            attention_bias=False,
            attention_dropout=0.0,
            bos_token_id=0,
            eos_token_id=0,
            hidden_size=576,
            initializer_range=0.041666666666666664,
            intermediate_size=1536,
            is_llama_config=True,
            max_position_embeddings=8192,
            mlp_bias=False,
            num_attention_heads=9,
            num_hidden_layers=30,
            num_key_value_heads=3,
            rope_interleaved=False,
            rope_theta=100000,
            tie_word_embeddings=True,
            vocab_size=49152,
        ),
        {"tied": True, "kv_heads": 3, "head_dim": 64},
    ),
    "granite-3b-code": (
        _llama(
            attention_bias=True,
            hidden_size=2560,
            intermediate_size=10240,
            mlp_bias=True,
            max_position_embeddings=2048,
            rope_theta=10000000,
            tie_word_embeddings=True,
            vocab_size=49152,
        ),
        {"attention_bias": True, "output_bias": True, "mlp_bias": True, "tied": True, "head_dim": 80},
    ),
    "falcon3-7b": (
        _llama(
            activation="swiglu",
            attention_bias=False,
            head_dim=256,
            hidden_size=3072,
            intermediate_size=23040,
            mlp_bias=False,
            num_attention_heads=12,
            num_hidden_layers=28,
            num_key_value_heads=4,
            rms_norm_eps=1e-06,
            rope_theta=1000042,
            vocab_size=131072,
        ),
        {"head_dim": 256, "heads": 12, "note": "activation"},
    ),
    "llama-2-7b-32k-together": (
        _llama(max_position_embeddings=32768, rope_scaling={"factor": 8.0, "type": "linear"}),
        {"rope.factor": 8.0},
    ),
    "mistral-7b-v0.1": (_mistral(), {"sliding_window": 4096, "kv_heads": 8}),
    "zephyr-7b-beta": (_mistral(pad_token_id=2, max_position_embeddings=32768), {"sliding_window": 4096}),
    "openhermes-2.5-mistral": (_mistral(vocab_size=32002, eos_token_id=32000), {"vocab": 32002}),
    "mistral-7b-instruct-v0.3": (
        _mistral(rope_theta=1000000.0, sliding_window=None, vocab_size=32768),
        {"sliding_window": None, "rope.theta": 1000000.0},
    ),
    "mistral-nemo-12b": (
        _mistral(
            head_dim=128,
            hidden_size=5120,
            max_position_embeddings=131072,
            num_hidden_layers=40,
            rope_theta=1000000.0,
            sliding_window=None,
            vocab_size=131072,
        ),
        {"head_dim": 128, "hidden": 5120},
    ),
    "ministral-8b-2410": (
        _mistral(
            head_dim=128,
            intermediate_size=12288,
            max_position_embeddings=32768,
            num_hidden_layers=36,
            rope_theta=100000000.0,
            sliding_window=32768,
            vocab_size=131072,
        ),
        {"sliding_window": None, "rope.theta": 100000000.0},
    ),
    "yarn-mistral-7b-128k": (
        _mistral(
            auto_map={"AutoModelForCausalLM": "modeling_mistral_yarn.MistralForCausalLM"},
            max_position_embeddings=32768,
            max_sequence_length=131072,
            rope_scaling={
                "factor": 16.0,
                "finetuned": True,
                "original_max_position_embeddings": 8192,
                "type": "yarn",
            },
            sliding_window=131072,
        ),
        {"rope.kind": "yarn", "rope.factor": 16.0, "sliding_window": None, "note": "auto_map"},
    ),
    "mistral-by-mergekit": (
        _mistral(_name_or_path="NousResearch/Hermes-2-Pro", num_hidden_layers=48, torch_dtype="float16"),
        {"layers": 48},
    ),
    "qwen1.5-7b": (
        _qwen2(
            hidden_size=4096,
            intermediate_size=11008,
            max_window_layers=28,
            num_attention_heads=32,
            num_hidden_layers=32,
            num_key_value_heads=32,
            sliding_window=32768,
            vocab_size=151936,
        ),
        {"sliding_window": None, "attention_bias": True, "output_bias": False},
    ),
    "qwen2.5-7b-instruct": (_qwen2(), {"sliding_window": None, "kv_heads": 4}),
    "qwen2.5-0.5b": (
        _qwen2(
            hidden_size=896,
            intermediate_size=4864,
            max_window_layers=24,
            num_attention_heads=14,
            num_hidden_layers=24,
            num_key_value_heads=2,
            sliding_window=32768,
            tie_word_embeddings=True,
            use_mrope=False,
        ),
        {"tied": True, "head_dim": 64},
    ),
    "qwen2.5-7b-instruct-yarn": (
        _qwen2(rope_scaling={"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}),
        {"rope.kind": "yarn", "rope.original_max_positions": 32768},
    ),
    "qwq-32b": (
        _qwen2(
            hidden_size=5120,
            intermediate_size=27648,
            max_position_embeddings=40960,
            max_window_layers=64,
            num_attention_heads=40,
            num_hidden_layers=64,
            num_key_value_heads=8,
            pad_token_id=151643,
            sliding_window=32768,
        ),
        {"sliding_window": None, "layers": 64},
    ),
    "deepseek-r1-distill-qwen-1.5b": (
        _qwen2(
            bos_token_id=151646,
            eos_token_id=151643,
            hidden_size=1536,
            intermediate_size=8960,
            max_position_embeddings=131072,
            max_window_layers=21,
            num_attention_heads=12,
            num_key_value_heads=2,
            rope_theta=10000,
            sliding_window=4096,
            use_mrope=False,
            vocab_size=151936,
        ),
        {"sliding_window": None, "rope.theta": 10000.0},
    ),
    "qwen3-0.6b": (_qwen3(), {"qk_norm": True, "head_dim": 128, "tied": True, "attention_bias": False}),
    "qwen3-8b-yarn": (
        _qwen3(
            hidden_size=4096,
            intermediate_size=12288,
            num_attention_heads=32,
            num_hidden_layers=36,
            rope_scaling=dict(_YARN4),
            tie_word_embeddings=False,
        ),
        {"rope.kind": "yarn", "rope.factor": 4.0, "max_positions": 40960},
    ),
    "qwen3-by-transformers-4.57": (
        _qwen3(dtype="bfloat16", layer_types=["full_attention"] * 28),
        {"sliding_window": None},
    ),
    "qwen3-by-transformers-5": (
        _without(
            _qwen3(
                dtype="bfloat16",
                layer_types=["full_attention"] * 28,
                pad_token_id=None,
                rope_parameters={"rope_theta": 1000000, "rope_type": "default"},
                transformers_version="5.1.0",
            ),
            "rope_scaling",
            "rope_theta",
            "torch_dtype",
        ),
        {"rope.theta": 1000000.0},
    ),
    "qwen3-embedding-0.6b": (_qwen3(max_position_embeddings=32768, vocab_size=151669), {"vocab": 151669}),
    "qwen3-4b-instruct-2507": (
        _qwen3(
            hidden_size=2560,
            intermediate_size=9728,
            max_position_embeddings=262144,
            max_window_layers=36,
            num_attention_heads=32,
            num_hidden_layers=36,
            rope_theta=5000000,
        ),
        {"rope.theta": 5000000.0, "heads": 32},
    ),
}

REFUSED: dict[str, tuple[Config, tuple[str, ...]]] = {
    "llama-1-by-decapoda": (
        _llama(architectures=["LLaMAForCausalLM"]),
        ("architectures='LLaMAForCausalLM'",),
    ),
    "mixtral-8x7b": (
        _mistral(
            architectures=["MixtralForCausalLM"],
            model_type="mixtral",
            num_local_experts=8,
            num_experts_per_tok=2,
        ),
        ("architectures='MixtralForCausalLM'",),
    ),
    "mixtral-that-is-called-mistral": (
        _mistral(num_local_experts=8, num_experts_per_tok=2, router_aux_loss_coef=0.02),
        ("num_local_experts=8", "experts"),
    ),
    "mixtral-with-mistral-s-class": (
        _mistral(model_type="mixtral", num_local_experts=8),
        ("model_type='mixtral'",),
    ),
    "mistral-small-3.1": (
        {
            "architectures": ["Mistral3ForConditionalGeneration"],
            "model_type": "mistral3",
            "text_config": _mistral(),
        },
        ("architectures='Mistral3ForConditionalGeneration'",),
    ),
    "llama-3.2-11b-vision": (
        {
            "architectures": ["MllamaForConditionalGeneration"],
            "model_type": "mllama",
            "text_config": _llama3(),
        },
        ("architectures='MllamaForConditionalGeneration'",),
    ),
    "llama-4-scout": (
        {"architectures": ["Llama4ForConditionalGeneration"], "model_type": "llama4", "text_config": {}},
        ("architectures='Llama4ForConditionalGeneration'",),
    ),
    "llama-as-a-classifier": (
        _llama(architectures=["LlamaForSequenceClassification"]),
        ("architectures='LlamaForSequenceClassification'",),
    ),
    "llama-as-a-base-model": (_llama(architectures=["LlamaModel"]), ("architectures='LlamaModel'",)),
    "phi-3-as-llama": (
        _llama(hidden_size=3072, intermediate_size=8192, sliding_window=2047, vocab_size=32064),
        ("sliding_window=2047",),
    ),
    "llama-longrope": (
        _llama(
            max_position_embeddings=131072,
            original_max_position_embeddings=4096,
            rope_scaling={"type": "longrope", "short_factor": [1.0] * 64, "long_factor": [2.0] * 64},
        ),
        ("rope_scaling.short_factor", "4096 tokens"),
    ),
    "llama-su": (
        _llama(rope_scaling={"type": "su", "short_factor": [1.0] * 64, "long_factor": [2.0] * 64}),
        ("rope_scaling.rope_type='su'",),
    ),
    "llama-awq": (
        _llama(quantization_config={"bits": 4, "group_size": 128, "quant_method": "awq", "zero_point": True}),
        ("quantization_config.quant_method='awq'",),
    ),
    "llama-gptq": (
        _llama(quantization_config={"bits": 4, "group_size": 128, "quant_method": "gptq", "desc_act": False}),
        ("quant_method='gptq'",),
    ),
    "llama-fp8-by-llm-compressor": (
        _llama3(
            quantization_config={
                "config_groups": {},
                "format": "float-quantized",
                "quant_method": "compressed-tensors",
            }
        ),
        ("quant_method='compressed-tensors'",),
    ),
    "llama-w4a16-by-older-llm-compressor": (
        _llama3(compression_config={"format": "pack-quantized", "quant_method": "compressed-tensors"}),
        ("compression_config",),
    ),
    "llama-bnb-4bit-by-unsloth": (
        _llama3(
            quantization_config={"load_in_4bit": True, "quant_method": "bitsandbytes"},
            unsloth_version="2024.9",
        ),
        ("quant_method='bitsandbytes'",),
    ),
    "llama-4bit-by-mlx": (
        _llama3(quantization={"group_size": 64, "bits": 4}, quantization_config={"group_size": 64, "bits": 4}),
        ("quantization",),
    ),
    "qwen3-8b-fp8": (
        _qwen3(quantization_config={"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8"}),
        ("quant_method='fp8'",),
    ),
    "gte-qwen2-1.5b": (
        _qwen2(is_causal=False, auto_map={"AutoModel": "modeling_qwen.Qwen2Model"}),
        ("is_causal=False", "left to right"),
    ),
    "llm2vec-llama": (_llama(use_bidirectional_attention=True), ("use_bidirectional_attention=True",)),
    "qwen2.5-7b-instruct-1m": (
        _qwen2(
            dual_chunk_attention_config={
                "chunk_size": 262144,
                "local_size": 8192,
                "original_max_position_embeddings": 262144,
            },
            max_position_embeddings=1010000,
            rope_theta=10000000.0,
            sliding_window=32768,
        ),
        ("dual_chunk_attention_config=",),
    ),
    "qwen2-vl-s-rope": (
        _qwen2(rope_scaling={"type": "mrope", "mrope_section": [16, 24, 24]}),
        ("rope_scaling.rope_type='mrope'",),
    ),
    "qwen2-vl": (
        _qwen2(architectures=["Qwen2VLForConditionalGeneration"], model_type="qwen2_vl", vision_config={}),
        ("architectures='Qwen2VLForConditionalGeneration'",),
    ),
    "qwen2-windows-on-some-layers": (
        _qwen2(use_sliding_window=True, sliding_window=4096, max_window_layers=21),
        ("max_window_layers=21", "not supported"),
    ),
    "qwen3-moe": (
        _qwen3(architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", num_experts=128),
        ("architectures='Qwen3MoeForCausalLM'",),
    ),
    "granite-that-is-called-llama": (
        _llama(
            attention_multiplier=0.015625,
            embedding_multiplier=12.0,
            logits_scaling=8.0,
            residual_multiplier=0.22,
        ),
        ("_multiplier=", "trained without"),
    ),
    "minicpm-that-is-called-llama": (
        _llama(scale_emb=12, scale_depth=1.4, dim_model_base=256),
        ("scale_", "not supported"),
    ),
    "smollm3-that-is-called-llama": (
        _llama3(no_rope_layers=[1, 1, 1, 0] * 8, no_rope_layer_interval=4),
        ("no_rope_layer",),
    ),
    "stablelm-s-rotary-share": (_llama(partial_rotary_factor=0.25), ("partial_rotary_factor=0.25",)),
    "internlm-s-bias-in-llama": (_llama(bias=True), ("bias=True",)),
    "gemma-2": (
        {"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "hidden_size": 2304},
        ("architectures='Gemma2ForCausalLM'",),
    ),
    "a-folder-without-architecture": ({"model_type": "bert"}, ("names no architecture",)),
    "a-config-without-sizes": (
        {"architectures": ["LlamaForCausalLM"]},
        ("hidden_size=None",),
    ),
}
