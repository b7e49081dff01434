"""What a Python is, as itself says: any Python may run this file, with names of packages, for one line of JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
import sysconfig
from importlib import metadata


def answer(names: list[str]) -> dict[str, object]:
    """The interpreter below any virtual environment, its ABI, its markers (PEP 508), and versions of `names`."""
    base = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)  # Python 3.6, too
    info = sys.implementation.version
    kind = "" if info.releaselevel == "final" else info.releaselevel[0] + str(info.serial)
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "base": base,
        "tag": f"cp{sys.version_info[0]}{sys.version_info[1]}",
        "abi": sysconfig.get_config_var("SOABI") or f"{sys.implementation.name}-unknown",
        "versions": versions,
        "markers": {
            "implementation_name": sys.implementation.name,
            "implementation_version": f"{info.major}.{info.minor}.{info.micro}{kind}",
            "os_name": os.name,
            "platform_machine": platform.machine(),
            "platform_python_implementation": platform.python_implementation(),
            "platform_release": platform.release(),
            "platform_system": platform.system(),
            "platform_version": platform.version(),
            "python_full_version": platform.python_version(),
            "python_version": f"{sys.version_info[0]}.{sys.version_info[1]}",
            "sys_platform": sys.platform,
            "extra": "",
        },
    }


if __name__ == "__main__":
    print(json.dumps(answer(sys.argv[1:])))
