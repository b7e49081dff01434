"""One package per compiler: what it supports, its steps, and its workers.

This file and the `__init__` of each package import nothing: a worker has only the packages of its toolchain.
"""
