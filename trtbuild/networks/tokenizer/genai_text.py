"""The tokenizer that onnxruntime-genai makes of a folder's files, before there is a model to load beside it.

onnxruntime-genai gives a tokenizer only to a loaded model, so a graph of two copies stands in for one.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnxruntime_genai as genai
from onnx import TensorProto, helper

from trtbuild.errors import InputError

#: Files that onnxruntime-genai reads for its tokenizer and its chat template.
FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
_CACHE = [f"{name}.0.{kind}" for name in ("past_key_values", "present") for kind in ("key", "value")]


@contextmanager
def opened(folder: Path, model: dict[str, Any] | None = None) -> Iterator[Any]:
    """An `onnxruntime_genai.Tokenizer` over the tokenizer files in `folder`.

    `model` are fields for the section `model` of genai_config.json, such as `bos_token_id`. Raises InputError with
    onnxruntime-genai's own words where it cannot read the files.
    """
    with tempfile.TemporaryDirectory(prefix="tokenizer-") as scratch:
        work = Path(scratch)
        for name in FILES:
            if (folder / name).is_file():
                (work / name).symlink_to((folder / name).absolute())
        (work / "model.onnx").write_bytes(_graph())
        (work / "genai_config.json").write_text(json.dumps(_config(model or {})), encoding="utf-8")
        try:
            tokenizer = genai.Tokenizer(genai.Model(str(work)))
        except RuntimeError as error:  # what pybind11 makes of theirs
            raise InputError(
                f"onnxruntime-genai cannot read the model's tokenizer: {' '.join(str(error).split())}",
                option="model.source",
                hint="build it with compiler=aot_inductor, which speaks with the tokenizers library itself",
            ) from None
        yield tokenizer


def _graph() -> bytes:
    floats, ids = TensorProto.FLOAT, TensorProto.INT64
    inputs = [helper.make_tensor_value_info(n, ids, ["b", "s"]) for n in ("input_ids", "attention_mask")]
    inputs += [helper.make_tensor_value_info(name, floats, ["b", 1, "t", 2]) for name in _CACHE[:2]]
    outputs = [helper.make_tensor_value_info("logits", floats, ["b", "s", 1])]
    outputs += [helper.make_tensor_value_info(name, floats, ["b", 1, "t", 2]) for name in _CACHE[2:]]
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["cast"], to=floats),
        helper.make_node("Unsqueeze", ["cast", "axis"], ["logits"]),
        *(helper.make_node("Identity", [one], [other]) for one, other in zip(_CACHE[:2], _CACHE[2:], strict=True)),
    ]
    axis = helper.make_tensor("axis", ids, [1], [2])
    graph = helper.make_graph(nodes, "tokenizer", inputs, outputs, [axis])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _config(model: dict[str, Any]) -> dict[str, Any]:
    decoder = {
        "session_options": {"provider_options": []},
        "filename": "model.onnx",
        "head_size": 2,
        "hidden_size": 2,
        "num_attention_heads": 1,
        "num_hidden_layers": 1,
        "num_key_value_heads": 1,
        "inputs": {"input_ids": "input_ids", "attention_mask": "attention_mask"}
        | {f"past_{kind}_names": f"past_key_values.%d.{kind}" for kind in ("key", "value")},
        "outputs": {"logits": "logits"} | {f"present_{kind}_names": f"present.%d.{kind}" for kind in ("key", "value")},
    }
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    whole = {"type": "llama", "vocab_size": 3, "context_length": 16, "decoder": decoder, **ids, **model}
    return {"model": whole, "search": {"max_length": 16}}
