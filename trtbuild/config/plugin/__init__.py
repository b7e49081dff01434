"""`hydra_plugins.trtbuild`: Hydra takes plugins from that package alone, so `trtbuild.config.points` is shown there."""

from trtbuild.config.points import AllAtOnce, Products

__all__ = ["AllAtOnce", "Products"]
