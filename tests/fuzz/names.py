"""Prints the name of each fuzz target, one a line."""

from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    print("\n".join(TARGETS))
