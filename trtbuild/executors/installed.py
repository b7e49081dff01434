"""Which versions of which packages a Python holds: this one, or another that `executor.python` names."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata

from trtbuild.errors import InputError

_ASK = """
import json, sys
from importlib import metadata
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def versions(python: str, names: Iterable[str]) -> dict[str, str]:
    """name -> version of those that are installed. Raises InputError when `python` is not a Python."""
    if python == sys.executable:
        return _here(names)
    command = [python, "-P", "-c", _ASK, *names]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=60, text=True)
        found: dict[str, str] = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise InputError(
            f"{python} does not answer as a Python 3.11 or later: {type(error).__name__}",
            option="executor.python",
        ) from None
    return found


def _here(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
