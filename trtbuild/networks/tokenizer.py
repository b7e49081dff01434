"""The tokenizer of a checkpoint, in the files that `tokenizers` and onnxruntime-genai read.

A Hugging Face checkpoint's files are copied; a GGUF file's metadata become tokenizer.json and
tokenizer_config.json (`gguf_tokenizer`). For onnxruntime-genai, which misreads some, they are said otherwise
(`tokenizer_rewrite`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trtbuild.errors import InputError
from trtbuild.networks import gguf_tokenizer, tokenizer_rewrite
from trtbuild.networks.checkpoint import Checkpoint, read_json

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
)
_NEEDED = ("tokenizer.json", "tokenizer_config.json")


#: Who reads what is written: the `tokenizers` library (aot_inductor, TensorRT), or onnxruntime-genai.
RUNTIMES = ("tokenizers", "genai")


def write(checkpoint: Checkpoint, out: Path, runtime: str = "tokenizers") -> bytes:
    """Write the checkpoint's tokenizer to the folder `out`, for one of `RUNTIMES`.

    Returns tokenizer.json as `tokenizers` must read it, which the written one is to be compared with
    (`tokens.check`). Raises InputError when the checkpoint has no tokenizer that is usable.
    """
    if checkpoint.metadata is not None and "tokenizer.json" not in checkpoint.files:
        made = gguf_tokenizer.convert(checkpoint.metadata)
        _write_json(out / "tokenizer.json", made.tokenizer)
        _write_json(out / "tokenizer_config.json", made.config)
    else:
        _copy(checkpoint, out)
    content = (out / "tokenizer.json").read_bytes()
    if runtime == "genai":
        rewrite(out)
    return content


def rewrite(folder: Path) -> None:
    """Say the tokenizer in `folder` so that onnxruntime-genai reads it as `tokenizers` does. Raises InputError.

    What it does not misread stays as it is, byte for byte.
    """
    files = {name: folder / name for name in _NEEDED}
    for name, said in zip(_NEEDED, tokenizer_rewrite.files_for_genai(*_read(files)), strict=True):
        if said is not None:
            files[name].unlink()  # a copy may be read-only
            _write_json(files[name], said)


def _read(files: Mapping[str, Path]) -> tuple[dict[str, Any], dict[str, Any]]:
    return read_json(files, "tokenizer.json"), read_json(files, "tokenizer_config.json")


def _copy(checkpoint: Checkpoint, out: Path) -> None:
    for name in _NEEDED:
        if name not in checkpoint.files:
            raise InputError(
                f"the checkpoint has no {name}, so nothing could turn text into its tokens",
                option="model.source",
                hint="transformers writes it: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
            )
        read_json(checkpoint.files, name)  # refuse what no reader could parse
    for name in FILES:
        if name in checkpoint.files:
            (out / name).write_bytes(checkpoint.files[name].read_bytes())


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
