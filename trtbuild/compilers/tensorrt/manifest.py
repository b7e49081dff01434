"""engine.json: what a program needs to load the engines beside it and to call them.

    compiler, release        the library that made them: the same release has to load them ("tensorrt_rtx", "1.7.1.116")
    compute_capability       of the GPUs that they run on; null for a portable engine (8.0 and later)
    dtype                    of activations, logits, cache and attention_bias: float16, bfloat16 or float32
    options                  the compiler options of the build
    weights, group_size      how linear maps are stored: none (as dtype), int8, int4
    limits                   max_batch_size, max_input_len, max_seq_len
    decoder                  layers, kv_heads, head_dim, vocab, sliding_window, bos_token_id, eos_token_ids
    masked                   what attention_bias holds where a token may not look; 0 elsewhere
    engines                  for each file: static or not; network_layers, before the builder joined any; inputs and
                             outputs (name, dtype, shape; -1 where it varies); phases in the order of its optimization
                             profiles: name (decode, prefill, any), [least, typical, greatest] of batch, tokens, past

Tensors: `input_ids` and `position_ids` [batch, tokens] int32; `attention_bias` [batch, 1, tokens, past + tokens];
`past_key_values.{layer}.{key|value}` [batch, kv_heads, past, head_dim]. Out come `logits` [batch, tokens, vocab] and,
for the new tokens alone, `new.{layer}.{key|value}` [batch, kv_heads, tokens, head_dim], keys already rotated: the host
writes them to the cache, in any slots that the bias of later steps unmasks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtbuild import untrusted
from trtbuild.compilers.tensorrt.shapes import ProfileLimits, Range, ShapePlan
from trtbuild.errors import BuildError
from trtbuild.networks.config.decoder import Decoder

FILE = "engine.json"
SCHEMA = 1
MASKED = -30000.0  # within float16, and below every score by far

Json = dict[str, Any]


def describe(
    options: Mapping[str, Any],
    decoder: Decoder,
    limits: ProfileLimits,
    plans: tuple[ShapePlan, ...],
    answer: Json,
) -> Json:
    """The content of engine.json, from the step's options and the builder's answer."""
    built = {engine["file"]: engine for engine in answer["engines"]}
    return {
        "schema": SCHEMA,
        "compiler": options["compiler.name"],
        "release": answer["version"],
        "compute_capability": options.get("target.compute_capability"),
        "dtype": options["model.dtype"],
        "options": {
            name.removeprefix("compiler."): value
            for name, value in sorted(options.items())
            if name.startswith("compiler.") and name != "compiler.name"
        },
        "weights": options["quant.weights"],
        "group_size": options.get("quant.group_size"),
        "limits": {
            "max_batch_size": limits.batch,
            "max_input_len": limits.input,
            "max_seq_len": limits.sequence,
        },
        "decoder": {
            "layers": decoder.layers,
            "kv_heads": decoder.kv_heads,
            "head_dim": decoder.head_dim,
            "vocab": decoder.vocab,
            "sliding_window": decoder.sliding_window,
            "bos_token_id": decoder.bos_token_id,
            "eos_token_ids": list(decoder.eos_token_ids),
        },
        "masked": MASKED,
        "engines": [{**_engine(plan), **built[plan.file]} for plan in plans],
    }


def _engine(plan: ShapePlan) -> Json:
    phases = [
        {
            "name": phase.name,
            "batch": _extent(phase.batch),
            "tokens": _extent(phase.tokens),
            "past": _extent(phase.past),
        }
        for phase in plan.phases
    ]
    return {"static": plan.static, "phases": phases}


def _extent(extent: Range) -> list[int]:
    return [extent.least, extent.typical, extent.greatest]


def write(content: Json, folder: Path) -> None:
    (folder / FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read(folder: Path) -> Json:
    """The content that `write` wrote. Raises BuildError if it cannot be read, or has another schema."""
    try:
        content: Json = untrusted.parse_object(untrusted.read_bytes(folder / FILE))
    except (OSError, ValueError) as error:
        raise BuildError(f"{FILE} cannot be read: {error}") from None
    if content.get("schema") != SCHEMA:
        raise BuildError(f"{FILE} is of schema {content.get('schema')}, and {SCHEMA} is known here")
    return content
