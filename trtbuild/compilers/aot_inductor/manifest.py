"""engine.json: what a program needs to load the package beside it, and to call it.

    package                    model.pt2, of PyTorch's ahead-of-time Inductor
    weights                    the weights file; null if they are in the package
    torch, cuda                the releases that it was compiled with: the same torch has to load it; cuda null on a CPU
    device                     cpu or cuda
    level                      of the CPU that it is for (x86_64_v3, x86_64_v4); null on a GPU
    compute_capability         of the GPU that it is for ("9.0"); null on a CPU
    compiler                   the C++ compiler that was used, for people
    dtype, cache_dtype         of activations, and of keys and values
    scheme                     how weights are stored: weights (none, int8, int4, fp8), group_size, embedding
    structure                  sizes and switches of the decoder
    limits                     max_input_len, tokens of a call; max_seq_len, slots of the cache
    constants                  name, dtype and shape of each tensor of the file; `packed` if the code wants it packed
                               for its device (torch's _convert_weight_to_int4pack and …_for_cpu)
    scalars                    the compiler's own constants, which the code wants, too: name and value

Inputs of a call: ids, positions [tokens] int64; the keys of each layer, then the values of each, [kv_heads, slots,
head_dim], which are changed in place. Its output are the logits [vocab] float32 of the last token.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trtbuild import untrusted
from trtbuild.errors import BuildError

FILE = "engine.json"
PACKAGE = "model.pt2"
WEIGHTS = "model.safetensors"
SCHEMA = 2

Json = dict[str, Any]


def write(content: Json, folder: Path) -> None:
    text = json.dumps({"schema": SCHEMA, **content}, indent=1)
    (folder / FILE).write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> Json:
    """The content that `write` wrote. Raises BuildError if it cannot be read, or has another schema."""
    try:
        content: Json = untrusted.parse_object(untrusted.read_bytes(folder / FILE))
    except (OSError, ValueError) as error:
        raise BuildError(f"{FILE} cannot be read: {error}") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise BuildError(f"{FILE} is of another schema than {SCHEMA}, which is known here")
    return content
