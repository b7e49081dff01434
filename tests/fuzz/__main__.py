"""`python -m tests.fuzz TARGET FOLDER [libFuzzer options]`: coverage-guided fuzzing of one parser of foreign bytes.

Of several, `TARGET,TARGET`, each has a process of its own that is forked from this one: to instrument takes longest.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import atheris

with atheris.instrument_imports(include=["trtstore", "trtbuild"]):
    from tests.fuzz import seeds, targets


def main() -> None:
    names, place, *options = sys.argv[1:]
    if "," not in names:
        fuzz(names, place, options)
    codes = {}
    for name in names.split(","):
        if (child := os.fork()) == 0:
            fuzz(name, f"{place}/{name}", options)
        codes[name] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(f"{name} ended with {codes[name]}", flush=True)
    sys.exit(1 if any(codes.values()) else 0)


def fuzz(name: str, place: str, options: list[str]) -> NoReturn:
    folder = Path(place)  # keeps the corpus, and the input that broke the property where one did
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = place  # libFuzzer ends the process at once, and nothing is cleaned up
    corpus, words = seeds.write(name, folder)
    # libFuzzer looks at the peak, in which Linux counts the process that this one was forked from.
    most = 1024 + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    bounds = ["-timeout=10", f"-rss_limit_mb={most}", "-max_len=8192", f"-artifact_prefix={folder}/"]
    print(f"fuzzing {name}", flush=True)
    atheris.Setup([sys.argv[0], *bounds, f"-dict={words}", *options, str(corpus)], targets.TARGETS[name])
    atheris.Fuzz()  # ends the process
    raise AssertionError


main()
