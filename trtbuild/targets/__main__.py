"""`python -m trtbuild.targets`: what is detected here, as JSON; without UUIDs and serial numbers, fit for a report."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import Any

from trtbuild.errors import InputError
from trtbuild.targets import hosts, match, nvml
from trtbuild.targets.facts import Kind
from trtbuild.targets.visible import ORDER, VARIABLE


def main() -> int:
    """Prints each GPU as NVML reports it, and the facts made from that; returns 2 if a driver does not work."""
    shown: dict[str, Any] = {
        "cpu": _target("cpu"),
        VARIABLE: "set" if VARIABLE in os.environ else None,  # its value may hold UUIDs
        ORDER: os.environ.get(ORDER),
    }
    code = 0
    try:
        report = nvml.read()
    except InputError as error:
        shown |= {"error": error.message, "hint": error.hint}
        code = 2
    else:
        shown |= {"driver": report.driver, "cuda": report.cuda, "missing": report.missing}
        shown["devices"] = [_device(device) for device in report.devices]
        shown["target"] = _target("cuda")
    sys.stdout.write(json.dumps(shown, indent=2) + "\n")
    return code


def _device(device: nvml.GpuReport) -> dict[str, Any]:
    reported = asdict(device)
    for key in ("uuid", "slices"):
        del reported[key]
    slices = [{"profile": each.profile, "memory_mib": each.memory_mib, "sms": each.sms} for each in device.slices or ()]
    return {
        "reported": {**reported, "mig": device.slices is not None, "slices": slices},
        "facts": [asdict(seen) for seen in hosts.facts(device)],
    }


def _target(kind: Kind) -> dict[str, Any] | None:
    try:
        target = match.at_hand(kind)
    except InputError as error:
        return {"error": error.message, "hint": error.hint}
    return None if target is None else {**asdict(target), "origins": dict(target.origins or {})}


if __name__ == "__main__":
    sys.exit(main())
