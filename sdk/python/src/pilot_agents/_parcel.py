"""What is sent: a file, or a folder with all files in it; found, hashed and named before the first byte leaves."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import InvalidArgumentError, NotFoundError, PermissionDeniedError, PilotError

CHUNK = 48 << 10
FOLDER_ENTRIES_MAX = 10_000
PATH_MAX, PART_MAX, DEPTH_MAX = 1024, 255, 32

Stamp = tuple[int, int]
"""By what one sees that a file was changed: its length and its time."""


@dataclass(frozen=True)
class Source:
    """One content on disk."""

    path: Path
    size: int
    sha256: bytes
    stamp: Stamp

    @property
    def id(self) -> bytes:
        """Names it in the steps of its transfer."""
        return self.sha256[:16]

    def changed(self) -> PilotError:
        return InvalidArgumentError(
            f"{self.path} changed while it was sent",
            hint="send it again when nobody writes to it, or send a copy",
        )

    def is_unchanged(self) -> bool:
        try:
            return _stamp(os.stat(self.path)) == self.stamp
        except OSError:
            return False

    def read(self, offset: int, count: int) -> bytes:
        """So many bytes from there."""
        try:
            with open(self.path, "rb") as file:
                file.seek(offset)
                data = file.read(count)
        except OSError as error:
            raise unreadable(self.path, error) from None
        if len(data) < count:
            raise self.changed()
        return data


@dataclass(frozen=True)
class Parcel:
    """Something to be sent."""

    name: str
    sha256: bytes
    """Of the file, or of the manifest."""
    sources: list[Source]
    """What has to be sent: each content once."""
    length: int
    """Bytes of the file, or of all files in the folder."""
    manifest: bytes | None = None
    files: int | None = None
    skipped: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of the sources."""
        return sum(source.size for source in self.sources)


def unreadable(path: Path, error: OSError) -> PilotError:
    kinds: list[tuple[type[OSError], type[PilotError]]] = [
        (FileNotFoundError, NotFoundError),
        (PermissionError, PermissionDeniedError),
    ]
    cls = next((ours for theirs, ours in kinds if isinstance(error, theirs)), InvalidArgumentError)
    return cls(f"cannot read {path}: {error.strerror or error}")


def open_parcel(path: Path, name: str | None) -> Parcel:
    """Opens a file, or looks through a folder, and computes the hashes."""
    # `.` and `a/..` have names only when one asks where they are.
    name = name or path.name or path.resolve().name
    if not name:
        raise InvalidArgumentError(f"{path} has no name to send it under")
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise unreadable(path, error) from None
    if stat.S_ISDIR(mode):
        return _folder(path, name)
    if not stat.S_ISREG(mode):
        raise InvalidArgumentError(f"cannot read {path}: not a regular file")
    source = _source(path)
    return Parcel(name, source.sha256, [source], source.size)


def _stamp(found: os.stat_result) -> Stamp:
    return (found.st_size, found.st_mtime_ns)


def _source(path: Path) -> Source:
    digest, size = hashlib.sha256(), 0
    try:
        with open(path, "rb") as file:
            stamp = _stamp(os.fstat(file.fileno()))
            while block := file.read(1 << 20):
                digest.update(block)
                size += len(block)
    except OSError as error:
        raise unreadable(path, error) from None
    return Source(path, size, digest.digest(), stamp)


def _folder(root: Path, name: str) -> Parcel:
    found, empty, skipped = _look_through(root)
    files: list[dict[str, Any]] = []
    sources: dict[bytes, Source] = {}
    # The manifest's order is that of the paths, and contents are counted in it.
    for relative, executable in sorted(found):
        source = _source(root / relative)
        entry: dict[str, Any] = {"path": relative, "size": source.size, "sha256": source.sha256.hex()}
        if executable:
            entry["executable"] = True
        files.append(entry)
        sources.setdefault(source.sha256, source)
    if len(files) > FOLDER_ENTRIES_MAX or len(empty) > FOLDER_ENTRIES_MAX:
        raise InvalidArgumentError(f"{root} has more than {FOLDER_ENTRIES_MAX} files", hint="pack it first: tar")
    manifest = json.dumps(
        {"files": files, "folders": sorted(empty)}, ensure_ascii=False, separators=(",", ":")
    ).encode()
    return Parcel(
        name,
        hashlib.sha256(manifest).digest(),
        list(sources.values()),
        sum(entry["size"] for entry in files),
        manifest,
        len(files),
        sorted(skipped),
    )


def _look_through(root: Path) -> tuple[list[tuple[str, bool]], list[str], list[str]]:
    files: list[tuple[str, bool]] = []
    empty: list[str] = []
    skipped: list[str] = []
    folders, entries = [""], 0
    while folders:
        folder = folders.pop()
        try:
            inside = list(os.scandir(root / folder))
        except OSError as error:
            raise unreadable(root / folder, error) from None
        if not inside and folder:
            empty.append(folder)
        for entry in inside:
            entries += 1
            if entries > 2 * FOLDER_ENTRIES_MAX:
                raise InvalidArgumentError(
                    f"{root} has more than {FOLDER_ENTRIES_MAX} files", hint="pack it first: tar"
                )
            relative = _fit(f"{folder}/{entry.name}" if folder else entry.name, root)
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                folders.append(relative)
            elif stat.S_ISREG(mode):
                files.append((relative, bool(mode & 0o100)))
            else:
                skipped.append(relative)
    return files, empty, skipped


def _fit(relative: str, root: Path) -> str:
    """The path, if the receiver can rebuild it."""
    parts = relative.split("/")
    try:
        too_long = len(relative.encode()) > PATH_MAX or any(len(part.encode()) > PART_MAX for part in parts)
    except UnicodeEncodeError:
        raise InvalidArgumentError(
            f"{root}/{relative!r} cannot be sent: its name is not UTF-8",
            hint="rename it, or pack the folder first: tar",
        ) from None
    bad = any(char == "\\" or ord(char) < 32 or 127 <= ord(char) < 160 for char in relative)
    if too_long or bad or len(parts) > DEPTH_MAX:
        raise InvalidArgumentError(
            f"{root / relative} cannot be sent: a name with control characters or `\\`, or too deep or long a path",
            hint="rename it, or pack the folder first: tar",
        )
    return relative
