"""Keys: every field that a step reads is in its key, a change of any changes it, and golden keys pin the format."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType

import pytest

from trtbuild.facts.key import Step, Worker, explain, key_of
from trtbuild.facts.recipe import Model, Profile, Quant, Recipe, Tools, frozen
from trtbuild.planning.plan import make_plan
from trtbuild.targets import Target
from trtbuild.toolchains.lock import Lock, PackagePin

MODEL = Model(
    identity="ab" * 32,
    label="m",
    origin="folder",
    architecture="LlamaForCausalLM",
    gguf=False,
    bytes=1,
    dtype="auto",
)
QUANT = Quant("int8", "int8", "none", "rtn", None, None, True, "auto")


def lock(title: str, **versions: str) -> Lock:
    """Made up, so that a lock that ships can change and the golden keys stay."""
    named = {name.replace("_", "-"): version for name, version in versions.items()}
    pins = tuple(PackagePin(name, version, None, ("ef" * 32,)) for name, version in sorted(named.items()))
    return Lock(title, pins, tuple(sorted(named)))


LOCKS = {
    "network": lock("network", gguf="0.19.0", numpy="2.4.6", onnx="1.23.1", safetensors="0.8.0"),
    "onnxruntime": lock("onnxruntime", onnxruntime="1.32.0", onnxruntime_genai="0.18.0", numpy="2.4.6"),
    "genai": lock("genai", onnxruntime_genai="0.18.0", torch="2.13.0"),
}
TOOLS = Tools(
    "onnxruntime",
    frozen(
        {
            "gguf": "0.19.0",
            "jinja2": "3.1.6",
            "numpy": "2.4.6",
            "onnx": "1.23.1",
            "onnx-ir": "1.0.0",
            "onnxruntime": "1.32.0",
            "onnxruntime-genai": "0.18.0",
            "safetensors": "0.8.0",
            "tokenizers": "0.23.3",
            "torch": "2.13.0",
            "transformers": "5.17.0",
        }
    ),
    frozen({"compiler.accuracy_level": 4, "compiler.optimization": "all"}),
    MappingProxyType(LOCKS),
)
LOOSE = dataclasses.replace(TOOLS, locks={})  # versions that no lock has
TARGET = Target(name="cpu", kind="cpu", arch="x86_64", level="x86_64_v3", microarchitecture="haswell")
RECIPE = Recipe(MODEL, QUANT, TARGET, Profile(None, None, None, None), 1, 1, "native", TOOLS)


def keys(recipe: Recipe) -> dict[str, str]:
    return {step.name: step.key for step in make_plan(recipe).steps}


def replaced(**changes: object) -> Recipe:
    return dataclasses.replace(RECIPE, **changes)


def test_golden_keys() -> None:
    """These change only with a new schema or step version, and then every engine is built anew."""
    assert keys(RECIPE) == {
        "network": "4d5df7e9efde2a1c8b1e82ee8c5646839b2acf16832fa52943c80add3944abde",
        "engine": "225b4f06f2e08bde9fb5d8fbc243a3484c09ad0b14639f163d77dc5df45631ae",
    }
    assert keys(replaced(tools=LOOSE)) == {
        "network": "84977d05ac4da15c53c809407e6e2aa4c4c7e90ac7e7186cce93624cbe472a2d",
        "engine": "a273df2c1a5162624eef555133493bdd292a29f5eeced41dc801d0440a3a37fb",
    }


CHANGES = {
    # what changes: which steps get another key
    "model.identity": (replaced(model=dataclasses.replace(MODEL, identity="cd" * 32)), {"network", "engine"}),
    "network.frontend": (replaced(frontend="genai"), {"network", "engine"}),
    "quant.weights": (replaced(quant=dataclasses.replace(QUANT, scheme="int4", weights="int4")), {"engine"}),
    "quant.group_size": (replaced(quant=dataclasses.replace(QUANT, group_size=64)), {"engine"}),
    "quant.symmetric": (replaced(quant=dataclasses.replace(QUANT, symmetric=False)), {"engine"}),
    "quant.embedding": (replaced(quant=dataclasses.replace(QUANT, embedding=False)), {"engine"}),
    "profile.max_seq_len": (replaced(profile=Profile(None, None, 64, None)), {"engine"}),
    "target.arch": (replaced(target=dataclasses.replace(TARGET, arch="aarch64")), {"engine"}),
    **{
        f"the lock of {name}": (
            replaced(
                tools=dataclasses.replace(TOOLS, locks={**LOCKS, name: lock(name, numpy="9.9.9", onnxruntime="1.32.0")})
            ),
            changed,
        )
        for name, changed in {
            "network": set(),  # other compilers' networks are made in it
            "onnxruntime": {"network", "engine"},
            "genai": set(),  # only the genai front end runs in it
        }.items()
    },
    "another wheel of the same version": (
        replaced(
            tools=dataclasses.replace(
                TOOLS,
                locks={
                    **LOCKS,
                    "onnxruntime": dataclasses.replace(
                        LOCKS["onnxruntime"],
                        pins=(
                            PackagePin("numpy", "2.4.6", None, ("ee" * 32,)),
                            *LOCKS["onnxruntime"].pins[1:],
                        ),
                    ),
                },
            )
        ),
        {"network", "engine"},
    ),
    "what a lock says for people": (
        replaced(
            tools=dataclasses.replace(
                TOOLS,
                locks={
                    name: dataclasses.replace(found, title="other", indexes=("--find-links /x",), chosen=())
                    for name, found in LOCKS.items()
                },
            )
        ),
        set(),
    ),
    "versions without a lock": (replaced(tools=LOOSE), {"network", "engine"}),
    **{
        option: (
            replaced(tools=dataclasses.replace(TOOLS, options=frozen({**TOOLS.options, option: value}))),
            {"engine"},
        )
        for option, value in {"compiler.accuracy_level": 1, "compiler.optimization": "basic"}.items()
    },
    # named, and in no key:
    "model.label": (replaced(model=dataclasses.replace(MODEL, label="other")), set()),
    "model.origin": (replaced(model=dataclasses.replace(MODEL, origin="hf://a/b@c")), set()),
    "target.name": (replaced(target=dataclasses.replace(TARGET, name="auto")), set()),
    "target.microarchitecture": (
        replaced(target=dataclasses.replace(TARGET, microarchitecture="x86_64_v4")),
        set(),
    ),
    "the default symmetry, spelt out": (replaced(quant=dataclasses.replace(QUANT, symmetric=True)), set()),
    "the default group, spelt out": (replaced(quant=dataclasses.replace(QUANT, group_size=32)), set()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_change_does_to_each_step(name: str) -> None:
    recipe, expected = CHANGES[name]
    before, after = keys(RECIPE), keys(recipe)
    assert {step for step in before if before[step] != after[step]} == expected


@pytest.mark.parametrize(
    ("package", "expected"),
    {
        "onnx": {"network", "engine"},
        "gguf": {"network", "engine"},
        "safetensors": {"network", "engine"},
        "numpy": {"network", "engine"},
        "jinja2": {"network", "engine"},
        "tokenizers": {"network", "engine"},
        "onnxruntime": {"engine"},
        "onnxruntime-genai": {"network", "engine"},  # the network step asks its tokenizer
        "torch": set(),  # only the genai front end reads these
        "transformers": set(),
        "onnx-ir": set(),
    }.items(),
)
def test_versions_that_no_lock_has_are_in_the_key_themselves(package: str, expected: set[str]) -> None:
    other = dataclasses.replace(LOOSE, packages=frozen({**LOOSE.packages, package: "9.9.9"}))
    before, after = keys(replaced(tools=LOOSE)), keys(replaced(tools=other))
    assert {step for step in before if before[step] != after[step]} == expected


def test_options_that_only_matter_when_quantized_do_not_split_unquantized_engines() -> None:
    none = dataclasses.replace(QUANT, scheme="none", weights="none")
    assert keys(replaced(quant=none)) == keys(replaced(quant=dataclasses.replace(none, group_size=64)))


def test_the_explanation_is_of_the_same_walk() -> None:
    for step in make_plan(RECIPE).steps:
        upstream = {up.name: up.key for up in step.inputs}
        assert explain(step.step, MODEL.identity, upstream) == step.fields
        assert set(step.step.facts) < set(step.fields)


def test_a_field_twice_is_an_error() -> None:
    step = Step("engine", Worker("worker", 1), {"step.name": "other"})
    with pytest.raises(ValueError, match=r"step\.name"):
        key_of(step, "", {})
