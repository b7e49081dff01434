"""Loads an engine on the GPU here and lets it answer: what the check and `trtbuild run` do where one fits."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trtbuild.compilers.tensorrt import speech
from trtbuild.compilers.tensorrt.build import MODULES
from trtbuild.compilers.tensorrt.device import Device
from trtbuild.compilers.tensorrt.gpu import TensorRt
from trtbuild.compilers.tensorrt.text import Text
from trtbuild.errors import BuildError, InputError
from trtbuild.networks.tensors import Array


def speak(
    folder: Path, manifest: Mapping[str, Any], options: Mapping[str, Any], on_text: Callable[[str], None]
) -> dict[str, Any]:
    """Generate with the options `prompt`, `max_tokens`, `raw`, and for sampling `temperature`, `top_p`, `seed`.

    Returns what it took. Raises InputError for a prompt that does not fit, BuildError where the engine fails.
    """
    if options["max_tokens"] < 1:
        raise InputError("at least one is needed", option=f"generate.max_tokens={options['max_tokens']}")
    started = time.perf_counter()
    trt = importlib.import_module(MODULES[manifest["compiler"]])
    machine, text = TensorRt(folder, manifest, trt, Device()), Text(folder)
    loaded = time.perf_counter()
    prompt = text.encode(options["prompt"], bool(options.get("raw", False)))
    wanted = min(options["max_tokens"], speech.room(manifest, len(prompt)))
    shapes = speech.layout(manifest, len(prompt), wanted)
    machine.prepare(shapes)
    ends, pieces, given = _ends(folder, manifest), list[str](), list[int]()

    def told(piece: str) -> None:
        pieces.append(piece)
        on_text(piece)

    take = text.stream(told)
    began = first = time.perf_counter()
    for token in speech.tokens(machine, shapes, prompt, _chooser(options)):
        if not given:
            first = time.perf_counter()
        given.append(token)
        take(token)
        if token in ends or len(given) >= wanted:
            break
    after_first = time.perf_counter() - first
    rate = (len(given) - 1) / after_first if len(given) > 1 and after_first > 0 else None
    return {
        "executed": True,
        "load_seconds": round(loaded - started, 4),
        "prompt_tokens": len(prompt),
        "tokens": len(given),
        "token_ids": given,
        "first_token_seconds": round(first - began, 4),
        "tokens_per_second": None if rate is None else round(rate, 2),
        "text": "".join(pieces),
        "engines": machine.facts(),
    }


def _chooser(options: Mapping[str, Any]) -> Callable[[Array], int]:
    temperature = float(options.get("temperature", 0.0))
    top_p = float(options.get("top_p", 1.0))
    if not temperature >= 0:
        raise InputError("it is below zero", option=f"generate.temperature={temperature}")
    if not 0 < top_p <= 1:
        raise InputError("it is not within (0, 1]", option=f"generate.top_p={top_p}")
    random = np.random.default_rng(int(options.get("seed", 0)))

    def choose(logits: Array) -> int:
        wrong = int(logits.size - np.isfinite(logits).sum())
        if wrong:
            raise BuildError(f"the engine's logits are not finite: {wrong} of {logits.size}")
        if temperature == 0:
            return int(logits.argmax())
        order = np.argsort(-logits)
        scaled = np.exp((logits[order] - logits[order[0]]).astype(np.float64) / temperature)
        shares = scaled / scaled.sum()
        kept = int(np.searchsorted(np.cumsum(shares), top_p)) + 1
        return int(random.choice(order[:kept], p=shares[:kept] / shares[:kept].sum()))

    return choose


def _ends(folder: Path, manifest: Mapping[str, Any]) -> set[int]:
    path = folder / "generation_config.json"
    ends = set(manifest["decoder"]["eos_token_ids"])
    if path.is_file():
        named = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
        ends |= set(named if isinstance(named, list) else [] if named is None else [named])
    return ends
