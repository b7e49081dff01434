"""Every option is a flag of NVIDIA's tools, by its name, type, default and choices; and every flag is accounted for."""

from __future__ import annotations

import dataclasses
import enum
import typing

import pytest

from trtbuild.compilers.tensorrt_llm import arguments
from trtbuild.compilers.tensorrt_llm.algorithms import NAMES, QFORMATS, SMOOTHQUANT
from trtbuild.compilers.tensorrt_llm.contract import FAMILIES, contract, converters
from trtbuild.config.trtllm_options import BuildOptions, CheckpointOptions, PluginOptions

FLAGS = contract()["trtllm_build_flags"]
BUILD = {
    field.name: (field, typing.get_type_hints(kind)[field.name])
    for kind in (BuildOptions, PluginOptions)
    for field in dataclasses.fields(kind)
}
CHECKPOINT = {field.name: field for field in dataclasses.fields(CheckpointOptions)}


def kind(hint: object) -> object:
    """The type below `| None`."""
    inner = [each for each in typing.get_args(hint) if each is not type(None)]
    return inner[0] if typing.get_origin(hint) is not list and inner else hint


@pytest.mark.parametrize("name", BUILD)
def test_an_option_is_a_flag_of_trtllm_build(name: str) -> None:
    field, hint = BUILD[name]
    told, of = FLAGS[f"--{name}"], kind(hint)
    default = field.default.value if isinstance(field.default, enum.Enum) else field.default
    if isinstance(of, type) and issubclass(of, enum.Enum):
        choices = {each.value for each in of}
        if told["type"] == "KVCacheType":
            assert choices == set(contract()["kv_cache_type"].values())
            return
        assert choices - {"none"} == set(told["choices"]) - {"none"}
        # A plugin that is off says so; of a mode or a type, "none" is the flag left out.
        assert told["default"] in (default, {"none": None, "disable": None}.get(str(default), default))
    elif of is bool:
        assert told.get("choices") == ["enable", "disable"] or told["action"] == "store_true"
        assert {"enable": True, "disable": False}.get(told["default"], told["default"]) == default
    elif typing.get_origin(of) is list:
        assert told["nargs"] == "+"
    else:
        assert (told["type"], told["default"]) == (of.__name__, default)


def test_every_flag_of_trtllm_build_is_offered_or_has_its_reason() -> None:
    known = {f"--{name}" for name in BUILD}
    assert known | set(arguments.ELSEWHERE) | set(arguments.NOT_OFFERED) == set(FLAGS)
    assert not known & set(arguments.NOT_OFFERED)


def test_every_option_of_the_engine_is_in_its_words() -> None:
    assert set(arguments.BUILD) == set(BUILD)
    switches = {name for name, (_, hint) in BUILD.items() if hint is bool and "choices" in FLAGS[f"--{name}"]}
    assert set(arguments.SWITCHES) == switches
    bare = {name for name, (_, hint) in BUILD.items() if hint is bool and "action" in FLAGS[f"--{name}"]}
    assert set(arguments.BARE) == bare


def test_every_option_of_the_checkpoint_is_a_flag_of_its_tools() -> None:
    quantize = contract()["quantize_py_flags"]
    llama = converters()["core/llama"]
    for name, field in CHECKPOINT.items():
        flag = arguments.CALIBRATION.get(name, f"--{name}")
        told = [flags[flag] for flags in (quantize, llama) if flag in flags]
        assert told, name
        if name == "calib_dataset":
            continue  # a folder: NVIDIA's default is a name, whose content is nobody's promise
        assert all(each["default"] == field.default for each in told), name
    for options in (arguments.MAPPING, arguments.SMOOTH):
        assert set(options) <= set(CHECKPOINT)


def test_the_defaults_of_the_profile_are_the_contracts() -> None:
    for flag, option in arguments.ELSEWHERE.items():
        if option != "place":
            assert FLAGS[flag]["default"] == contract()["build_config"][flag.lstrip("-")]["default"]


def test_every_algorithm_is_one_that_the_engine_backend_converts() -> None:
    offered = {*NAMES.values(), *SMOOTHQUANT.values()} - {"NO_QUANT"}
    assert offered <= set(contract()["engine_backend_quant_algos"])
    assert not offered & set(contract()["pytorch_only_quant_algos"])
    # Not offered: their checkpoints come from other tools, or mix algorithms by an automatic search.
    assert set(contract()["engine_backend_quant_algos"]) - offered == {
        "W4A8_QSERVE_PER_GROUP",
        "W4A8_QSERVE_PER_CHANNEL",
        "NVFP4_AWQ",
        "MIXED_PRECISION",
    }


def test_quantize_py_has_the_formats() -> None:
    told = contract()["modelopt_qformat"]
    assert {name: QFORMATS[name] for name in QFORMATS if name in told} == {
        name: told[name] for name in QFORMATS if name in told
    }
    assert set(QFORMATS.values()) <= set(contract()["quantize_py_flags"]["--qformat"]["choices"])


def test_every_architecture_is_in_the_model_map_and_has_a_converter() -> None:
    assert set(FAMILIES) <= set(contract()["model_map"])
    assert set(FAMILIES.values()) == set(converters())
    for family in converters():
        assert {"--model_dir", "--output_dir", "--dtype", "--tp_size", "--pp_size"} <= set(converters()[family]), family


def test_the_contract_says_where_it_is_from() -> None:
    about = contract()["about"]
    assert about["vendored_on"] == "2026-02-07"
    assert about["generated_from"] == "1.3.0rc3"
    assert "not proven" in about["note"]
