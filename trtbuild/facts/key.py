"""Step → key: one walk over the fields that a step reads, with two visitors, a digest and an explanation.

A key is the SHA-256 of the canonical JSON (RFC 8785) of one flat object, field name → value. Nothing else enters it. A
worker gets just these facts (`Step.facts`), so it cannot depend on anything that the key leaves out.
`docs/architecture.md` lists the fields of each step; `docs/keys.md` lists what is in no key, with the reasons.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import rfc8785

from trtbuild.facts.recipe import Value
from trtbuild.toolchains.lock import Lock

#: The version of the walk below. A change of the walk needs a new number; no old key is hit after that.
SCHEMA = 2
#: The prefix of the facts that are versions of tools.
TOOL = "toolchain."
#: The field of a step that runs in a locked toolchain, in place of versions.
LOCK = f"{TOOL}lock"
#: The field of a step that runs in a container: the digest of its image, in place of versions.
IMAGE = f"{TOOL}image"


@dataclass(frozen=True)
class Worker:
    """A step's code. Only its version is in the key, as a module's name does not change what it makes."""

    module: str  # for `python -m`
    version: int  # raised whenever the same facts give other bytes


@dataclass(frozen=True)
class Handling:
    """What happens around a step. None of it is in the key, as it changes no byte of the result."""

    loads: bool = False  # the result is what a server loads: it is checked, run and served
    loaded_in: str | None = None  # the input whose toolchain loads the result; None: the step's own
    hint: str | None = None  # key of the store's hints that make the step quicker
    max_hints: int = 16  # hints that the worker can join; the one that it leaves replaces them
    shared: bool = True  # pushed to the team store; not what is large and quickly made from what is shared
    label: str | None = None  # for people, in place of the model's, where the result serves many models


@dataclass(frozen=True)
class Step:
    """One unit of work as a compiler defines it: what its key reads, and which worker runs it.

    `facts` are dotted options, platform facts (`target.arch`) and, if no lock has them, tool versions
    (`toolchain.onnx`).

    The other classes about one step build on this one, in the order in which a build makes them: `PlannedStep` adds the
    key; `StepPreview` and a sweep's `Unit` say whether it will run; the executor's `Task` adds paths and writes the
    worker's `StepRequest`; `WorkerResult` is what the worker returned; `StepResult` is the outcome that a user sees.
    """

    name: str
    worker: Worker
    facts: Mapping[str, Value]
    reads_model: bool = False
    inputs: tuple[str, ...] = ()  # names of upstream steps
    lock: Lock | None = None  # of the step's toolchain; its digest is in the key
    handling: Handling = Handling()


class Visitor(Protocol):
    """Gets the fields of a key from `walk`."""

    def field(self, name: str, value: Value) -> None: ...


def walk(step: Step, identity: str, upstream: Mapping[str, str], visitor: Visitor) -> None:
    """Pass every field of the step's key to `visitor`, in a fixed order. `upstream` maps step names to keys."""
    visitor.field("schema", SCHEMA)
    visitor.field("step.name", step.name)  # two steps may read the same facts
    visitor.field("step.version", step.worker.version)
    if step.reads_model:
        visitor.field("model.identity", identity)
    for name in step.inputs:
        visitor.field(f"input.{name}", upstream[name])  # the key of the input, not its bytes: input-addressed
    if step.lock is not None:
        visitor.field(LOCK, step.lock.digest)  # the bytes of all packages, which versions do not determine
    for name in sorted(step.facts):
        visitor.field(name, step.facts[name])


class Digest:
    """A visitor that computes the key."""

    def __init__(self) -> None:
        self._fields: dict[str, Value] = {}

    def field(self, name: str, value: Value) -> None:
        if name in self._fields:
            raise ValueError(f"the field {name} is in the key twice")
        self._fields[name] = value

    def hexdigest(self) -> str:
        fields: Any = self._fields  # rfc8785 writes tuples as arrays
        return hashlib.sha256(rfc8785.dumps(fields)).hexdigest()


class Explanation:
    """A visitor that keeps the fields. They go to the record, so that a later miss can be explained."""

    def __init__(self) -> None:
        self.fields: dict[str, Value] = {}

    def field(self, name: str, value: Value) -> None:
        self.fields[name] = value


def key_of(step: Step, identity: str, upstream: Mapping[str, str]) -> str:
    """64 lowercase hex digits."""
    digest = Digest()
    walk(step, identity, upstream, digest)
    return digest.hexdigest()


def hint_key(facts: Mapping[str, Value]) -> str:
    """The key of the hints that may serve a step: 64 hex digits of `facts`, such as a GPU and a release."""
    tagged: Any = {"hint": 1, **facts}
    return hashlib.sha256(rfc8785.dumps(tagged)).hexdigest()


def explain(step: Step, identity: str, upstream: Mapping[str, str]) -> dict[str, Value]:
    """The fields of the key, by name, in the walk's order."""
    explanation = Explanation()
    walk(step, identity, upstream, explanation)
    return explanation.fields
