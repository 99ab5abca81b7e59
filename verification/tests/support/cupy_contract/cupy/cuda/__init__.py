from typing import Any

from cupy._core import Device
from cupy.cuda import device

__all__ = ["Device", "ExternalStream", "Stream", "device", "is_available", "runtime"]


class Stream:
    null: Any = None

    def synchronize(self) -> None:
        Device().synchronize()


class ExternalStream(Stream):
    pass


class runtime:
    getDeviceCount = staticmethod(lambda: 2)


def is_available() -> bool:
    return True
