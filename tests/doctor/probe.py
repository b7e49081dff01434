"""Examines machines: each line of standard input is {"root", "words"}, each of standard output the checks, as JSON.

One process for all, with NVML's stand-in in LD_LIBRARY_PATH: it reads its facts anew each time.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from tests.support import nvml
from trtbuild.config import compose, schema
from trtbuild.doctor.examine import examine
from trtbuild.doctor.world import World
from trtbuild.report import doctor


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        root = Path(asked["root"])
        os.environ[nvml.FACTS] = str(root / "facts.txt")
        configs: list[schema.Config] = []
        compose.run(asked["words"], configs.append)
        world = World(root, {"PATH": str(root / "programs"), "HOME": str(root / "home")})
        checks = examine(configs[0], world)
        said = {"checks": [asdict(check) | {"failed": check.failed} for check in checks]}
        print(json.dumps(said | {"lines": list(doctor.lines(checks))}), flush=True)


if __name__ == "__main__":
    main()
