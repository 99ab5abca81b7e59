"""Subjects for the tests of everything around an audit: NumPy only, some of them hostile. Loaded as FILE.py:FACTORY."""

import ctypes
import os
import signal
import sys
import time

import numpy as np

from iresnet_verify import Subject

SLOPE = 1.5
RECOVERS = "inverse.recovers-input"


def scaled(**changes):
    """F(x) = 1.5·x in three dimensions, correct unless something is changed."""
    fields = {
        "name": "scaled", "event_shape": (3,), "framework": "numpy",
        "forward": lambda x: SLOPE * x, "inverse": lambda y: y / SLOPE,
        "log_det": lambda x: np.full(len(x), 3 * np.log(SLOPE)),
    }
    return Subject(**{**fields, **changes})


def good():
    return scaled()


def wrong():
    return scaled(name="wrong [bold]\x1b[31m", inverse=lambda y: y / SLOPE + 0.25)


def declared():
    return scaled(name="declared", inverse=lambda y: y / SLOPE + 0.25, expected_failures={RECOVERS: "known since 1.0"})


def declared_but_right():
    return scaled(name="declared but right", expected_failures={RECOVERS: "was wrong once"})


def random_weights():
    """Weights and an error drawn from the global generator: the same only if it is seeded alike."""
    slope, error = 1 + np.random.rand(), np.random.rand()  # noqa: NPY002 - the global generator is the point
    return scaled(name=f"slope {slope!r}", forward=lambda x: slope * x, inverse=lambda y: y / slope + error)


def for_backend(backend="numpy"):
    return scaled(name=f"on {backend}")


def several():
    return [scaled(name="twin"), scaled(name="twin"), scaled(name="no dimension", event_shape=(0,)),
            scaled(name="expanding", lipschitz=1.5)]


# -- hostile calls
def hangs():
    def inverse(y):
        while True:
            pass

    return scaled(name="hangs", inverse=inverse)


def sleeps():
    """Uses no CPU time: the limit of the wall clock ends it."""
    return scaled(name="sleeps", inverse=lambda y: time.sleep(1e6))


def hangs_far_away():
    """Answers while it is read, hangs in checks that look further."""

    def inverse(y):
        while len(y) != 5:
            pass
        return y / SLOPE

    return scaled(name="hangs far away", inverse=inverse)


def exits():
    return scaled(name="exits", inverse=lambda y: sys.exit(0))


def os_exits():
    return scaled(name="os_exits", inverse=lambda y: os._exit(0))


def crashes():
    return scaled(name="crashes", inverse=lambda y: ctypes.string_at(0))


def is_killed():
    return scaled(name="is killed", inverse=lambda y: os.kill(os.getpid(), signal.SIGKILL))


def floods():
    def inverse(y):
        os.write(1, b"to the descriptor\n" * 100_000)
        os.write(2, b"to the descriptor\n" * 100_000)
        print("to the stream\n" * 100_000)
        return y / SLOPE

    return scaled(name="floods", inverse=inverse)


def eats_memory():
    def inverse(y):
        return y / SLOPE + 0 * np.zeros(2**31, np.uint8)[: len(y), None]  # never touched: it is only promised

    return scaled(name="eats memory", inverse=inverse)


# -- hostile factories
def raises():
    raise RuntimeError("two\nlines")


def returns_nothing():
    pass


def returns_a_number():
    return 3


def returns_an_empty_list():
    return []


def needs_an_argument(n):
    return scaled()


def factory_hangs():
    time.sleep(1e6)


def factory_exits():
    sys.exit(0)


def factory_os_exits():
    os._exit(0)


not_a_function = 3


def backend_that_hangs(family):
    time.sleep(60)


def backend_that_crashes(family):
    print("noise")
    os.write(1, b"noise")
    os._exit(3)
