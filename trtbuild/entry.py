"""The command `trtbuild`. It answers by itself what needs no config: importing Hydra takes longer than all of this."""

from __future__ import annotations

import gc
import importlib
import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout

import trtbuild
from trtbuild.processes import programs
from trtbuild.redact import redacting

HELP = """\
trtbuild: build each LLM inference engine once, and share it with your whole team.

usage: trtbuild [build|plan|explain|fetch|run|doctor] [group=choice] [group.option=value] …
       trtbuild rebuild KEY [option=value] …
       trtbuild toolchain ls|install|path|verify|lock|rm|push|export|import …

  build    fetch the engine, or build, check and keep it (the default verb)
  plan     steps, keys, hit or miss, what will run and take; builds nothing, needs no compiler
  explain  why this is a miss, field by field against the nearest engine, or why it is a hit
  fetch    never builds: a hit, or exit code 3
  run      build or fetch, then answer prompt="…"
  doctor   what is missing on this machine for this config, and the command that fixes it
  rebuild  make an artifact again from its own record, and compare byte by byte
  toolchain  what steps run in: installed from locks on first use; `trtbuild toolchain --help`

groups:  model quant target fleet profile compiler executor store check sweep
options: output=text|json  out=PATH  store.root=PATH  refresh=true  until=STEP

  trtbuild model=smollm2 quant=int8
  trtbuild run model=smollm2 quant=int4 prompt="Why is the sky blue?"
  trtbuild model.source=/path/to/checkpoint quant=int8 out=engine
  trtbuild plan quant=int4 model.source=hf://org/name@revision
  trtbuild -m model=smollm2 quant=none,int8,int4

Hydra's flags work too: -m (sweep), --cfg job (the whole config), --config-dir DIR (a team's own configs),
-sc install=bash (completion). The engine's path goes to stdout, all else to stderr.
Exit codes: 0, 1 a build or check failed, 2 bad input, 3 not in the store (fetch), 4 the store refused, 130 interrupted.
"""


#: New objects between two passes of Python's garbage collector. Its default, 700, costs a hit a tenth of its time.
GC_OBJECTS = 500_000


def main() -> int:
    """Run the command line that `sys.argv` holds; returns its exit code."""
    programs.settle()
    os.umask(os.umask(0o022) | 0o022)  # no file of ours is writable for others
    first = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if first in ("--help", "-h", "help"):
        print(HELP, end="")
        return 0
    if first == "--version":
        print(f"trtbuild {trtbuild.__version__}")
        return 0
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # for names that the terminal's encoding lacks
    # Imports and Hydra make a million objects and few cycles, and each pass of the collector visits them all.
    gc.set_threshold(GC_OBJECTS)
    command = importlib.import_module(module(first))
    # All output of the command is redacted, also that of libraries.
    with redirect_stdout(redacting(sys.stdout)), redirect_stderr(redacting(sys.stderr)):
        code: int = command.main()
    return code


def module(first: str) -> str:
    """The module whose `main` runs a command line with this first word; by name, as each takes long to import."""
    return "trtbuild.cli.toolchain" if first == "toolchain" else "trtbuild.cli.main"
