"""One package per compiler: what it supports and its steps, for the command line, and its workers.

This module and those of the packages import nothing: a worker runs with its toolchain's packages alone.
"""
