from cupy._core import Device

__all__ = ["Device"]
