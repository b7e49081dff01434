"""Lets an engine speak through onnxruntime-genai: the check of a new one, and `trtbuild run`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as genai

from trtbuild import untrusted
from trtbuild.errors import BuildError, InputError
from trtbuild.networks.tokenizer import text_normalizer
from trtbuild.networks.tokenizer.special_tokens import added_of
from trtbuild.worker import Reporter, StepRequest

_CONFIG = "genai_config.json"


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: temperature 0 takes the likeliest, else top_p of the mass at that seed."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Engine:
    """A loaded engine with its tokenizer. `context` is in tokens, the prompt's included.

    `steps` are done to a text before onnxruntime-genai is asked for its tokens, with `added`, the tokenizer's added
    tokens (`networks.text_normalizer`).
    """

    model: Any
    tokenizer: Any
    context: int
    load_seconds: float
    steps: tuple[str, ...]
    added: tuple[str, ...]

    @classmethod
    def load(cls, folder: Path) -> Engine:
        """Load the engine in `folder`. Raises BuildError."""
        started = time.perf_counter()
        try:
            settings, texts = (_json(folder / name) for name in (_CONFIG, "tokenizer_config.json"))
            config = genai.Config(str(folder))
            threads = os.environ.get("TRTBUILD_THREADS")
            if threads is not None:
                session = {"session_options": {"intra_op_num_threads": int(threads)}}
                config.overlay(json.dumps({"model": {"decoder": session}}))
            model = genai.Model(config)
            tokenizer = genai.Tokenizer(model)
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError is what pybind11 makes of theirs
            raise BuildError(f"onnxruntime-genai cannot load the engine: {error}") from None
        context = settings["model"]["context_length"]
        seconds = time.perf_counter() - started
        steps = text_normalizer.steps_in(texts)
        added = added_of(_json(folder / "tokenizer.json")) if steps else ()
        return cls(model, tokenizer, context, seconds, steps, tuple(token["content"] for token in added))

    def encode(self, prompt: str, raw: bool) -> list[int]:
        """The prompt's tokens: as one turn of a chat where the model has a template, unless `raw`."""
        templated = None if raw else self._as_chat(prompt)
        # A template spells the special tokens out; a plain text gets its BOS from the tokenizer.
        self.tokenizer.update_options(add_special_tokens="true" if templated is None else "false")
        text = prompt if templated is None else templated
        given = text_normalizer.normalize(text, self.steps, self.added)
        return [int(token) for token in self.tokenizer.encode(given)]

    def _as_chat(self, prompt: str) -> str | None:
        messages = json.dumps([{"role": "user", "content": prompt}])
        try:
            return str(self.tokenizer.apply_chat_template(messages=messages, add_generation_prompt=True))
        except RuntimeError as error:
            if "chat template" in str(error).lower() and "empty" in str(error).lower():
                return None  # a base model: it continues the text
            raise BuildError(f"the model's chat template cannot be applied: {error}") from None


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = untrusted.read_object(path)
    return content


@dataclass(frozen=True)
class GeneratedText:
    """What came out. Seconds are wall time; the first token's include reading the prompt."""

    prompt_tokens: int
    tokens: tuple[int, ...]
    first_token_seconds: float
    seconds: float
    text: str

    def facts(self, engine: Engine) -> dict[str, Any]:
        after_first = self.seconds - self.first_token_seconds
        speed = (len(self.tokens) - 1) / after_first if len(self.tokens) > 1 and after_first > 0 else None
        return {
            "load_seconds": round(engine.load_seconds, 4),
            "prompt_tokens": self.prompt_tokens,
            "tokens": len(self.tokens),
            "first_token_seconds": round(self.first_token_seconds, 4),
            "tokens_per_second": None if speed is None else round(speed, 2),
            "text": self.text,
        }


def generate_text(
    engine: Engine,
    prompt: list[int],
    max_tokens: int,
    sampling: Sampling,
    on_text: Callable[[str], None],
    on_logits: Callable[[Any], None] | None = None,
) -> GeneratedText:
    """Generate up to `max_tokens` after `prompt`; `on_logits` sees those of each step.

    Raises InputError when the prompt leaves no room in the engine's context.
    """
    room = engine.context - len(prompt)
    if room < 1:
        raise InputError(
            f"the prompt has {len(prompt)} tokens, and the engine's context is {engine.context}",
            option="prompt",
            hint="shorten the prompt, or build with a larger profile.max_seq_len",
        )
    pieces: list[str] = []
    tokens: list[int] = []
    decode = engine.tokenizer.create_stream()
    started = time.perf_counter()
    first = started
    for token in _tokens(engine, prompt, len(prompt) + min(max_tokens, room), sampling, on_logits):
        if not tokens:
            first = time.perf_counter()
        tokens.append(token)
        pieces.append(decode.decode(token))
        on_text(pieces[-1])
    ended = time.perf_counter()
    return GeneratedText(len(prompt), tuple(tokens), first - started, ended - started, "".join(pieces))


def _tokens(
    engine: Engine,
    prompt: list[int],
    max_length: int,
    sampling: Sampling,
    on_logits: Callable[[Any], None] | None,
) -> Iterator[int]:
    parameters = genai.GeneratorParams(engine.model)
    options: dict[str, Any] = {"max_length": max_length, "do_sample": sampling.temperature > 0}
    if sampling.temperature > 0:
        # all of the vocabulary: top_k would otherwise be the model's own, unseen by the user
        options |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        options |= {"random_seed": sampling.seed}
    parameters.set_search_options(**options)
    generator = genai.Generator(engine.model, parameters)
    generator.append_tokens(np.array(prompt, np.int32))
    while not generator.is_done():
        if on_logits is not None:
            on_logits(generator.get_logits())
        generator.generate_next_token()
        yield int(generator.get_next_tokens()[0])


def check(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:  # noqa: ARG001
    """Greedy text from the engine `request.inputs["engine"]`; returns how it did.

    Options: `prompt`, `max_tokens`, `raw`. Raises BuildError when the engine does not load, when a logit is
    not finite, or when nothing or one token over and over comes out.
    """
    engine = Engine.load(request.inputs["engine"])
    prompt, max_tokens = _asked(request.options, engine)
    spoken = generate_text(engine, prompt, max_tokens, Sampling(), lambda _: None, _finite)
    if not spoken.tokens:
        raise BuildError("the engine ended its answer before the first token")
    if len(spoken.tokens) >= 8 and len(set(spoken.tokens)) == 1:
        raise BuildError(
            f"the engine repeats one token, {spoken.tokens[0]}, {len(spoken.tokens)} times: {spoken.text[:80]!r}"
        )
    return spoken.facts(engine)


def generate(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:  # noqa: ARG001
    """Text from the engine `request.inputs["engine"]`, streamed; returns the same facts as `check`.

    Options: as `check`, and `temperature` (0: greedy), `top_p`, `seed`.
    """
    options = request.options
    if not options["temperature"] >= 0:
        raise InputError(
            f"generate.temperature={options['temperature']} is below zero", option="generate.temperature"
        )
    if not 0 < options["top_p"] <= 1:
        raise InputError(f"generate.top_p={options['top_p']} is not within (0, 1]", option="generate.top_p")
    engine = Engine.load(request.inputs["engine"])
    prompt, max_tokens = _asked(options, engine)
    sampling = Sampling(options["temperature"], options["top_p"], options["seed"])
    return generate_text(engine, prompt, max_tokens, sampling, reporter.text).facts(engine)


def _asked(options: Mapping[str, Any], engine: Engine) -> tuple[list[int], int]:
    prompt = engine.encode(options["prompt"], bool(options.get("raw", False)))
    if not prompt:
        raise InputError(
            "the prompt is empty", option="prompt", hint='give one: prompt="Why is the sky blue?"'
        )
    if options["max_tokens"] < 1:
        raise InputError(
            f"max_tokens={options['max_tokens']}: at least one is needed", option="generate.max_tokens"
        )
    return prompt, options["max_tokens"]


def _finite(logits: Any) -> None:
    wrong = int(np.size(logits) - np.isfinite(logits).sum())
    if wrong:
        raise BuildError(f"the engine's logits are not finite: {wrong} of {np.size(logits)}")
