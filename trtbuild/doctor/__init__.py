"""`trtbuild doctor`: what is missing on this machine for a config, and the command that fixes it."""
