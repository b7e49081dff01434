"""`python -m tests.targets.probe`: resolves targets for the tests, one JSON line in, one out, in a process of its own.

A line in: {"args": command line words, "kinds": what the compiler builds for, "env": {…}}. A line out: the target, as
`trtbuild plan` documents it, or {"error", "option", "hint"}. "env" is set for that line alone; NVML is read anew.
"""

from __future__ import annotations

import json
import os
import sys

from trtbuild import targets
from trtbuild.config import compose, schema
from trtbuild.errors import InputError
from trtbuild.planning import resolve
from trtbuild.report import document, plans


def answer(asked: dict) -> dict:
    seen: list[schema.Config] = []
    try:
        if asked.get("at_hand"):
            here = targets.at_hand("cuda", asked.get("device"))
            return {"none": True} if here is None else document.target(here)
        compose.run(asked["args"], seen.append)
        found = targets.resolve(resolve.target_request(seen[0]), asked["kinds"])
    except InputError as error:
        return {"error": error.message, "option": error.option, "hint": error.hint}
    return {**document.target(found), "words": plans.target_words(found)}


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        before = dict(os.environ)
        os.environ.update(asked["env"])
        print(json.dumps(answer(asked)), flush=True)
        os.environ.clear()
        os.environ.update(before)


if __name__ == "__main__":
    main()
