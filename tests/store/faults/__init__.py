"""Faults at the boundary of the operating system: calls that kill their process, are refused, or do half."""
