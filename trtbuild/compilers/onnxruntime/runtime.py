"""Generates text by onnxruntime-genai: for the check of a new engine, and for `trtbuild run`."""

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
from trtbuild.compilers.sampling import check_finite, check_repetition
from trtbuild.errors import BuildError, InputError
from trtbuild.networks.tokenizer import text_normalizer
from trtbuild.networks.tokenizer.special_tokens import added_of
from trtbuild.worker import Reporter, StepRequest

_CONFIG = "genai_config.json"


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: the likeliest at temperature 0, else a sample of the top `top_p`, by `seed`."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Engine:
    """A loaded engine with its tokenizer. `context` is in tokens, those of the prompt included.

    `steps` normalize a text before onnxruntime-genai tokenizes it; `added` are the tokenizer's added tokens, which they
    leave alone (`networks.tokenizer.text_normalizer`).
    """

    model: Any
    tokenizer: Any
    context: int
    load_seconds: float
    steps: tuple[str, ...]
    added: tuple[str, ...]

    @classmethod
    def load(cls, folder: Path) -> Engine:
        """Load the engine in `folder`. Raises BuildError if it does not load."""
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
        except (
            OSError,
            ValueError,
            RuntimeError,
        ) as error:  # pybind11 turns its exceptions into RuntimeError
            raise BuildError(f"onnxruntime-genai cannot load the engine: {error}") from None
        context = settings["model"]["context_length"]
        seconds = time.perf_counter() - started
        steps = text_normalizer.steps_in(texts)
        added = added_of(_json(folder / "tokenizer.json")) if steps else ()
        return cls(model, tokenizer, context, seconds, steps, tuple(token["content"] for token in added))

    def encode(self, prompt: str, raw: bool) -> list[int]:
        """The prompt's tokens. It becomes a chat turn if the model has a template, unless `raw`."""
        templated = None if raw else self._as_chat(prompt)
        # A template contains the special tokens; a plain text gets its BOS from the tokenizer.
        self.tokenizer.update_options(add_special_tokens="true" if templated is None else "false")
        text = prompt if templated is None else templated
        normal = text_normalizer.normalize(text, self.steps, self.added)
        return [int(token) for token in self.tokenizer.encode(normal)]

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
    """An answer. Seconds are wall time; those of the first token include reading the prompt."""

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
    """Generate at most `max_tokens` after `prompt`; `on_text` gets each piece, `on_logits` the logits of each token.

    Raises InputError if the prompt leaves no room in the engine's context.
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
        # 0 is the whole vocabulary; by default top_k is the model's own, which the user never sees
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
    """Generate greedily with the engine `request.inputs["engine"]`; returns facts for the record.

    Options: `prompt`, `max_tokens`, `raw`. Raises BuildError if the engine does not load, a logit is not finite, or the
    answer is empty or one token over and over.
    """
    engine = Engine.load(request.inputs["engine"])
    prompt, max_tokens = _prompt(request.options, engine)
    answer = generate_text(engine, prompt, max_tokens, Sampling(), lambda _: None, check_finite)
    if not answer.tokens:
        raise BuildError("the engine ended its answer before the first token")
    check_repetition(answer.tokens, answer.text)
    return answer.facts(engine)


def generate(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:  # noqa: ARG001
    """Generate with the engine `request.inputs["engine"]`, streamed; returns the same facts as `check`.

    Options: those of `check`, and `temperature` (0: greedy), `top_p`, `seed`.
    """
    options = request.options
    if not options["temperature"] >= 0:
        raise InputError(f"generate.temperature={options['temperature']} is below zero", option="generate.temperature")
    if not 0 < options["top_p"] <= 1:
        raise InputError(f"generate.top_p={options['top_p']} is not within (0, 1]", option="generate.top_p")
    engine = Engine.load(request.inputs["engine"])
    prompt, max_tokens = _prompt(options, engine)
    sampling = Sampling(options["temperature"], options["top_p"], options["seed"])
    return generate_text(engine, prompt, max_tokens, sampling, reporter.text).facts(engine)


def _prompt(options: Mapping[str, Any], engine: Engine) -> tuple[list[int], int]:
    prompt = engine.encode(options["prompt"], bool(options.get("raw", False)))
    if not prompt:
        raise InputError("the prompt is empty", option="prompt", hint='give one: prompt="Why is the sky blue?"')
    if options["max_tokens"] < 1:
        raise InputError(f"max_tokens={options['max_tokens']}: at least one is needed", option="generate.max_tokens")
    return prompt, options["max_tokens"]
