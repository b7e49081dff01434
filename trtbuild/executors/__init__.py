"""How a step is run: in an isolated process or container, with limits."""
