"""One machine of a fleet that wants a key, as a program: it says what it does, a line a step.

    python -m tests.team.host STORE URL KEY PUBLIC_KEY HEARTBEAT SECONDS SAYS

builds for SECONDS, what it builds holds SAYS, and it pushes that; or it has what another one built.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.store.support import publish
from trtstore import Record, Store
from trtstore.exchange.layered import Layered
from trtstore.format.trust import TrustPolicy
from trtstore.remote.leases import Leases
from trtstore.team import open, signing


def say(*words: object) -> None:
    print(*words, flush=True)


def main() -> None:
    root, url, key, public, heartbeat, seconds, says = sys.argv[1:]
    store = Store.open(Path(root), durability="fast")

    def team():
        return open.open_team(url, store, TrustPolicy.require, [public], lambda words: say("told", words))

    def look() -> Record | None:
        return Layered(store, [team()]).lookup(key)

    if look() is not None:
        raise SystemExit("it is there already")
    leases = Leases(team().remote.objects, owner="ci", host=says, heartbeat=float(heartbeat), write=True)
    with leases.hold(
        key, expected=lambda: float(seconds), look=look, on_wait=lambda state: say("waiting", state.words())
    ) as outcome:
        record = outcome.found
        if record is None:
            say("building", None if outcome.held is None else outcome.held.number)
            with store.building(key, who=says), store.scratch() as work:
                time.sleep(float(seconds))
                (work / "out").mkdir()
                (work / "out" / "engine").write_text(says)
                record = publish(store, work / "out", key)
            lost = outcome.held is not None and outcome.held.lost
            pushed = team().push(store, key, signing.signer("ci"))
            say("pushed", pushed.new, "lost" if lost else "held")
    say("has", (store.materialise(record).path / "engine").read_text())


if __name__ == "__main__":
    main()
