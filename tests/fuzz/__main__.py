"""`python -m tests.fuzz TARGET FOLDER [libFuzzer options]`: coverage-guided fuzzing of one parser of foreign bytes."""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["trtstore", "trtbuild"]):
    from tests.fuzz import seeds, targets


def main() -> None:
    name, place, *options = sys.argv[1:]
    folder = Path(place)  # keeps the corpus, and the input that broke the property where one did
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = place  # libFuzzer ends the process at once, and nothing is cleaned up
    corpus, words = seeds.write(name, folder)
    # libFuzzer looks at the peak, in which Linux counts the process that this one was forked from.
    most = 1024 + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    bounds = ["-timeout=10", f"-rss_limit_mb={most}", "-max_len=8192", f"-artifact_prefix={folder}/"]
    print(f"fuzzing {name}", flush=True)
    atheris.Setup([sys.argv[0], *bounds, f"-dict={words}", *options, str(corpus)], targets.TARGETS[name])
    atheris.Fuzz()


main()
