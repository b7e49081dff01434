"""The README's example does what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "store" / "README.md"


def test_the_example_runs_twice_and_builds_once(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    code = example.replace('"/var/cache/engines"', repr(str(tmp_path / "engines")))
    code = code.replace("store.publish(", "(print('built') or store).publish(")
    first, second = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(2)
    )
    assert first in (["built", second[0], "hardlink"], ["built", second[0], "reflink"])
    assert second[1:] == ["present"]
    assert (Path(second[0]) / "engine.bin").read_bytes() == b"..."
