"""The worker of the check: a checkpoint's folder is complete, by its headers. Its step has verified the content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trtbuild import untrusted
from trtbuild.compilers.modelopt.exported import Exported, entries
from trtbuild.errors import BuildError
from trtbuild.worker import Reporter, StepRequest, serve

_NEEDED = ("config.json", "tokenizer.json", "tokenizer_config.json")


def run(request: StepRequest, _out: Path, _reporter: Reporter) -> dict[str, Any]:
    """Facts of a complete checkpoint. Raises BuildError for an incomplete one."""
    folder = request.inputs["engine"]
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    if missing:
        raise BuildError(f"the checkpoint lacks {', '.join(missing)}")
    config = untrusted.read_object(folder / "config.json")
    algorithm, group = (config.get("quantization_config") or {}).get("quant_algo"), None
    if (folder / "hf_quant_config.json").is_file():
        quantized = untrusted.read_object(folder / "hf_quant_config.json")
        group = quantized["quantization"].get("group_size")
    exported = Exported(entries(folder), algorithm, group)
    return {
        "executed": False,
        "why": "servers load it (serve=trtllm, vllm, sglang); its step compared each number with the model's",
        "tensors": len(exported.entries),
    }


if __name__ == "__main__":
    serve("trtbuild.compilers.modelopt.check:run")
