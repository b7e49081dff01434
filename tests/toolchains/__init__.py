"""Toolchains: locks, environments made from them, and the command that keeps them."""
