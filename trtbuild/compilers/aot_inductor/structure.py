"""What an engine's code depends on of a model, and the tensors that it wants: sizes and switches, and no weight.

Standard library only: the command line makes keys of it, and the workers make modules, files and checks of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from trtbuild.networks.config.decoder import Decoder

#: The prefix of its fields among a step's facts.
PREFIX = "network."
#: How linear maps may be stored: as the activations, 8 bits a row with a scale, 4 bits a group with scale and zero, or
#: as ModelOpt's FP8, in E4M3 with a scale of the matrix and one of what goes into it.
SCHEMES = ("none", "int8", "int4", "fp8")
SCALES, SCALE = "scales.table", 4
_WITH_EMBEDDING = ("int8", "int4")
#: Bytes, a line of the cache: of PyTorch's kernels those for AVX-512 read a quarter of it at once, and crash elsewhere.
ALIGNED = 64


@dataclass(frozen=True)
class Structure:
    """Of a decoder, what the code of an engine is made from.

    Rotary frequencies are not here: they are a tensor, so that models with other ones share an engine. Nor is the
    architecture's name: Llama and Mistral of one structure are one engine.
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
    """How weights are stored: `weights` of `SCHEMES`, `group_size` along a row for int4, and of the rest the dtype.

    With `embedding` the embedding and the head are 8 bits a row, too, in int8 and int4.
    """

    weights: str
    group_size: int | None
    embedding: bool
    dtype: str  # float32, float16 or bfloat16

    @property
    def small(self) -> bool:
        """Whether the embedding and the head are 8 bits a row."""
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
    """One that an engine wants: its type in torch's words, and its shape."""

    dtype: str
    shape: tuple[int, ...]


def tensors(structure: Structure, scheme: WeightScheme) -> dict[str, TensorSpec]:
    """All that an engine wants, by name, as they stand in its weights' file.

    Names are Hugging Face's, with q, k and v as one matrix `qkv_proj` and gate and up as one `gate_up_proj`.
    """
    s, dtype = structure, scheme.dtype
    found: dict[str, TensorSpec] = {}
    small = scheme.small
    found |= _rows("model.embed_tokens", s.vocab, s.hidden, dtype, small)
    for layer in range(s.layers):
        prefix = f"model.layers.{layer}"
        found[f"{prefix}.input_layernorm.weight"] = TensorSpec(dtype, (s.hidden,))
        found[f"{prefix}.post_attention_layernorm.weight"] = TensorSpec(dtype, (s.hidden,))
        for name, rows, columns, bias in linears(s):
            found |= _linear(f"{prefix}.{name}", rows, columns, scheme)
            if bias:
                found[f"{prefix}.{name}.bias"] = TensorSpec(dtype, (rows,))
        if s.qk_norm:
            found[f"{prefix}.self_attn.q_norm.weight"] = TensorSpec(dtype, (s.head_dim,))
            found[f"{prefix}.self_attn.k_norm.weight"] = TensorSpec(dtype, (s.head_dim,))
    found["model.norm.weight"] = TensorSpec(dtype, (s.hidden,))
    if not s.tied:
        found |= _rows("lm_head", s.vocab, s.hidden, dtype, small)
    if scheme.weights == "fp8":
        # Of each linear map that of its input and the largest of its weights; one matrix for the same reason as below,
        # and each four times, as cuBLAS wants the place of a scale in multiples of 16 bytes.
        found[SCALES] = TensorSpec("float32", (len(JOINED) * s.layers, 2 * SCALE))
    # Frequencies and the factor of each, as one matrix: the compiler would put a vector of eight values into the code.
    found["rotary.table"] = TensorSpec("float32", (2, s.head_dim // 2))
    return found


def place(layer: int, name: str) -> int:
    """The row of `SCALES` of a linear map of that layer."""
    return len(JOINED) * layer + list(JOINED).index(name)


def linears(structure: Structure) -> Iterator[tuple[str, int, int, bool]]:
    """(name, out, in, has bias) of the linear maps of one layer."""
    s = structure
    query, key = s.heads * s.head_dim, s.kv_heads * s.head_dim
    yield "self_attn.qkv_proj", query + 2 * key, s.hidden, s.attention_bias
    yield "self_attn.o_proj", s.hidden, query, s.output_bias
    yield "mlp.gate_up_proj", 2 * s.intermediate, s.hidden, s.mlp_bias
    yield "mlp.down_proj", s.hidden, s.intermediate, s.mlp_bias


#: of `linears` -> the maps of Hugging Face's that stand in it, one below the other
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
        found = {f"{name}.weight": TensorSpec("float8_e4m3fn", (rows, columns))}
        if (
            len(JOINED[name.split(".", 3)[3]]) > 1
        ):  # each has a scale of its own: a share of the largest, by row
            found[f"{name}.shares"] = TensorSpec("float32", (rows,))
        return found
    if scheme.weights != "int4":
        return _rows(name, rows, columns, scheme.dtype, scheme.weights == "int8")
    groups = columns // (scheme.group_size or columns)
    return {
        f"{name}.weight": TensorSpec("uint8", (rows, columns // 2)),
        f"{name}.groups": TensorSpec(scheme.dtype, (groups, rows, 2)),
    }
