"""Which tensors a decoder needs, in which shapes: checked before anything is written."""

from __future__ import annotations

import re
from collections.abc import Iterator

from trtbuild.errors import InputError
from trtbuild.networks.architectures import Decoder
from trtbuild.networks.checkpoint import Checkpoint

Shape = tuple[int, ...]

# Buffers that old checkpoints carry along and that transformers recomputes too.
_IGNORED = re.compile(r".*\.(rotary_emb\.inv_freq|attn\.masked_bias|self_attn\.bias)")


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


def check(checkpoint: Checkpoint, decoder: Decoder) -> dict[str, Shape]:
    """The expected tensors, once the checkpoint holds exactly them. Raises InputError naming the first that
    is missing, has another shape, or would be left out of the network."""
    wanted: dict[str, Shape] = {}
    found = set(checkpoint.names())
    # One by one: a config that claims a billion layers stops at the first that is missing.
    for name, shape in expected(decoder):
        wanted[name] = shape
        if name not in found:
            raise InputError(
                f"the checkpoint lacks the tensor {name}, which {decoder.architecture} with this config needs",
                option="model.source",
                hint="is it complete, and does its config.json belong to it?",
            )
        if checkpoint.shape(name) != shape:
            raise InputError(
                f"the checkpoint's {name} has the shape {list(checkpoint.shape(name))}, and its config asks "
                f"for {list(shape)}",
                option="model.source",
                hint="is its config.json that of another model?",
            )
    # A tied head may be stored a second time; the embedding is what counts, as in transformers.
    for name in sorted(found - set(wanted) - {"lm_head.weight"}):
        if not _IGNORED.fullmatch(name):
            raise InputError(
                f"the checkpoint holds {name}, which {decoder.architecture} with this config does not use",
                option="model.source",
                hint="is its config.json that of another model?",
            )
    return wanted
