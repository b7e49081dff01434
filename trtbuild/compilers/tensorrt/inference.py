"""Loads an engine on this machine's GPU and generates text, for the check and `trtbuild run`."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trtbuild.compilers.cuda import CudaDevice
from trtbuild.compilers.sampling import answer, end_tokens, token_sampler
from trtbuild.compilers.tensorrt import call_schedule
from trtbuild.compilers.tensorrt.builder import MODULES
from trtbuild.compilers.tensorrt.gpu import TensorRt
from trtbuild.compilers.text import Text
from trtbuild.errors import InputError


def generate_text(
    folder: Path, manifest: Mapping[str, Any], options: Mapping[str, Any], on_text: Callable[[str], None]
) -> dict[str, Any]:
    """Generate with the options `prompt`, `max_tokens`, `raw`, and for sampling `temperature`, `top_p`, `seed`.

    Returns facts for the record. Raises InputError for a prompt that does not fit, BuildError if the engine fails.
    """
    if options["max_tokens"] < 1:
        raise InputError("at least one is needed", option=f"generate.max_tokens={options['max_tokens']}")
    started = time.perf_counter()
    trt = importlib.import_module(MODULES[manifest["compiler"]])
    machine, text = TensorRt(folder, manifest, trt, CudaDevice()), Text(folder)
    loaded = time.perf_counter()
    prompt = text.encode(options["prompt"], bool(options.get("raw", False)))
    wanted = min(options["max_tokens"], call_schedule.room(manifest, len(prompt)))
    shapes = call_schedule.layout(manifest, len(prompt), wanted)
    machine.prepare(shapes)
    tokens = call_schedule.tokens(machine, shapes, prompt, token_sampler(options))
    ends = end_tokens(folder, manifest["decoder"]["eos_token_ids"])
    return {
        "executed": True,
        "load_seconds": round(loaded - started, 4),
        "prompt_tokens": len(prompt),
        **answer(tokens, text, ends, wanted, on_text),
        "engines": machine.facts(),
    }
