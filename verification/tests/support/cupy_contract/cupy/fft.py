import numpy as np

from cupy._core import build

build("fft", np.fft, globals())
