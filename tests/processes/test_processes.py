"""Every place that starts a process or loads a library is listed here, with how it is kept from foreign code."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = sorted(path for folder in ("trtbuild", "store/trtstore", "conf") for path in (ROOT / folder).rglob("*.py"))

#: What starts a process, loads native code, or hands work to another process, by module.
STARTS = {
    "subprocess": {"run", "Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput"},
    "os": {"system", "popen", "fork", "forkpty", "posix_spawn", "posix_spawnp", "startfile"}
    | {f"exec{end}" for end in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")}
    | {f"spawn{end}" for end in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")},
    "pty": {"spawn", "fork"},
    "runpy": {"run_module", "run_path"},
    "ctypes": {"CDLL", "PyDLL", "WinDLL"},
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
    "submitit": {"SlurmExecutor", "AutoExecutor", "LocalExecutor"},
    "ray": {"init", "remote"},
    "programs": {"run", "begin"},
}
#: Of these no name may be used at all but by a place that is listed.
MODULES = ("multiprocessing", "concurrent.futures.process", "pexpect", "sh", "plumbum", "cffi")
NAMES = ("ProcessPoolExecutor", "LoadLibrary", "load_library")

#: (module, function, what it calls) -> what is started there, and how it is isolated.
PLACES = {
    # The two through which all others go.
    ("trtbuild.processes.programs", "begin", "subprocess.Popen"): "any command, under the keeper",
    ("trtbuild.processes.programs", "run", "begin"): "the same, to its end",
    ("trtbuild.processes.keeper", "main", "os.fork"): "the keeper's command",
    ("trtbuild.processes.keeper", "_become", "os.execvp"): "the keeper's command, as it was given",
    ("trtbuild.processes.keeper", "_prctl", "ctypes.CDLL"): "no library: the process itself",
    (
        "trtbuild.processes.start",
        "",
        "runpy.run_module",
    ): "a module of ours, with sys.path set before",
    # Workers.
    (
        "trtbuild.executors.process",
        "run",
        "subprocess.Popen",
    ): "a worker under the keeper: programs.module, allowed variables, a folder of its own",
    (
        "trtbuild.executors.container",
        "run",
        "subprocess.Popen",
    ): "the engine: found by programs.find; cleaned and named variables, a folder of its own",
    (
        "trtbuild.executors.container",
        "_output",
        "subprocess.run",
    ): "the engine: found by programs.find; cleaned, in /",
    ("trtbuild.worker", "die_with_parent", "ctypes.CDLL"): "no library: the process itself",
    # What workers start: they are under their keeper, with its environment.
    (
        "trtbuild.networks.chat.trial",
        "try_out",
        "subprocess.run",
    ): "programs.module, programs.inherited, in /",
    (
        "trtbuild.networks.genai.builder",
        "start",
        "subprocess.run",
    ): "programs.module, programs.inherited, own folder",
    (
        "trtbuild.compilers.tensorrt.engine",
        "build_apart",
        "subprocess.run",
    ): "programs.module, allowed variables",
    ("trtbuild.compilers.tensorrt.builder", "main", "ctypes.CDLL"): "no library: the process itself",
    (
        "trtbuild.compilers.tensorrt.addresses",
        "stop_randomising",
        "ctypes.CDLL",
    ): "no library: the process itself",
    ("trtbuild.compilers.tensorrt.addresses", "randomised", "ctypes.CDLL"): "no library: the process itself",
    ("trtbuild.compilers.tensorrt.addresses", "_reserve", "ctypes.CDLL"): "no library: the process itself",
    (
        "trtbuild.compilers.tensorrt_llm.tools",
        "run",
        "subprocess.Popen",
    ): "a tool beside this Python or on PATH, by programs.find; cleaned variables, the worker's folder",
    (
        "trtbuild.compilers.aot_inductor.engine",
        "_version",
        "subprocess.run",
    ): "g++ or CXX, by programs.find; cleaned",
    (
        "trtbuild.compilers.aot_inductor.package_loader",
        "make_ready",
        "ctypes.CDLL",
    ): "the system's C++ library by its name: LD_LIBRARY_PATH has absolute folders alone",
    ("trtbuild.compilers.cuda", "find", "ctypes.CDLL"): "the driver's library by its name, as above",
    ("trtbuild.compilers.cuda", "__init__", "ctypes.CDLL"): "the same",
    # Installers.
    (
        "trtbuild.toolchains.install",
        "_run",
        "programs.begin",
    ): "pip: see toolchains/settings.py",
    (
        "trtbuild.toolchains.install",
        "_compile",
        "programs.run",
    ): "compileall with -I, allowed variables, own folder",
    (
        "trtbuild.toolchains.lockfile_build",
        "_compile",
        "programs.run",
    ): "uv, in a folder whose uv.toml is our own",
    (
        "trtbuild.sources.pip_download",
        "_pip",
        "programs.run",
    ): "pip by its place, with -I, in a folder of its own",
    (
        "trtbuild.toolchains.pythons",
        "_asked",
        "subprocess.run",
    ): "the user's Python, with -I, cleaned, in /",
    # Questions, and other machines.
    (
        "trtbuild.doctor.world",
        "run",
        "subprocess.run",
    ): "a program that tells: by programs.find; cleaned, in /",
    (
        "trtbuild.sweeps.job_entry",
        "run",
        "subprocess.run",
    ): "trtbuild itself: programs.own, cleaned; the user's folder, which paths of a command line are relative to",
    (
        "trtbuild.sweeps.job_entry",
        "_LAUNCH",
        "text",
    ): "the same: it runs trtbuild.cli.main with the paths that it is told",
    ("trtbuild.sweeps.slurm", "_ask", "subprocess.run"): "Slurm's commands: by programs.find; cleaned, in /",
    (
        "trtbuild.sweeps.slurm",
        "_submit",
        "submitit.SlurmExecutor",
    ): "jobs by programs.own; PATH is settled",
    ("trtbuild.sweeps.ray", "__init__", "ray.init"): "a driver of a cluster that the user named",
    ("trtbuild.sweeps.ray", "start", "ray.remote"): "trtbuild.sweeps.job_entry on that cluster",
    # The store.
    ("trtstore.environments.environments", "_sync_disk", "ctypes.CDLL"): "no library: the process itself",
    ("trtstore.disk.writeback", "_function", "ctypes.CDLL"): "no library: the process itself",
}
HOW = (
    "start it through trtbuild.processes.programs (module, python or own; find; allowed or cleaned; run or begin), and "
    "say in PLACES of this file what it is and how it is kept from the working directory and from variables"
)


def _is_listed(module: str) -> bool:
    return any(module == each or module.startswith(f"{each}.") for each in MODULES)


class _Finder(ast.NodeVisitor):
    """Collects the places of one module."""

    def __init__(self, module: str) -> None:
        self.module, self.within, self.found = module, [], set()
        self.names: dict[str, str] = {}  # as imported -> dotted

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.names[alias.asname or alias.name.split(".")[0]] = alias.name
            if _is_listed(alias.name):
                self._add(alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            dotted = f"{node.module}.{alias.name}".removeprefix("trtbuild.processes.").removeprefix("trtbuild.")
            self.names[alias.asname or alias.name] = dotted
            if _is_listed(str(node.module)) or alias.name in NAMES:
                self._add(dotted)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.within.append(node.name)
        for inner in (*node.decorator_list, *node.args.defaults, *node.args.kw_defaults, *node.body):
            if inner is not None:  # annotations start nothing
                self.visit(inner)
        self.within.pop()

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Called, or handed on to be called."""
        if isinstance(node.value, ast.Name):
            module = self.names.get(node.value.id, "")
            if node.attr in STARTS.get(module, ()):
                self._add(f"{module}.{node.attr}")
        if node.attr in NAMES:
            self._add(node.attr)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        module, _, name = self.names.get(node.id, "").rpartition(".")
        if name in STARTS.get(module, ()):
            self._add(f"{module}.{name}")
        if self.module == "trtbuild.processes.programs" and node.id == "begin":
            self._add("begin")

    def visit_Constant(self, node: ast.Constant) -> None:
        """Code as text."""
        if isinstance(node.value, str) and "import " in node.value and "sys.argv" in node.value:
            self._add("text")

    def visit_Call(self, node: ast.Call) -> None:
        for keyword in node.keywords:
            if keyword.arg == "shell":
                self._add("shell")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        top = not self.within and isinstance(node.targets[0], ast.Name)
        if top:
            self.within.append(node.targets[0].id)
        self.generic_visit(node)
        if top:
            self.within.pop()

    def _add(self, what: str) -> None:
        self.found.add((self.module, self.within[-1] if self.within else "", what))


def module_name(path: Path) -> str:
    base = ROOT / "store" if "trtstore" in path.parts else ROOT
    return ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")


def places(text: str, module: str) -> set[tuple[str, str, str]]:
    finder = _Finder(module)
    finder.visit(ast.parse(text))
    return finder.found


def test_every_place_that_starts_a_process_is_listed() -> None:
    found = set().union(*(places(path.read_text(), module_name(path)) for path in CODE))
    new = sorted(found - PLACES.keys())
    assert not new, f"{new[0][0]}.{new[0][1]} calls {new[0][2]} and is on no list: {HOW}"
    gone = sorted(PLACES.keys() - found)
    assert not gone, f"{gone[0]} is listed and not there any more: take it off PLACES"


def test_the_list_finds_what_is_new() -> None:
    for text, what in (
        ("import subprocess\ndef f(): subprocess.run(['ls'])", "subprocess.run"),
        ("from subprocess import Popen as P\ndef f(): P(['ls'])", "subprocess.Popen"),
        ("import subprocess as s\ndef f(): start = s.Popen", "subprocess.Popen"),
        ("import os\ndef f(): os.execv('/bin/ls', [])", "os.execv"),
        ("import os\ndef f(): os.system('ls')", "os.system"),
        ("import multiprocessing", "multiprocessing"),
        ("from concurrent.futures import ProcessPoolExecutor", "concurrent.futures.ProcessPoolExecutor"),
        ("import concurrent.futures as c\ndef f(): c.ProcessPoolExecutor()", "ProcessPoolExecutor"),
        ("import asyncio\nasync def f(): await asyncio.create_subprocess_exec('ls')", "asyncio.create_subprocess_exec"),
        ("import ctypes\ndef f(): ctypes.CDLL('./x.so')", "ctypes.CDLL"),
        ("from trtbuild.processes import programs\ndef f(): programs.begin(['ls'], {}, '/')", "programs.begin"),
        ("def f(): g('ls', shell=True)", "shell"),
    ):  # fmt: skip
        assert what in {call for _, _, call in places(text, "m")}, text
