"""The command `trtstore`."""
