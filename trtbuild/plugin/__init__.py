"""`hydra_plugins.trtbuild`: Hydra takes plugins from that package alone, so `trtbuild.points` is shown there."""

from trtbuild.points import AllAtOnce, Products

__all__ = ["AllAtOnce", "Products"]
