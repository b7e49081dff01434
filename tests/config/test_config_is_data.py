"""A config folder of a stranger's, or one override, runs nothing: each way to let Hydra call something is refused.

Every vector would leave the file `RAN` if what it names were called, imported or written.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.cli import Project

REFUSED = 2
#: A module that leaves the file when it is imported, and a function in it.
MODULE = "import pathlib\npathlib.Path({ran!r}).touch()\ndef run(*args, **more):\n    pathlib.Path({ran!r}).touch()\n"


@pytest.fixture
def ran(project: Project) -> Path:
    """The file that no vector may leave; beside it the packages that would."""
    ran = project.root / "RAN"
    for place in ("evil/__init__.py", "hydra_plugins/evil/__init__.py"):
        path = project.root / "packages" / place
        path.parent.mkdir(parents=True)
        path.write_text(MODULE.format(ran=str(ran)))
    return ran


def folder(project: Project, name: str, text: str) -> list[str]:
    """A config folder with one file."""
    path = project.root / "conf" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace("RAN", str(project.root / "RAN")))
    return ["--config-dir", str(project.root / "conf")]


def refused(project: Project, ran: Path, *words: str, names: str, env: dict[str, str] | None = None) -> None:
    done = project.trtbuild(*words, env=env)
    assert not ran.exists(), "what the config names was called"
    assert done.code == REFUSED, (done.out, done.err)
    assert "Traceback" not in done.err
    assert "hint: " in done.err
    assert done.err.count("error: ") == 1
    assert f"error: {names}" in done.err, done.err


@pytest.mark.parametrize("verb", ["plan", "build", "fetch", "run", "explain", "doctor"])
def test_a_callback_is_refused_by_every_verb(project: Project, ran: Path, tiny_llama: Path, verb: str) -> None:
    word = f"+hydra.callbacks.x={{_target_:pathlib.Path.touch,_args_:[{ran}]}}"
    more = ["prompt=x"] if verb == "run" else []
    refused(project, ran, verb, f"model.source={tiny_llama}", word, *more, names="hydra.callbacks.x")


@pytest.mark.parametrize(
    "flags",
    [["--cfg", "job"], ["--help"], ["--hydra-help"], ["--info", "config"], ["--info", "defaults"], ["-m"]],
)
def test_a_callback_is_refused_under_every_flag(project: Project, ran: Path, flags: list[str]) -> None:
    word = f"+hydra.callbacks.x={{_target_:pathlib.Path.touch,_args_:[{ran}]}}"
    done = project.trtbuild("plan", word, *flags)
    assert not ran.exists()
    assert done.code in (0, REFUSED)
    if flags != ["--info", "defaults"]:  # which composes nothing
        assert "hydra.callbacks.x" in done.err


def test_rebuild_refuses_it_too(project: Project, ran: Path) -> None:
    word = f"+hydra.callbacks.x={{_target_:pathlib.Path.touch,_args_:[{ran}]}}"
    refused(project, ran, "rebuild", "0" * 64, word, names="hydra.callbacks.x")


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ("hydra:\n  callbacks:\n    x: {_target_: pathlib.Path.touch, _args_: [RAN]}\n", "hydra.callbacks.x"),
        (
            "hydra:\n  job_logging:\n    version: 1\n    root: {handlers: [x]}\n    handlers:\n"
            "      x: {class: logging.FileHandler, filename: RAN}\n",
            "hydra.job_logging",
        ),
        (
            "hydra:\n  hydra_logging:\n    version: 1\n    root: {handlers: [x]}\n    handlers:\n"
            "      x: {'()': pathlib.Path.touch, self: RAN}\n",
            "hydra.hydra_logging",
        ),
        ("hydra:\n  launcher: {_target_: pathlib.Path.touch, _args_: [RAN]}\n", "hydra.launcher"),
        ("hydra:\n  sweeper: {_target_: pathlib.Path.touch, _args_: [RAN]}\n", "hydra.sweeper"),
        ("hydra:\n  sweeper:\n    params: {x: {_target_: evil.run}}\n", "hydra.sweeper"),
        ("hydra:\n  job: {env_set: {LD_PRELOAD: RAN}}\n", "hydra.job.env_set"),
        ("hydra:\n  job: {env_copy: [NOT_SET_ANYWHERE]}\n", "hydra.job.env_copy"),
        ("hydra:\n  job: {chdir: true}\n  run: {dir: RAN}\n", "hydra."),
        ("hydra:\n  run: {dir: RAN}\n", "hydra.run.dir"),
        ("hydra:\n  sweep: {dir: RAN}\n", "hydra.sweep.dir"),
        ("hydra:\n  output_subdir: RAN\n", "hydra.output_subdir"),
        ("hydra:\n  help: {template: '$CONFIG'}\n", "hydra.help.template"),
    ],
)
def test_what_a_file_says_to_hydra_is_refused(
    project: Project, ran: Path, tiny_llama: Path, said: str, names: str
) -> None:
    flags = folder(project, "site/evil", f"# @package _global_\n{said}")
    words = [*flags, f"model.source={tiny_llama}", "+site=evil"]
    refused(project, ran, "plan", *words, names=names)
    refused(project, ran, "plan", "-m", *words, "quant=int8,int4", names=names)


def test_what_one_point_of_a_sweep_says_to_hydra_is_refused(project: Project, ran: Path, tiny_llama: Path) -> None:
    folder(project, "site/good", "# @package _global_\nrefresh: false\n")
    flags = folder(project, "site/evil", "# @package _global_\nhydra:\n  callbacks:\n    x: {_target_: evil.run}\n")
    words = [*flags, f"model.source={tiny_llama}", "+site=good,evil"]
    refused(project, ran, "plan", "-m", *words, names="hydra.callbacks.x")


@pytest.mark.parametrize("header", ["# @package hydra.callbacks\n", ""])
def test_a_file_that_is_put_into_hydra_s_node_is_refused(
    project: Project, ran: Path, tiny_llama: Path, header: str
) -> None:
    folder(project, "site/evil", f"{header}x: {{_target_: pathlib.Path.touch, _args_: [RAN]}}\n")
    flags = folder(project, "site/by", "# @package _global_\ndefaults:\n  - evil@hydra.callbacks\n")
    word = "+site=evil" if header else "+site=by"
    refused(project, ran, "plan", *flags, f"model.source={tiny_llama}", word, names="hydra.callbacks.x")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["hydra.searchpath=[pkg://evil]"], "hydra.searchpath"),
        (["--config-path", "pkg://evil"], "--config-path"),
        (["+hydra.job_logging.handlers.x.class=evil.run"], "hydra.job_logging"),
        (["hydra.launcher._target_=evil.run"], "hydra.launcher"),
        (["hydra/launcher=basic"], "hydra.launcher"),
        (["hydra.sweeper._target_=evil.run"], "hydra.sweeper"),
        (["hydra/sweeper=basic", "-m"], "hydra.sweeper"),
        (["+model._target_=evil.run"], "model._target_"),
        (["+quant.x={_target_:evil.run}"], "quant.x"),
        (["+_target_=evil.run"], "_target_"),
    ],
)
def test_a_word_that_names_code_is_refused(
    project: Project, ran: Path, tiny_llama: Path, words: list[str], names: str
) -> None:
    env = {"PYTHONPATH": str(project.root / "packages")}
    (project.root / "packages" / "hydra_plugins" / "evil" / "__init__.py").unlink()
    refused(project, ran, "plan", f"model.source={tiny_llama}", *words, names=names, env=env)


@pytest.mark.parametrize("entry", ["pkg://evil/conf", "../../../etc/passwd", "//etc/passwd"])
def test_a_defaults_list_names_files_of_its_folder_alone(
    project: Project, ran: Path, tiny_llama: Path, entry: str
) -> None:
    flags = folder(project, "site/evil", f"# @package _global_\ndefaults:\n  - {entry}\n")
    env = {"PYTHONPATH": str(project.root / "packages")}
    (project.root / "packages" / "hydra_plugins" / "evil" / "__init__.py").unlink()
    done = project.trtbuild("plan", *flags, f"model.source={tiny_llama}", "+site=evil", env=env)
    assert not ran.exists()
    assert done.code == REFUSED, done.err
    assert "fault of trtbuild" not in done.err


def test_a_tag_of_python_s_in_yaml_makes_nothing(project: Project, ran: Path) -> None:
    flags = folder(project, "model/evil", 'source: !!python/object/apply:os.system ["touch RAN"]\n')
    refused(project, ran, "plan", *flags, "model=evil", names="--config-dir: ")


def test_plugins_of_hydra_s_are_not_imported_unasked(project: Project, ran: Path, tiny_llama: Path) -> None:
    env = {"PYTHONPATH": str(project.root / "packages")}
    done = project.trtbuild("plan", f"model.source={tiny_llama}", "hydra.verbose=false", env=env)
    assert done.code == 0, done.err
    assert not ran.exists()


def test_plugins_in_the_working_directory_are_refused(project: Project, ran: Path, tiny_llama: Path) -> None:
    (project.root / "packages" / "hydra_plugins").rename(project.root / "hydra_plugins")
    env = {"PYTHONPATH": str(project.root)}
    words = ["plan", "-m", f"model.source={tiny_llama}", "quant=int8,int4", "hydra/sweeper=optuna"]
    refused(project, ran, *words, names="hydra/sweeper=optuna", env=env)


def test_completion_runs_nothing(project: Project, ran: Path) -> None:
    """Neither what a callback names, nor what a file's name or a value would be to a shell."""
    line = f"trtbuild +hydra.callbacks.x={{_target_:pathlib.Path.touch,_args_:[{ran}]}} mod"
    assert project.trtbuild("-sc", "query=bash", env={"COMP_LINE": line}).code == REFUSED
    assert not ran.exists()
    flags = folder(project, "model/other", "source: x\n")
    (project.root / "conf" / "model" / "plain.yaml").write_text("source: x\n")
    (project.root / "conf" / "check").mkdir()
    (project.root / "conf" / "check" / "evil.yaml").write_text(f"prompt: $(touch {ran})\n")
    (project.root / "conf" / "model" / "`touch RAN`.yaml").write_text("source: x\n")
    (project.root / "conf" / "model" / "$(touch RAN).yaml").write_text("source: x\n")
    for word in ("model=", "check=evil check.prompt="):
        env = {"COMP_LINE": f"trtbuild {' '.join(flags)} {word}"}
        done = project.trtbuild(*flags, "-sc", "query=bash", env=env)
        assert done.code == 0, done.err
        assert word != "model=" or {"model=plain", "model=smollm2"} <= set(done.out.split())
        shell = ["bash", "-c", 'compgen -o nospace -o default -W "$1" -- ""', "bash", done.out]
        subprocess.run(shell, cwd=project.root, check=True, capture_output=True, timeout=60)
        assert not ran.exists()


def test_a_root_file_of_a_folder_s_own_is_no_way_around(project: Project, ran: Path) -> None:
    flags = folder(project, "root", "hydra:\n  callbacks:\n    x: {_target_: pathlib.Path.touch, _args_: [RAN]}\n")
    refused(project, ran, "plan", *flags, "--config-name", "root", names="hydra.callbacks.x")
    folder(project, "root", "model: {source: /x}\n")
    refused(project, ran, "plan", *flags, "--config-name", "root", names="hydra.launcher")


def test_what_the_docs_promise_still_works(project: Project, tiny_llama: Path) -> None:
    flags = folder(
        project,
        "site/ours",
        "# @package _global_\nhydra:\n  job: {name: ours}\n  verbose: false\n"
        "  sweeper:\n    params: {quant: 'int4,int8'}\n",
    )
    done = project.trtbuild("plan", *flags, f"model.source={tiny_llama}", "+site=ours")
    assert done.code == 0, done.err
    done = project.trtbuild("plan", "-m", *flags, f"model.source={tiny_llama}", "+site=ours")
    assert done.code == 0, done.err
    assert "2 points" in done.out
    shown = project.trtbuild("--cfg", "job", *flags, "quant=int8", "--resolve")
    assert shown.code == 0 and "weights: int8" in shown.out
    assert project.trtbuild("-sc", "install=bash").code == 0
