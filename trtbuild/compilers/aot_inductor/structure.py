"""The structure of a decoder, which decides an engine's code, and the tensors that the code wants. No weights.

Standard library only: the command line makes keys of it; the workers make modules, files and checks of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from trtbuild.networks.config.decoder import Decoder

#: The prefix of its fields among a step's facts.
PREFIX = "network."
#: How linear maps are stored: as activations; in 8 bits with a scale per row; in 4 bits with scale and zero per group,
#: or as ModelOpt's FP8 (E4M3) with a scale of the matrix and one of its input.
SCHEMES = ("none", "int8", "int4", "fp8")
SCALES, SCALE = "scales.table", 4
_WITH_EMBEDDING = ("int8", "int4")
#: Bytes, a cache line: PyTorch's AVX-512 kernels read a quarter of it at once, and crash at other addresses.
ALIGNED = 64


@dataclass(frozen=True)
class Structure:
    """The sizes and switches of a decoder that decide an engine's code.

    Rotary frequencies are a tensor instead, so that models with other frequencies share an engine. The architecture's
    name is left out, too: Llama and Mistral of one structure share an engine.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    norm_eps: float
    tied: bool
    attention_bias: bool  # of q, k and v
    output_bias: bool  # of o
    mlp_bias: bool
    qk_norm: bool
    sliding_window: int | None

    @classmethod
    def of(cls, decoder: Decoder) -> Structure:
        return cls(**{field.name: getattr(decoder, field.name) for field in fields(cls)})

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> Structure:
        """From a step's facts."""
        return cls(**{field.name: facts[PREFIX + field.name] for field in fields(cls)})

    def facts(self) -> dict[str, int | float | bool | None]:
        return {PREFIX + name: value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class WeightScheme:
    """How weights are stored: `weights` is one of `SCHEMES`, `group_size` counts values along a row for int4.

    `dtype` is that of all else. With `embedding`, int8 and int4 store the embedding and the head in 8 bits.
    """

    weights: str
    group_size: int | None
    embedding: bool
    dtype: str  # float32, float16 or bfloat16

    @property
    def small(self) -> bool:
        """Whether the embedding and the head are stored in 8 bits."""
        return self.embedding and self.weights in _WITH_EMBEDDING

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> WeightScheme:
        """From a step's facts."""
        return cls(
            weights=facts["quant.weights"],
            group_size=facts.get("quant.group_size"),
            embedding=bool(facts.get("quant.embedding", False)),
            dtype=facts["model.dtype"],
        )


@dataclass(frozen=True)
class TensorSpec:
    """A tensor that an engine wants: its type by torch's name, and its shape."""

    dtype: str
    shape: tuple[int, ...]


def tensors(structure: Structure, scheme: WeightScheme) -> dict[str, TensorSpec]:
    """All tensors that an engine wants, by name, as its weights file has them.

    Names are Hugging Face's, with q, k and v as one matrix `qkv_proj` and gate and up as one `gate_up_proj`.
    """
    s, dtype = structure, scheme.dtype
    specs: dict[str, TensorSpec] = {}
    small = scheme.small
    specs |= _rows("model.embed_tokens", s.vocab, s.hidden, dtype, small)
    for layer in range(s.layers):
        prefix = f"model.layers.{layer}"
        specs[f"{prefix}.input_layernorm.weight"] = TensorSpec(dtype, (s.hidden,))
        specs[f"{prefix}.post_attention_layernorm.weight"] = TensorSpec(dtype, (s.hidden,))
        for name, rows, columns, bias in linears(s):
            specs |= _linear(f"{prefix}.{name}", rows, columns, scheme)
            if bias:
                specs[f"{prefix}.{name}.bias"] = TensorSpec(dtype, (rows,))
        if s.qk_norm:
            specs[f"{prefix}.self_attn.q_norm.weight"] = TensorSpec(dtype, (s.head_dim,))
            specs[f"{prefix}.self_attn.k_norm.weight"] = TensorSpec(dtype, (s.head_dim,))
    specs["model.norm.weight"] = TensorSpec(dtype, (s.hidden,))
    if not s.tied:
        specs |= _rows("lm_head", s.vocab, s.hidden, dtype, small)
    if scheme.weights == "fp8":
        # For each linear map the scale of its input and the largest scale of its weights. Each stands four times, as
        # cuBLAS wants a scale's address to be a multiple of 16 bytes. One matrix, for the reason below.
        specs[SCALES] = TensorSpec("float32", (len(JOINED) * s.layers, 2 * SCALE))
    # Frequencies and their factor as one matrix: the compiler would put a vector of eight values into the code.
    specs["rotary.table"] = TensorSpec("float32", (2, s.head_dim // 2))
    return specs


def place(layer: int, name: str) -> int:
    """The row of `SCALES` for the linear map `name` of a layer."""
    return len(JOINED) * layer + list(JOINED).index(name)


def linears(structure: Structure) -> Iterator[tuple[str, int, int, bool]]:
    """(name, outputs, inputs, has bias) of each linear map of a layer."""
    s = structure
    query, key = s.heads * s.head_dim, s.kv_heads * s.head_dim
    yield "self_attn.qkv_proj", query + 2 * key, s.hidden, s.attention_bias
    yield "self_attn.o_proj", s.hidden, query, s.output_bias
    yield "mlp.gate_up_proj", 2 * s.intermediate, s.hidden, s.mlp_bias
    yield "mlp.down_proj", s.hidden, s.intermediate, s.mlp_bias


#: Each of `linears` -> Hugging Face's linear maps that it joins, one below the other.
JOINED: Mapping[str, tuple[str, ...]] = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
}


def _rows(name: str, rows: int, columns: int, dtype: str, small: bool) -> dict[str, TensorSpec]:
    if not small:
        return {f"{name}.weight": TensorSpec(dtype, (rows, columns))}
    return {
        f"{name}.weight": TensorSpec("int8", (rows, columns)),
        f"{name}.scales": TensorSpec(dtype, (rows,)),
    }


def _linear(name: str, rows: int, columns: int, scheme: WeightScheme) -> dict[str, TensorSpec]:
    if scheme.weights == "fp8":
        specs = {f"{name}.weight": TensorSpec("float8_e4m3fn", (rows, columns))}
        # Each joined map has its own scale: by row, its share of the largest.
        if len(JOINED[name.split(".", 3)[3]]) > 1:
            specs[f"{name}.shares"] = TensorSpec("float32", (rows,))
        return specs
    if scheme.weights != "int4":
        return _rows(name, rows, columns, scheme.dtype, scheme.weights == "int8")
    groups = columns // (scheme.group_size or columns)
    return {
        f"{name}.weight": TensorSpec("uint8", (rows, columns // 2)),
        f"{name}.groups": TensorSpec(scheme.dtype, (groups, rows, 2)),
    }
