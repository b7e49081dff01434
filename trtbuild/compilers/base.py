"""What a compiler is to trtbuild: a value, with a function that makes its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trtbuild.errors import InputError
from trtbuild.facts.key import TOOL, Step, Worker
from trtbuild.facts.recipe import Recipe, Tools, Value, frozen
from trtbuild.networks import NETWORK_VERSION
from trtbuild.networks.config.decoder import Decoder
from trtbuild.targets import Kind
from trtbuild.toolchains.lock import Lock

#: The step that compilers share whose engines start from an ONNX graph.
NETWORK = Worker("trtbuild.networks", NETWORK_VERSION)
#: The step that compilers share whose tools read a Hugging Face folder: it unpacks a GGUF into one.
UNPACK = Worker("trtbuild.networks.unpack", 2)


def _accept(*_arguments: object) -> None:
    """The check of a compiler that refuses nothing."""


def _nothing(_argument: object) -> Sequence[str]:
    """The notes of a compiler that has none."""
    return ()


@dataclass(frozen=True)
class Hardware:
    """What a compiler builds for. The building machine may differ from the target in the facts `cross_built`."""

    kinds: frozenset[Kind]
    cross_built: frozenset[str] = frozenset()
    portable: bool = False  # also builds for a class of GPUs, such as target=rtx_any

    @property
    def ahead_of_time(self) -> bool:
        """Whether nothing of the target has to be in the building machine."""
        return "target.kind" in self.cross_built


@dataclass(frozen=True)
class Requirements:
    """What has to be installed for a compiler's steps, and where they can run."""

    package: str  # the distribution whose release is `compiler.version`
    extra: str  # of trtbuild, that installs it
    toolchains: tuple[str, ...]  # of conf/toolchain, that the steps run in
    separate: tuple[str, ...] = ()  # of these, those that `compiler.packages` does not apply to
    cxx: bool = False  # its steps start a C++ compiler
    image: bool = False  # its steps may run in a container: then `compiler.image` takes the place of a lock


@dataclass(frozen=True)
class ModelRules:
    """What a compiler asks of a checkpoint, and what it says about one."""

    #: its engines start from trtbuild's own graphs, or from those of onnxruntime-genai's builder
    networks: bool = True
    structured: bool = False  # its keys read the model's config, and not only the identity of its content
    transformers: bool = False  # its tools load the checkpoint with a transformers of their own
    #: raises InputError for a decoder that its engines cannot compute; None: the network is not trtbuild's own
    check_decoder: Callable[[Decoder], None] | None = _accept
    #: what a user should know about its engines with this tokenizer.json; raises InputError
    tokenizer_notes: Callable[[Mapping[str, Any]], Sequence[str]] = _nothing


@dataclass(frozen=True)
class Serving:
    """What a compiler's results are served with.

    `files` maps each value of `serve` to a function from an engine's folder to the server's files, {name: text}.
    `check` raises InputError where a server cannot load what a step makes.
    """

    files: Mapping[str, Callable[[Path], Mapping[str, str]]] = field(default_factory=dict)
    check: Callable[[str, Step], None] = _accept


@dataclass(frozen=True)
class Compiler:
    """One compiler, as its module declares it.

    `steps` gives the steps for a recipe, upstream first, and raises InputError for what it cannot make.
    `check` and `generate` are worker modules that load the engine that the last step made.
    """

    name: str
    steps: Callable[[Recipe], tuple[Step, ...]]
    check: str
    generate: str
    workers: Mapping[str, Worker]  # step -> what runs it
    schemes: frozenset[str]  # presets of conf/quant
    #: option -> why this compiler's keys leave it out; `trtbuild.facts.key_exclusions` has the others
    unread: Mapping[str, str]
    hardware: Hardware
    needs: Requirements
    models: ModelRules = ModelRules()
    serving: Serving = field(default_factory=Serving)
    #: options that name folders which steps read -> whether they may name a single file; the content is in the key
    folders: Mapping[str, bool] = field(default_factory=dict)
    #: sentences that a user should know about a recipe that is accepted, shown before the build
    advise: Callable[[Recipe], Sequence[str]] = _nothing


def check_parallel(
    recipe: Recipe, why: str | None = None, hint: str = "leave parallel.tp and parallel.pp at 1"
) -> None:
    """For a compiler whose results are of one rank. Raises InputError, with `why`, if the recipe asks for more."""
    if recipe.tp != 1 or recipe.pp != 1:
        asks = f"compiler={recipe.tools.name} builds for one device, and this config asks for {recipe.tp} x {recipe.pp}"
        raise InputError(why or asks, option="parallel.tp" if recipe.tp != 1 else "parallel.pp", hint=hint)


def check_symmetric(recipe: Recipe, why: str) -> None:
    """For a compiler without zero points. Raises InputError, with `why`, if the recipe asks for them."""
    if recipe.quant.symmetric is False:
        raise InputError(why, option="quant.symmetric=false", hint="leave quant.symmetric out")


def group_size(recipe: Recipe, default: int, allowed: Sequence[int]) -> int:
    """`quant.group_size`, or `default`. Raises InputError if it is not one of `allowed`."""
    group = recipe.quant.group_size or default
    if group not in allowed:
        raise InputError(
            f"{group} is not one of {', '.join(map(str, allowed))}",
            option=f"quant.group_size={group}",
            hint="smaller groups are more exact and take more room",
        )
    return group


def sequence_limits(sequence: int, longest_input: int) -> dict[str, Value]:
    """The facts of a profile for `sequence` tokens, of which a prompt has at most `longest_input`.

    Raises InputError if they leave no room for an answer.
    """
    if sequence < 2:
        raise InputError(
            "there is no room for a prompt and an answer",
            option=f"profile.max_seq_len={sequence}",
            hint="2 is the least",
        )
    if longest_input >= sequence:
        raise InputError(
            f"a prompt of {longest_input} tokens leaves none of profile.max_seq_len={sequence} for an answer",
            option="profile.max_input_len",
            hint=f"choose less than {sequence}",
        )
    return {"profile.max_input_len": longest_input, "profile.max_seq_len": sequence}


#: Packages of the toolchain `network` that decide the bytes, as its lock chooses them.
NETWORK_TOOLS = ("gguf", "jinja2", "numpy", "onnx", "safetensors")


def network(
    recipe: Recipe,
    operators: str,
    dtype: str,
    *,
    toolchain: str = "network",
    names: tuple[str, ...] = NETWORK_TOOLS,
) -> Step:
    """The step `network`.

    `operators` is one of `networks.emit.OPERATORS`; `names` are the packages of `toolchain` that decide the bytes.
    """
    lock, versions = tools(recipe.tools, toolchain, names)
    facts: dict[str, Value] = {
        "network.frontend": recipe.frontend,
        "network.operators": operators,
        "model.dtype": dtype,
        **versions,
    }
    return Step("network", NETWORK, frozen(facts), reads_model=True, lock=lock)


def unpack(recipe: Recipe, dtype: str) -> Step:
    """The step `unpack`: a GGUF becomes a Hugging Face folder, with its weights in `dtype`."""
    lock, versions = tools(recipe.tools, "network", NETWORK_TOOLS)
    return Step("unpack", UNPACK, frozen({"model.dtype": dtype, **versions}), reads_model=True, lock=lock)


def tools(chosen: Tools, toolchain: str, names: tuple[str, ...]) -> tuple[Lock | None, dict[str, Value]]:
    """What the key of a step in `toolchain` reads of its tools: their lock, or the pinned versions of `names`."""
    lock = chosen.locks.get(toolchain)
    if lock is not None:
        return lock, {}
    return None, {TOOL + name: chosen.packages[name] for name in names if name in chosen.packages}
