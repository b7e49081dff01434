"""The commands `trtbuild` and `trtstore`, as trtbuild installs them."""
