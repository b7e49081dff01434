"""Step and facts to a Key: one walk over what a step reads, and two visitors, a digest and an explanation.

A key is the sha256 of the canonical JSON (RFC 8785) of one flat object, field name to value. Nothing else
enters it: a worker is given just these facts (`Step.facts`), so it cannot depend on what the key leaves out.
`docs/architecture.md` lists the fields of each step, and every option that is in no key with the reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import rfc8785

from trtbuild.facts.recipe import Value
from trtbuild.toolchains.lock import Lock

#: Of the pre-image itself. A change of the walk below is a new number, and no old key is ever hit again.
SCHEMA = 2
#: The prefix of the facts that are versions of tools.
TOOL = "toolchain."
#: The field of a step that runs in a locked toolchain, in place of versions.
LOCK = f"{TOOL}lock"
#: The field of a step that runs in a container: the digest of its image, in place of versions.
IMAGE = f"{TOOL}image"


@dataclass(frozen=True)
class Worker:
    """A step's code. Only the version is in the key: where code lives does not change what it makes."""

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
    """One action: what it reads, and which worker runs it.

    `facts` are dotted options, platform facts (`target.arch`) and, where no lock has them, tool versions
    (`toolchain.onnx`).
    """

    name: str
    worker: Worker
    facts: Mapping[str, Value]
    reads_model: bool = False
    inputs: tuple[str, ...] = ()  # names of upstream steps
    lock: Lock | None = None  # of the toolchain that it runs in; its digest is in the key
    handling: Handling = Handling()


class Visitor(Protocol):
    def field(self, name: str, value: Value) -> None: ...


def walk(step: Step, identity: str, upstream: Mapping[str, str], visitor: Visitor) -> None:
    """Show `visitor` every field of the step's key, in one order."""
    visitor.field("schema", SCHEMA)
    visitor.field("step.name", step.name)  # two steps may read the same facts
    visitor.field("step.version", step.worker.version)
    if step.reads_model:
        visitor.field("model.identity", identity)
    for name in step.inputs:
        visitor.field(f"input.{name}", upstream[name])  # input-addressed: the upstream's key, not its bytes
    if step.lock is not None:
        visitor.field(
            LOCK, step.lock.digest
        )  # every package by its bytes: a version does not say what was installed
    for name in sorted(step.facts):
        visitor.field(name, step.facts[name])


class Digest:
    """The terse visitor: a key."""

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
    """The talkative visitor: the fields themselves, kept in the record so that a later miss can be explained."""

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
    """Which hints of the store may serve a step: 64 hex digits of `facts`, such as a GPU and a release."""
    tagged: Any = {"hint": 1, **facts}
    return hashlib.sha256(rfc8785.dumps(tagged)).hexdigest()


def explain(step: Step, identity: str, upstream: Mapping[str, str]) -> dict[str, Value]:
    """The fields of the key, by name, in the walk's order."""
    explanation = Explanation()
    walk(step, identity, upstream, explanation)
    return explanation.fields
