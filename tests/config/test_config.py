"""conf/ and the schema say the same, and every option is documented where a user looks for it."""

from __future__ import annotations

import dataclasses
import enum
import json
import re
from pathlib import Path

import pytest
import yaml

from trtbuild.config import compose, schema, sweep_schema
from trtbuild.facts.recipe import SCHEMES

CONF = Path(__file__).parents[2] / "conf"
DOCUMENTED = {
    "model": ("model/smollm2.yaml", schema.ModelConf),
    "quant": ("quant/none.yaml", schema.QuantConf),
    "target": ("target/auto.yaml", schema.TargetConf),
    "fleet": ("fleet/default.yaml", schema.FleetConf),
    "profile": ("profile/default.yaml", schema.ProfileConf),
    "compiler": ("compiler/onnxruntime.yaml", schema.OnnxRuntimeConf),
    "executor": ("executor/auto.yaml", schema.ExecutorConf),
    "store": ("store/default.yaml", schema.StoreConf),
    "check": ("check/smoke.yaml", schema.CheckConf),
    "sweep": ("sweep/default.yaml", sweep_schema.SweepConf),
    "target.job": ("target/auto.yaml", sweep_schema.JobConf),
    "sweep.slurm": ("sweep/default.yaml", sweep_schema.SlurmConf),
    "sweep.ray": ("sweep/default.yaml", sweep_schema.RayConf),
}


def shown(field: dataclasses.Field) -> str:
    """A default as YAML writes it."""
    if field.default is dataclasses.MISSING:
        return json.dumps(field.default_factory())
    if field.default == "???":
        return "required"
    value = field.default.value if isinstance(field.default, enum.Enum) else field.default
    return value if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize("group", DOCUMENTED)
def test_every_option_of_a_group_is_documented_with_its_default(group: str) -> None:
    file, kind = DOCUMENTED[group]
    text = (CONF / file).read_text()
    for field in dataclasses.fields(kind):
        if f"{group}.{field.name}" in DOCUMENTED:
            assert re.search(rf"^# {field.name}: ", text, re.MULTILINE), f"{file} lacks `# {field.name}: …`"
            continue
        assert re.search(rf"^#\s+{field.name} \({re.escape(shown(field))}\):", text, re.MULTILINE), (
            f"{file} lacks a comment `# {field.name} ({shown(field)}): …`"
        )


NODES = {
    "parallel": schema.ParallelConf,
    "network": schema.NetworkConf,
    "key": schema.KeyConf,
    "generate": schema.GenerateConf,
}


def test_every_option_of_the_root_is_documented() -> None:
    text = (CONF / "config.yaml").read_text()
    elsewhere = {*DOCUMENTED, *NODES}
    own = [field for field in dataclasses.fields(schema.Config) if field.name not in elsewhere]
    for field in [*own, *(field for kind in NODES.values() for field in dataclasses.fields(kind))]:
        assert re.search(rf"^#\s+{field.name} \({re.escape(shown(field))}\):", text, re.MULTILINE), field.name


@pytest.mark.parametrize("file", sorted(p.relative_to(CONF).as_posix() for p in CONF.glob("*/*.yaml")))
def test_every_file_composes(file: str) -> None:
    group, name = file.removesuffix(".yaml").split("/")
    seen: list[schema.Config] = []
    compose.run([f"{group}={name}"], seen.append)
    assert len(seen) == 1
    assert (CONF / file).read_text().startswith("# "), "say what it is"


@pytest.mark.parametrize("name", sorted(schema.COMPILERS))
def test_the_options_of_each_compiler_are_documented_in_its_file(name: str) -> None:
    text = (CONF / "compiler" / f"{name}.yaml").read_text()
    common = {field.name for field in dataclasses.fields(schema.CompilerConf)}
    for field in dataclasses.fields(schema.COMPILERS[name]):
        if field.name not in common:
            found = re.search(rf"^#\s+{field.name} \({re.escape(shown(field))}\):", text, re.MULTILINE)
            assert found, f"{name}.yaml lacks a comment `# {field.name} ({shown(field)}): …`"


def test_presets_have_names_in_the_resolver() -> None:
    presets = {p.stem for p in (CONF / "quant").glob("*.yaml")}
    assert presets == set(SCHEMES.values())


def test_no_yaml_sets_an_option_to_its_default() -> None:
    """The schema is the only home of defaults: a YAML says what differs, or what the choice is named for."""
    named_for = {("target/auto.yaml", "name"), ("quant/none.yaml", "weights")}
    for group, (_, kind) in DOCUMENTED.items():
        own = [f for f in dataclasses.fields(kind) if f"{group}.{f.name}" not in DOCUMENTED]
        defaults = {f.name: shown(f) for f in own}
        for path in (CONF / group).glob("*.yaml"):
            for name, value in (yaml.safe_load(path.read_text()) or {}).items():
                if name != "defaults" and (path.relative_to(CONF).as_posix(), name) not in named_for:
                    assert str(value) != defaults.get(name), f"{path.name}: {name} is the default already"


def test_option_names_are_frozen() -> None:
    """The option surface: adding is deliberate, removing or renaming breaks users."""
    golden = (Path(__file__).parents[1] / "golden" / "options.txt").read_text().split()
    assert compose.option_names() == golden
