"""What a compiler is to trtbuild: a value, with a function that makes its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trtbuild.errors import InputError
from trtbuild.facts.key import TOOL, Step
from trtbuild.facts.recipe import Recipe, Tools, Value, frozen
from trtbuild.networks import NETWORK_VERSION
from trtbuild.networks.config.decoder import Decoder
from trtbuild.targets import Kind
from trtbuild.toolchains.lock import Lock


@dataclass(frozen=True)
class Worker:
    """A step's code: the module that `python -m` runs, and its version, which is in the step's key."""

    module: str
    version: int  # raised whenever the same facts give other bytes


#: The step that compilers share whose engines start from an ONNX graph.
NETWORK = Worker("trtbuild.networks", NETWORK_VERSION)
#: That of those which read a folder of Hugging Face's, for a checkpoint that is a GGUF.
UNPACK = Worker("trtbuild.networks.unpack", 2)


def no_advice(_recipe: Recipe) -> Sequence[str]:
    """Of a compiler that has none to give."""
    return ()


def tells_nothing(_tokenizer: Mapping[str, Any]) -> Sequence[str]:
    """Of a compiler whose engines read a text as the `tokenizers` library does."""
    return ()


def taken_always(_decoder: Decoder) -> None:
    """Of a compiler that takes all decoders that trtbuild has a network for."""


def served_always(_server: str, _step: Step) -> None:
    """Of a compiler whose servers load all that it makes."""


@dataclass(frozen=True)
class Compiler:
    """One compiler, as its module declares it.

    `steps` gives the steps for a recipe, upstream first, and raises InputError for what it cannot make.
    `check` and `generate` are worker modules that load the engine that the last step made.
    """

    name: str
    package: str  # the distribution whose release is `compiler.version`
    extra: str  # of trtbuild, that brings it
    schemes: frozenset[str]  # presets of conf/quant
    kinds: frozenset[Kind]  # of hardware
    steps: Callable[[Recipe], tuple[Step, ...]]
    check: str
    generate: str
    workers: Mapping[str, Worker]  # step -> what runs it
    unread: Mapping[
        str, str
    ]  # option -> why this compiler's keys leave it out; `trtbuild.facts.key_exclusions` has the others
    toolchains: tuple[str, ...] = ()  # of conf/toolchain, that its steps run in
    apart: tuple[str, ...] = ()  # of these, those that `compiler.packages` does not speak of
    #: facts of the hardware that need not be those of the machine that builds
    elsewhere: frozenset[str] = frozenset()
    cxx: bool = False  # its steps start a C++ compiler
    structured: bool = False  # its keys read what a model is made of, and not only its content
    portable: bool = False  # has engines for a class of GPUs, such as target=rtx_any
    loads: bool = False  # its tools load a checkpoint with a transformers of their own
    networks: bool = True  # its engines start from trtbuild's own graphs, or the builder's
    image: bool = False  # its steps may run in a container: then `compiler.image` is their lock
    folders: tuple[str, ...] = ()  # options that name folders which steps read: their content is in the key
    texts: tuple[str, ...] = ()  # of `folders`, those that may name one file
    #: what `serve` may ask for -> the files that a server needs, from an engine's folder
    serve: Mapping[str, Callable[[Path], Mapping[str, str]]] = field(default_factory=dict)
    #: raises InputError for a decoder of trtbuild's own networks that its engines cannot compute
    takes: Callable[[Decoder], None] = taken_always
    #: what a user should know of its engines with a tokenizer (the content of tokenizer.json); raises InputError
    tells: Callable[[Mapping[str, Any]], Sequence[str]] = tells_nothing
    #: raises InputError where that server loads nothing that the step makes
    served: Callable[[str, Step], None] = served_always
    #: what a user should know of a recipe that is accepted: sentences, told before it is built
    advise: Callable[[Recipe], Sequence[str]] = no_advice

    @property
    def ahead(self) -> bool:
        """Whether it builds ahead of time: for hardware of which nothing need be there."""
        return "target.kind" in self.elsewhere


def check_parallel(recipe: Recipe, why: str, *, hint: str = "leave parallel.tp and parallel.pp at 1") -> None:
    """Of a compiler whose results are of one rank. Raises InputError, with `why`, where more are asked for."""
    if recipe.tp != 1 or recipe.pp != 1:
        raise InputError(why, option="parallel.tp" if recipe.tp != 1 else "parallel.pp", hint=hint)


NETWORK_TOOLS = ("gguf", "jinja2", "numpy", "onnx", "safetensors")  # as its lock chooses them


def network(
    recipe: Recipe,
    operators: str,
    dtype: str,
    *,
    toolchain: str = "network",
    names: tuple[str, ...] = NETWORK_TOOLS,
) -> Step:
    """The step `network`: `operators` of `networks.emit.OPERATORS`, `names` what its toolchain's bytes depend on."""
    lock, versions = tools(recipe.tools, toolchain, names)
    facts: dict[str, Value] = {
        "network.frontend": recipe.frontend,
        "network.operators": operators,
        "model.dtype": dtype,
        **versions,
    }
    return Step(
        name="network",
        version=NETWORK.version,
        worker=NETWORK.module,
        facts=frozen(facts),
        reads_model=True,
        lock=lock,
    )


def unpack(recipe: Recipe, dtype: str) -> Step:
    """The step `unpack`: a GGUF becomes a folder of Hugging Face's, with its weights in `dtype`."""
    lock, versions = tools(recipe.tools, "network", NETWORK_TOOLS)
    facts: dict[str, Value] = {"model.dtype": dtype, **versions}
    return Step("unpack", UNPACK.version, UNPACK.module, frozen(facts), reads_model=True, lock=lock)


def tools(found: Tools, toolchain: str, names: tuple[str, ...]) -> tuple[Lock | None, dict[str, Value]]:
    """What a step in `toolchain` reads of its tools: their lock, or the versions of `names` that were asked for."""
    lock = found.locks.get(toolchain)
    if lock is not None:
        return lock, {}
    return None, {TOOL + name: found.packages[name] for name in names if name in found.packages}
