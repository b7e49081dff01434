"""Loads an engine with its weights and generates text, for the check and `trtbuild run`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from trtbuild import untrusted
from trtbuild.compilers.aot_inductor import package_loader
from trtbuild.compilers.sampling import answer, end_tokens, token_sampler
from trtbuild.compilers.text import Text
from trtbuild.errors import BuildError, InputError
from trtbuild.networks.weights.arrays import Array

_STRIDE = 64  # the cache has a multiple of it as slots, for fewer shapes


def generate_text(
    folder: Path, about: Mapping[str, Any], options: Mapping[str, Any], on_text: Callable[[str], None]
) -> dict[str, Any]:
    """Generate with the options `prompt`, `max_tokens`, `raw`, and for sampling `temperature`, `top_p`, `seed`.

    Returns facts for the record. Raises InputError for a prompt that does not fit, BuildError if the engine fails.
    """
    if options["max_tokens"] < 1:
        raise InputError("at least one is needed", option=f"generate.max_tokens={options['max_tokens']}")
    choose, text = token_sampler(options), Text(folder)
    if threads := os.environ.get("TRTBUILD_THREADS"):
        torch.set_num_threads(int(threads))
    if about["device"] == "cuda":
        torch.zeros(1, device="cuda")  # create the context before the clock starts
    started = time.perf_counter()
    package = package_loader.open_package(folder / about["package"])
    opened = time.perf_counter()
    if about["weights"] is not None:
        weights = package_loader.read(folder / about["weights"], about["device"])
        package_loader.give(package, {**weights, **package_loader.scalars(about["scalars"], about["device"])})
    loaded = time.perf_counter()
    prompt = text.encode(options["prompt"], bool(options.get("raw", False)))
    most = _room(about["limits"], len(prompt), options["max_tokens"])
    tokens = _tokens(package, about, prompt, most, choose)
    ends = end_tokens(folder, _config_ends(folder))
    return {
        "executed": True,
        "load_seconds": round(loaded - started, 4),
        "open_seconds": round(opened - started, 4),
        "prompt_tokens": len(prompt),
        **answer(tokens, text, ends, most, on_text),
    }


def _room(limits: Mapping[str, int], prompt: int, wanted: int) -> int:
    if prompt > limits["max_input_len"]:
        raise InputError(
            f"the prompt has {prompt} tokens, and the engine takes {limits['max_input_len']}",
            option="prompt",
            hint="shorten the prompt, or build with a larger profile.max_input_len",
        )
    return min(wanted, limits["max_seq_len"] - prompt)


def _tokens(
    package: Any, about: Mapping[str, Any], prompt: list[int], most: int, choose: Callable[[Array], int]
) -> Iterator[int]:
    """Tokens of the answer, without end; the cache has room for `most` of them."""
    device, s = about["device"], about["structure"]
    slots = min(about["limits"]["max_seq_len"], -(-(len(prompt) + most) // _STRIDE) * _STRIDE)
    shape, dtype = (s["kv_heads"], slots, s["head_dim"]), getattr(torch, about["cache_dtype"])
    caches = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(2 * s["layers"])]
    ids, at = torch.tensor(prompt, device=device), torch.arange(len(prompt), device=device)
    while True:
        try:
            (logits,) = package.boxed_run([ids, at, *caches])
        except RuntimeError as error:
            raise BuildError(f"the engine fails: {str(error).splitlines()[0]}") from None
        token = choose(logits.cpu().numpy())
        yield token
        ids, at = torch.tensor([token], device=device), at[-1:] + 1


def _config_ends(folder: Path) -> list[int]:
    ids = untrusted.read_object(folder / "config.json").get("eos_token_id")
    return ids if isinstance(ids, list) else [] if ids is None else [ids]
