"""Configs that are put together from parts are those that Hydra composes."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import pytest

from tests.support.cli import Project
from trtbuild.config import compose, schema
from trtbuild.config.composer import Composer
from trtbuild.config.points import Point
from trtbuild.errors import InputError

TARGETS = "target=cpu_x86_64_v3,cpu_x86_64_v4,rtx4070"


def swept(*words: str) -> list[Point]:
    found: list[Point] = []

    def run(batch: Sequence[Point]) -> list[float | None]:
        found.extend(batch)
        return [None] * len(batch)

    compose.run(["-m", *words], lambda _: None, run)
    return found


def same_as_alone(found: Sequence[Point], *flags: str) -> None:
    """Each point has the config that its own words have without a sweep."""
    for point in found:
        alone: list[object] = []
        compose.run([*flags, *point.words], alone.append)
        assert alone == [point.config], point.words


def test_points_are_what_their_words_mean_alone() -> None:
    found = swept("quant=none,int8", TARGETS, "profile.max_seq_len=range(64,66)", "parallel.tp=2")
    assert len(found) == 12
    assert [point.index for point in found] == list(range(12))
    assert found[-1].words == ("quant=int8", "target=rtx4070", "profile.max_seq_len=65", "parallel.tp=2")
    same_as_alone(found[4::7])
    configs = [point.config for point in found]
    assert not any(one == other for one, other in itertools.combinations(configs, 2))


@pytest.mark.parametrize(
    "words", [("output=json", "refresh=true", "until=network"), ("serve=triton",), ("parallel.tp=2",)]
)
def test_a_part_is_composed_once(words: tuple[str, ...]) -> None:
    """However many points have it: composing a thousand whole takes a minute."""
    whole = 0

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal whole
        whole += event == "call" and frame.f_code is Composer.whole.__code__

    sys.setprofile(count)
    try:
        found = swept("quant=none,int8", "profile.max_seq_len=range(64,72)", *words)
    finally:
        sys.setprofile(None)
    assert len(found) == 16
    assert 1 <= whole <= 1 + len(words), "to be compared with, and where a word is one of the root's own"
    same_as_alone(found[::9])


def test_hydra_s_own_syntax_works() -> None:
    assert [p.config.target.name for p in swept("target=glob(rtx40*)")] == ["rtx4070", "rtx4080", "rtx4090"]
    assert [p.config.quant.group_size for p in swept("quant.group_size=choice(32,64,128)")] == [32, 64, 128]
    found = swept("hydra.sweeper.params={quant:'int4,int8'}", "parallel.tp=1,2")
    assert [(p.config.quant.weights.value, p.config.parallel.tp) for p in found] == [
        ("int4", 1),
        ("int4", 2),
        ("int8", 1),
        ("int8", 2),
    ]


def test_a_file_of_a_team_s_that_chooses_several_is_one_part_with_them(tmp_path: Path) -> None:
    (tmp_path / "machine").mkdir()
    for name, target, compiler in (
        ("desk", "rtx4070", "tensorrt_rtx"),
        ("rack", "cpu_x86_64_v3", "onnxruntime"),
    ):
        (tmp_path / "machine" / f"{name}.yaml").write_text(
            f"# @package _global_\ndefaults:\n  - override /target: {target}\n  - override /compiler: {compiler}\n"
        )
    flags = ["--config-dir", str(tmp_path)]
    found = swept(*flags, "+machine=desk,rack", "compiler.version=installed,locked", "quant=int4,int8")
    assert [(p.config.target.name, p.config.compiler.name, p.config.compiler.version) for p in found[::2]] == [
        ("rtx4070", "tensorrt_rtx", "installed"),
        ("rtx4070", "tensorrt_rtx", "locked"),
        ("cpu_x86_64_v3", "onnxruntime", "installed"),
        ("cpu_x86_64_v3", "onnxruntime", "locked"),
    ]
    same_as_alone(found[2::5], *flags)


@pytest.mark.parametrize("group", sorted(set(schema.GROUPS) - {"store", "sweep"}))
def test_every_choice_of_every_group_is_what_hydra_makes_of_it(group: str) -> None:
    """Of another choice just the nodes that its files are about are composed."""
    files = sorted(path.stem for path in (Path(compose.__file__).parents[2] / "conf" / group).glob("*.yaml"))
    choices = [name for name in files if not name.endswith("schema")]
    found = swept(f"{group}={','.join(choices)}", "profile.max_seq_len=512,1024,2048")
    assert len(found) == 3 * len(choices)
    same_as_alone(found[:: 3 if len(found) < 20 else 13])


def test_files_of_a_team_s_may_set_anything_and_say_things_to_hydra(tmp_path: Path) -> None:
    """Values of other nodes, nodes of the root's own, choices of Hydra's, in an order that matters."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "one.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /quant: int4\n  - override /hydra/job_logging: default\n"
        "  - _self_\nquant:\n  group_size: 32\nrefresh: true\nhydra:\n  job:\n    name: ours\n"
    )
    (tmp_path / "site" / "two.yaml").write_text(
        "# @package _global_\nparallel:\n  tp: 2\nprofile:\n  max_seq_len: 777\n"
    )
    flags = ["--config-dir", str(tmp_path)]
    found = swept(*flags, "+site=one,two", "parallel.pp=1,2")
    assert len(found) == 4
    assert [p.config.quant.group_size for p in found] == [32, 32, None, None]
    assert [p.config.refresh for p in found] == [True, True, False, False]
    assert [p.config.profile.max_seq_len for p in found][2:] == [777, 777]
    same_as_alone(found, *flags)
    same_as_alone(swept(*flags, "+site=one", "quant=int8,int4", "quant.group_size=64,128"), *flags)


def test_files_are_looked_for_where_hydra_was_told_to(tmp_path: Path) -> None:
    (tmp_path / "quant").mkdir()
    (tmp_path / "quant" / "ours.yaml").write_text("defaults:\n  - schema\n  - _self_\nweights: int4\ngroup_size: 64\n")
    search = f"hydra.searchpath=[file://{tmp_path}]"
    found = swept(search, "quant=int8,ours", "parallel.tp=1,2")
    assert [(p.config.quant.weights.value, p.config.quant.group_size) for p in found][1:3] == [
        ("int8", None),
        ("int4", 64),
    ]


def test_what_is_interpolated_is_composed_whole() -> None:
    found = swept("quant=int4,int8", "parallel.tp=1,2", "out='${hydra:runtime.choices.quant}-${parallel.tp}'")
    assert [p.config.out for p in found] == ["int4-1", "int4-2", "int8-1", "int8-2"]


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("quant=int8,int9", "did you mean quant=int8"),
        ("quant.group_size=32,many", "not a whole number"),
        ("profle.max_seq_len=1,2", "did you mean profile?"),
        ("parallel.tp=1,,2", "cannot read"),
    ],
)
def test_what_does_not_compose_is_refused_before_anything_runs(word: str, says: str) -> None:
    ran: list[Point] = []
    with pytest.raises(InputError) as caught:
        compose.run(["-m", word], lambda _: None, lambda found: ran.extend(found) or [])
    assert says in " ".join(caught.value.lines())
    assert ran == []


def test_a_sweep_of_one_point(project: Project, tiny_llama: Path) -> None:
    done = project.trtbuild("plan", "-m", f"model.source={tiny_llama}")
    assert done.code == 0, done.err
    assert "1 point, 1 distinct key: 1 to build" in done.out
