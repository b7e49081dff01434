"""Labels that the store itself reads. All others are its users' words."""

from __future__ import annotations

from collections.abc import Mapping

#: The keys of records, joined by commas, that a record needs for as long as it is kept.
NEEDS = "needs"


def needs(labels: Mapping[str, str]) -> list[str]:
    """The keys of the records that a record with these labels needs.

    >>> needs({"needs": f"{'ab' * 32},{'cd' * 32}"}) == ["ab" * 32, "cd" * 32]
    True
    """
    return [key for key in labels.get(NEEDS, "").split(",") if key]
