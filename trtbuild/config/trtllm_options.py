"""The options of `compiler=tensorrt_llm`, by the names that TensorRT-LLM's own tools give them.

Each is a flag of one of those tools; `tests/compilers/tensorrt_llm` holds names, types, defaults and choices to the
contract that `trtbuild/compilers/tensorrt_llm` carries. `schema` adds what all compilers have.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class PluginType(Enum):
    auto = "auto"
    float16 = "float16"
    float32 = "float32"
    bfloat16 = "bfloat16"
    int32 = "int32"
    disable = "disable"


class GemmPlugin(Enum):
    auto = "auto"
    float16 = "float16"
    float32 = "float32"
    bfloat16 = "bfloat16"
    int32 = "int32"
    fp8 = "fp8"
    nvfp4 = "nvfp4"
    disable = "disable"


class Fp8Plugin(Enum):
    fp8 = "fp8"
    disable = "disable"


class AllReducePlugin(Enum):
    float16 = "float16"
    bfloat16 = "bfloat16"
    disable = "disable"


class KvCacheType(Enum):
    continuous = "continuous"
    paged = "paged"
    disabled = "disabled"


class ProfilingVerbosity(Enum):
    layer_names_only = "layer_names_only"
    detailed = "detailed"
    none = "none"


class LogitsType(Enum):
    float16 = "float16"
    float32 = "float32"


class LoraSource(Enum):
    hf = "hf"
    nemo = "nemo"


class Speculative(Enum):
    none = "none"
    draft_tokens_external = "draft_tokens_external"
    lookahead_decoding = "lookahead_decoding"
    medusa = "medusa"
    explicit_draft_tokens = "explicit_draft_tokens"
    eagle = "eagle"


class CheckpointBy(Enum):
    auto = "auto"
    modelopt = "modelopt"
    scripts = "scripts"


class CalibrationDevice(Enum):
    cpu = "cpu"
    cuda = "cuda"


class CalibrationLevel(Enum):
    x86_64_v3 = "x86_64_v3"
    x86_64_v4 = "x86_64_v4"
    aarch64 = "aarch64"


@dataclass
class ModelOptOptions:
    """Our own options: the maker of the checkpoint; for ModelOpt, the excluded layers and the calibration text."""

    checkpoint_by: CheckpointBy = CheckpointBy.auto
    exclude_modules: list[str] = field(default_factory=list)
    calib_device: CalibrationDevice = CalibrationDevice.cpu
    calib_level: CalibrationLevel = CalibrationLevel.x86_64_v3
    threads: int = 1


@dataclass
class CheckpointOptions:
    """Of convert_checkpoint.py and quantize.py."""

    cp_size: int = 1
    moe_tp_size: int = -1
    moe_ep_size: int = -1
    use_parallel_embedding: bool = False
    embedding_sharding_dim: int = 0
    smoothquant: float | None = None
    per_channel: bool = False
    per_token: bool = False
    quantize_lm_head: bool = False
    calib_dataset: str | None = None
    calib_size: int = 512
    calib_batch_size: int = 1
    calib_max_seq_length: int = 512
    tokenizer_max_seq_length: int = 2048
    random_seed: int = 1234


@dataclass
class PluginOptions:
    """Of trtllm-build: its PluginConfig."""

    bert_attention_plugin: PluginType = PluginType.auto
    gpt_attention_plugin: PluginType = PluginType.auto
    gemm_plugin: GemmPlugin = GemmPlugin.disable
    gemm_swiglu_plugin: Fp8Plugin = Fp8Plugin.disable
    fp8_rowwise_gemm_plugin: PluginType = PluginType.disable
    nccl_plugin: PluginType = PluginType.auto
    lora_plugin: PluginType = PluginType.disable
    dora_plugin: bool = False
    moe_plugin: PluginType = PluginType.auto
    mamba_conv1d_plugin: PluginType = PluginType.auto
    low_latency_gemm_plugin: Fp8Plugin = Fp8Plugin.disable
    low_latency_gemm_swiglu_plugin: Fp8Plugin = Fp8Plugin.disable
    gemm_allreduce_plugin: AllReducePlugin = AllReducePlugin.disable
    context_fmha: bool = True
    bert_context_fmha_fp32_acc: bool = False
    remove_input_padding: bool = True
    norm_quant_fusion: bool = False
    reduce_fusion: bool = False
    user_buffer: bool = False
    tokens_per_block: int = 32
    use_paged_context_fmha: bool = True
    use_fp8_context_fmha: bool = True
    fuse_fp4_quant: bool = False
    multiple_profiles: bool = False
    paged_state: bool = True
    streamingllm: bool = False
    use_fused_mlp: bool = True
    pp_reduce_scatter: bool = False


@dataclass
class BuildOptions:
    """Of trtllm-build: its BuildConfig and LoraConfig."""

    max_beam_width: int = 1
    opt_num_tokens: int | None = None
    max_encoder_input_len: int = 1024
    max_prompt_embedding_table_size: int = 0
    kv_cache_type: KvCacheType = KvCacheType.paged
    profiling_verbosity: ProfilingVerbosity = ProfilingVerbosity.layer_names_only
    strip_plan: bool = False
    weight_sparsity: bool = False
    weight_streaming: bool = False
    fast_build: bool = False
    enable_debug_output: bool = False
    logits_dtype: LogitsType | None = None
    gather_context_logits: bool = False
    gather_generation_logits: bool = False
    lora_dir: list[str] = field(default_factory=list)
    lora_ckpt_source: LoraSource = LoraSource.hf
    lora_target_modules: list[str] = field(default_factory=list)
    max_lora_rank: int = 64
    speculative_decoding_mode: Speculative = Speculative.none
    max_draft_len: int = 0


@dataclass
class TensorRtLlmOptions(PluginOptions, BuildOptions, CheckpointOptions, ModelOptOptions):
    """All of them, and the image whose tools run where executor=container."""

    image: str | None = None
