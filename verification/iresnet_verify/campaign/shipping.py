"""The subject's code for workers that do not see the disk of this machine: one archive, whose digest is checked before it is used.

The archive holds the folder of the subject's file, subfolders included, but for hidden folders, caches, virtual environments and
campaigns' folders. Where a worker unpacks it, the places of the subject and of the reproductions to each other are as they are here,
so that reproductions written there run here.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from iresnet_verify.campaign.store import FILE
from iresnet_verify.campaign.unit import Unit
from iresnet_verify.subject.errors import SubjectError

LARGEST = 64 * 2**20
"""Bytes that an archive may hold before compression."""
LEFT_OUT = ("__pycache__", "node_modules")


@dataclass(frozen=True)
class Archive:
    """The folder of a subject, packed."""

    content: bytes
    digest: str
    """SHA-256 of the content."""

    @classmethod
    def of(cls, folder: Path) -> Archive:
        """Pack a folder. Raises `SubjectError` if it is too large: it is then hardly the subject's own."""
        buffer, total = io.BytesIO(), 0
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in _files(folder):
                total += path.stat().st_size
                if total > LARGEST:
                    raise SubjectError(
                        f"{folder}: expected at most {LARGEST // 2**20} MB of files to send to workers on other machines, got more; move "
                        "the subject's file into a folder of its own, or let the workers see this disk")
                archive.writestr(zipfile.ZipInfo(path.relative_to(folder).as_posix()), path.read_bytes())
        content = buffer.getvalue()
        return cls(content, hashlib.sha256(content).hexdigest())

    def unpack(self, folder: Path) -> None:
        """Write the files into `folder`. Raises ValueError where the content is not what was packed."""
        if hashlib.sha256(self.content).hexdigest() != self.digest:
            raise ValueError("the archive of the subject's code arrived with another digest than it was sent with")
        with zipfile.ZipFile(io.BytesIO(self.content)) as archive:
            for name in archive.namelist():
                target = (folder / name).resolve()
                if not target.is_relative_to(folder.resolve()):
                    raise ValueError(f"the archive of the subject's code holds a file outside its folder: {name}")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        here = Path(place)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in LEFT_OUT
                            and not any((here / f / sign).exists() for sign in ("pyvenv.cfg", FILE)))
        yield from (path for n in sorted(names) if not n.startswith((".", FILE)) and (path := here / n).is_file())


def visible(unit: Unit, out: Path) -> bool:
    """Whether the campaign's own disk is seen here: its store, and the subject's file."""
    return (out.parent.parent / FILE).is_file() and Path(unit.origin.file).is_file()


class Unpacked:
    """Where archives lie on this worker, each unpacked once."""

    def __init__(self) -> None:
        self.root: Path | None = None

    def place(self, archive: Archive, unit: Unit, out: Path) -> tuple[Unit, Path]:
        """The unit and the folder of its reproductions, on this machine."""
        if self.root is None:
            self.root = Path(tempfile.mkdtemp(prefix="iresnet-verify-code-"))
            weakref.finalize(self, shutil.rmtree, self.root, ignore_errors=True)  # at the latest when the process ends
        root, file = self.root / archive.digest[:32], Path(unit.origin.file)
        common = Path(os.path.commonpath([file.parent, out]))
        folder = root / "disk" / file.parent.relative_to(common)
        if not (root / "whole").exists():
            archive.unpack(folder)
            (root / "whole").touch()
        here = replace(unit, origin=replace(unit.origin, file=str(folder / file.name)))
        return here, root / "disk" / out.relative_to(common)
