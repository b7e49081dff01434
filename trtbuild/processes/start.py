"""Runs a module of ours as a script: `python -s start.py MODULE WORDS…`, in any Python 3.10 or later.

`python -m` would look for it, and for all that it imports, in the working directory first, and not find it where this
Python has no trtbuild. The folder that this package lies in comes first instead: a folder with a link to it, made by
who starts this. TRTBUILD_PATH names folders that come last.
"""

from __future__ import annotations

import os
import runpy
import sys

_HERE = os.path.abspath(__file__)  # noqa: PTH100  # the link to the package is not followed
_OWN = os.path.dirname(_HERE)  # noqa: PTH120


def _paths(listed: list[str], more: str) -> list[str]:
    code = os.path.dirname(os.path.dirname(_OWN))  # noqa: PTH120  # that holds trtbuild/processes
    kept = [each for each in listed if each.startswith("/") and each not in (_OWN, code)]
    behind = [each for each in more.split(os.pathsep) if each.startswith("/") and each not in (*kept, code)]
    return [code, *kept, *behind]


if __name__ == "__main__":
    sys.path[:] = _paths(sys.path, os.environ.get("TRTBUILD_PATH", ""))
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
