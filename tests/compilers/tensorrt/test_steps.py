"""What the two compilers make of a recipe: steps, keys, defaults, and refusals before any work."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from tests.compilers.tensorrt.support import ADA, recipe, scheme, target, tools
from trtbuild.compilers.tensorrt.compiler import RTX, RTX_CAPABILITIES, TENSORRT
from trtbuild.errors import InputError
from trtbuild.facts.key_exclusions import reason
from trtbuild.facts.recipe import Profile, Recipe, Tools, frozen
from trtbuild.planning.plan import PlannedStep, make_plan
from trtbuild.targets import Gpu

HOPPER = Gpu("H100 80GB HBM3", 80, "9.0", 132)
TURING = Gpu("T4", 16, "7.5", 40)
OLD = Tools("tensorrt", frozen({"tensorrt": "8.6.0"}), recipe("tensorrt").tools.options)


def engine(of: Recipe) -> PlannedStep:
    return make_plan(of).final


def test_an_rtx_engine_reads_the_compute_capability_and_nothing_else_of_the_gpu() -> None:
    fields = engine(recipe()).fields
    assert {name: value for name, value in fields.items() if name.startswith("target.")} == {
        "target.kind": "cuda",
        "target.arch": "x86_64",
        "target.compute_capability": "8.9",
    }


@pytest.mark.parametrize("capability", RTX_CAPABILITIES)
def test_rtx_engines_of_each_capability_have_keys_of_their_own(capability: str) -> None:
    other = engine(recipe(gpu=dataclasses.replace(ADA, compute_capability=capability)))
    assert other.fields["target.compute_capability"] == capability
    assert (other.key == engine(recipe()).key) == (capability == "8.9")


@pytest.mark.parametrize(
    "changes",
    [
        {"gpu": dataclasses.replace(ADA, name="GeForce RTX 4090", memory_gb=24, sm_count=128)},
        {"target": target(driver="570.1", cuda="12.8")},
        {"profile": Profile(1, 1024, 2048, 77)},  # what is left open, spelt out
    ],
    ids=["another SKU", "another driver", "the defaults"],
)
def test_rtx_engines_are_shared_where_their_bytes_are_equal(changes: dict[str, Any]) -> None:
    assert engine(recipe(**changes)).key == engine(recipe()).key


def test_a_portable_engine_is_one_for_all_gpus() -> None:
    def portable(gpu: Gpu) -> PlannedStep:
        plain = recipe(gpu=gpu)
        return engine(dataclasses.replace(plain, tools=tools(plain, portable=True)))

    blackwell = dataclasses.replace(ADA, name="GeForce RTX 5090", compute_capability="12.0")
    assert portable(ADA).key == portable(blackwell).key != engine(recipe()).key
    assert "target.compute_capability" not in portable(ADA).fields


def test_a_tensorrt_engine_reads_sku_and_driver() -> None:
    fields = engine(recipe("tensorrt", gpu=HOPPER)).fields
    assert fields["target.gpu"] == "H100 80GB HBM3"
    assert fields["target.driver"] == "580"
    assert fields["toolchain.tensorrt"] == "11.4.0.106"


@pytest.mark.parametrize(
    ("release", "dtype", "operators"),
    [
        ("8.6.0", "auto", "standard_layer_norm"),  # the builder chooses types
        ("9.0.1", "bfloat16", "standard_layer_norm"),
        ("8.6.0", "float32", "standard"),  # nothing can overflow
        ("9.1.0", "auto", "standard"),
        ("11.4.0.106", "auto", "standard"),
    ],
)
def test_a_builder_that_chooses_types_is_given_norms_that_cannot_overflow(
    release: str, dtype: str, operators: str
) -> None:
    plain = recipe("tensorrt", gpu=HOPPER)
    old = dataclasses.replace(plain.tools, packages=frozen({**plain.tools.packages, "tensorrt": release}))
    model = dataclasses.replace(plain.model, dtype=dtype)
    steps = make_plan(dataclasses.replace(plain, tools=old, model=model)).steps
    assert steps[0].fields["network.operators"] == operators


def test_timing_caches_are_shared_by_engines_of_one_gpu_driver_and_release() -> None:
    def hint(**changes: Any) -> str | None:
        return engine(recipe(**{"compiler": "tensorrt", "gpu": HOPPER, **changes})).step.handling.hint

    assert hint() == hint(profile=Profile(4, 100, 200, None)) is not None
    others = {hint(gpu=ADA), hint(gpu=HOPPER, target=target(driver="570.1", cuda="12.8"))}
    assert len(others | {hint()}) == 3
    assert engine(recipe()).step.handling.hint is None  # TensorRT for RTX times no kernels


def test_the_two_compilers_share_the_network() -> None:
    one, other = make_plan(recipe()), make_plan(recipe("tensorrt"))
    assert one.steps[0].key == other.steps[0].key
    assert one.final.key != other.final.key


FP8 = scheme("fp8_weights")


def test_fp8_weights_are_for_gpus_that_have_the_type() -> None:
    assert engine(recipe(quant="none")).key != engine(recipe(quant=FP8)).key
    for capability in ("7.5", "8.0", "8.6"):
        old = dataclasses.replace(ADA, compute_capability=capability)
        with pytest.raises(InputError, match=rf"fp8 needs compute capability 8\.9, and .* has {capability}"):
            engine(recipe(quant=FP8, gpu=old))
    plain = recipe(quant=FP8)
    with pytest.raises(InputError, match=r"a portable engine has 8\.0"):
        engine(dataclasses.replace(plain, tools=tools(plain, portable=True)))


@pytest.mark.parametrize("quant", ["none", "int8", "int4"])
def test_schemes_share_the_network(quant: str) -> None:
    assert make_plan(recipe(quant=quant)).steps[0].key == make_plan(recipe()).steps[0].key


def test_open_limits_become_numbers_in_the_key() -> None:
    fields = engine(recipe()).fields
    names = ("max_batch_size", "max_input_len", "max_seq_len")
    assert [fields[f"profile.{name}"] for name in names] == [1, 1024, 2048]
    fields = engine(recipe(profile=Profile(4, 3000, None, None))).fields
    assert [fields[f"profile.{name}"] for name in names] == [4, 3000, 6000]
    fields = engine(recipe(profile=Profile(None, None, 512, None))).fields
    assert [fields[f"profile.{name}"] for name in names] == [1, 256, 512]


@pytest.mark.parametrize("compiler", [RTX, TENSORRT], ids=lambda compiler: compiler.name)
def test_each_option_of_a_compiler_is_in_the_key(compiler: Any) -> None:
    plain = recipe(compiler.name)
    before = engine(plain)
    for name, value in plain.tools.options.items():
        other = {"dynamic": "phases", "static": "phases"}.get(str(value), not value if value in (True, False) else 1)
        changed = dataclasses.replace(
            plain,
            tools=Tools(compiler.name, plain.tools.packages, frozen({**plain.tools.options, name: other})),
        )
        assert engine(changed).key != before.key, name


def test_what_is_not_read_has_a_reason() -> None:
    for compiler in (RTX, TENSORRT):
        read = set(engine(recipe(compiler.name, quant="int4")).fields)
        for name in (
            "profile.max_num_tokens",
            "quant.embedding",
            "quant.symmetric",
            "target.level",
            "parallel.tp",
        ):
            assert name not in read
            assert reason(name, compiler.unread), f"{compiler.name}: {name}"
    assert reason("target.driver", RTX.unread)
    assert not reason("target.driver", TENSORRT.unread)


REFUSALS: dict[str, tuple[Callable[[], Recipe], str, str]] = {
    "Hopper": (lambda: recipe(gpu=HOPPER), "target=the_target", "compute capability .*has 9.0"),
    "int4 on Turing": (lambda: recipe(gpu=TURING, quant="int4"), "quant=int4", "7.5"),
    "bfloat16 on Turing": (
        lambda: recipe(gpu=TURING, model=dataclasses.replace(recipe().model, dtype="bfloat16")),
        "model.dtype=bfloat16",
        "7.5",
    ),
    "portable on Turing": (
        lambda: recipe(gpu=TURING, tools=tools(recipe(), portable=True)),
        "compiler.portable=true",
        "from compute capability 8.0 on",
    ),
    "two GPUs": (lambda: recipe(tp=2), "parallel.tp", "one device"),
    "another front end": (lambda: recipe(frontend="genai"), "network.frontend", "LlamaForCausalLM"),
    "zero points": (
        lambda: dataclasses.replace(recipe(), quant=dataclasses.replace(recipe(quant="int8").quant, symmetric=False)),
        "quant.symmetric=false",
        "zero points",
    ),
    "an odd group": (
        lambda: dataclasses.replace(recipe(), quant=dataclasses.replace(recipe(quant="int4").quant, group_size=48)),
        "quant.group_size=48",
        "16, 32, 64",
    ),
    "no room for an answer": (
        lambda: recipe(profile=Profile(1, 512, 512, None)),
        "profile.max_input_len",
        "none of",
    ),
    "one token in all": (
        lambda: recipe(profile=Profile(1, None, 1, None)),
        "profile.max_seq_len=1",
        "no room",
    ),
    "integers in an old release": (
        lambda: recipe("tensorrt", quant="int8", tools=OLD),
        "quant=int8",
        "8.6.0",
    ),
    "fp8": (lambda: recipe(quant="fp8"), "quant=fp8", "not to fp8"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_built_is_refused_with_the_option_and_a_mend(name: str) -> None:
    make, option, words = REFUSALS[name]
    with pytest.raises(InputError, match=words) as caught:
        make_plan(make())
    assert caught.value.option == option
    assert caught.value.hint


def test_hopper_is_sent_to_the_compiler_that_can() -> None:
    with pytest.raises(InputError) as caught:
        make_plan(recipe(gpu=HOPPER))
    assert "compiler=tensorrt" in str(caught.value.hint)
    assert engine(recipe("tensorrt", gpu=HOPPER)).key


def test_an_old_tensorrt_still_builds_in_float16() -> None:
    assert engine(recipe("tensorrt", gpu=HOPPER, tools=OLD)).fields["toolchain.tensorrt"] == "8.6.0"
