"""Which tensors a decoder needs, in which shapes: checked before anything is written.

Standard library only: the command line checks headers with it, before any weight is downloaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from trtbuild.errors import InputError
from trtbuild.networks.config.decoder import Decoder
from trtbuild.networks.config.fields import refuse
from trtbuild.networks.weights import strange
from trtbuild.networks.weights.naming import HEAD

Shape = tuple[int, ...]


class TensorSource(Protocol):
    """The tensors of a checkpoint by Hugging Face's names: a `Checkpoint`, or `naming.Settled` of headers alone."""

    def names(self) -> list[str]:
        """All names."""

    def shape(self, name: str) -> Shape:
        """The shape of a tensor that is there, [out, in]."""


def expected(decoder: Decoder) -> Iterator[tuple[str, Shape]]:
    """Hugging Face names and shapes ([out, in]) of all tensors that `decoder` is made of."""
    d = decoder
    yield "model.embed_tokens.weight", (d.vocab, d.hidden)
    yield "model.norm.weight", (d.hidden,)
    if not d.tied:
        yield "lm_head.weight", (d.vocab, d.hidden)
    for layer in range(d.layers):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", (d.hidden,)
        yield f"{prefix}.post_attention_layernorm.weight", (d.hidden,)
        for name, rows, columns, bias in _projections(d):
            yield f"{prefix}.{name}.weight", (rows, columns)
            if bias:
                yield f"{prefix}.{name}.bias", (rows,)
        if d.qk_norm:
            yield f"{prefix}.self_attn.q_norm.weight", (d.head_dim,)
            yield f"{prefix}.self_attn.k_norm.weight", (d.head_dim,)


def _projections(d: Decoder) -> list[tuple[str, int, int, bool]]:
    """(name, out, in, has bias) of the linear maps of one layer."""
    q, kv = d.heads * d.head_dim, d.kv_heads * d.head_dim
    return [
        ("self_attn.q_proj", q, d.hidden, d.attention_bias),
        ("self_attn.k_proj", kv, d.hidden, d.attention_bias),
        ("self_attn.v_proj", kv, d.hidden, d.attention_bias),
        ("self_attn.o_proj", d.hidden, q, d.output_bias),
        ("mlp.gate_proj", d.intermediate, d.hidden, d.mlp_bias),
        ("mlp.up_proj", d.intermediate, d.hidden, d.mlp_bias),
        ("mlp.down_proj", d.hidden, d.intermediate, d.mlp_bias),
    ]


def check_fused(decoder: Decoder) -> None:
    """Raises InputError for what GroupQueryAttention cannot run (it says so only at the first token)."""
    if decoder.head_dim % 16:
        raise refuse(
            "head_dim",
            decoder.head_dim,
            "ONNX Runtime rotates heads in multiples of 16 only",
            hint="compiler=aot_inductor builds it",
        )


def check(held: TensorSource, decoder: Decoder) -> dict[str, Shape]:
    """The expected tensors, once the checkpoint holds exactly them. Raises InputError naming the first that
    is missing, has another shape, or would be left out of the network."""
    wanted: dict[str, Shape] = {}
    names = set(held.names())
    # One by one: a config that claims a billion layers stops at the first that is missing.
    for name, shape in expected(decoder):
        wanted[name] = shape
        if name not in names:
            raise _missing(name, names, decoder)
        if held.shape(name) != shape:
            raise InputError(
                f"the checkpoint's {name} has the shape {list(held.shape(name))}, and its config asks "
                f"for {list(shape)}",
                option=strange.OPTION,
                hint="is its config.json that of another model?",
            )
    # A head that is stored a second time, equal to the embedding, is not needed.
    for name in sorted(names - set(wanted) - {HEAD}):
        why, hint = strange.explain(name, decoder.layers)
        raise InputError(
            f"the checkpoint holds {name}, which {decoder.architecture} with this config does not use: {why}",
            option=strange.OPTION,
            hint=hint,
        )
    return wanted


def _missing(name: str, names: set[str], decoder: Decoder) -> InputError:
    """transformers would fill the tensor with random numbers, and warn."""
    if name == HEAD and not any(other.startswith("lm_head") for other in names):
        return InputError(
            f"the checkpoint lacks the tensor {name}, and its config does not tie the head to the embedding "
            "(tie_word_embeddings)",
            option=strange.OPTION,
            hint="a base model saved alone (AutoModel) has no head: save AutoModelForCausalLM, or set "
            "tie_word_embeddings to true in config.json if the model's author says so",
        )
    return InputError(
        f"the checkpoint lacks the tensor {name}, which {decoder.architecture} with this config needs",
        option=strange.OPTION,
        hint="is it complete, and does its config.json belong to it?",
    )
