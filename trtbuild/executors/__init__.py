"""How a step is run: apart from the command line, in isolation, with limits."""
