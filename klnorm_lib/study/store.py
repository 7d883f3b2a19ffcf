"""Records files: JSON lines, appended atomically, read with a check of every line."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path

from filelock import FileLock

from klnorm_lib.study.errors import RecordError
from klnorm_lib.study.record import Record, check

# Digests of the lines that this process has checked: a file is read again for every run of a study.
_sound: set[bytes] = set()


def _lock(path: Path) -> FileLock:
    return FileLock(f"{path}.lock")


def _parse(line: bytes, where: str) -> Record:
    try:
        values = json.loads(line)
    except ValueError as error:  # bad UTF-8 included
        raise RecordError(
            f"{where}: not JSON ({error}). The other lines are sound; `klnorm report --records FILE --repair` moves "
            "broken lines to FILE.broken"
        ) from None
    digest = hashlib.sha256(line).digest()
    if digest not in _sound:
        check(values, where)
        _sound.add(digest)
    return Record(**values)


def read_records(path: str | Path) -> list[Record]:
    """All records of a file, in order, each checked against the schema.

    Raises ``FileNotFoundError`` if there is no such file and ``RecordError`` naming file and line for a line that is
    cut off, not JSON, or against the schema.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no records file at {path}; `klnorm run` writes one, --records names it")
    *lines, tail = path.read_bytes().split(b"\n")
    if tail:
        try:
            _parse(tail, "tail")
        except RecordError:
            raise RecordError(
                f"{path}, line {len(lines) + 1}: the line ends in the middle: its writer was interrupted. The "
                f"{len(lines)} lines before it are safe; `klnorm report --records {path} --repair` moves the broken "
                "tail to " + f"{path.name}.broken, then the run can be done again"
            ) from None
        lines.append(tail)
    return [_parse(line, f"{path}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]


def finished(path: str | Path | None, hash: str) -> Record | None:
    """The finished record of this hash, or ``None`` if there is none (failures do not count)."""
    if path is None or not Path(path).is_file():
        return None
    for record in reversed(read_records(path)):
        if record.hash == hash and record.status == "finished":
            record.already_done = True
            return record
    return None


def append(path: str | Path, record: Record) -> None:
    """Adds one record as one whole line, under a lock, and waits until it is on disk.

    A tail left by a killed writer is first moved to ``FILE.broken``, so that it cannot swallow the new line.
    Raises ``RecordError`` if the record breaks the schema and ``OSError`` if the disk does not take the whole line.
    """
    line = record.to_line().encode()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path):
        _mend_tail(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            before = os.fstat(descriptor).st_size
            written = os.write(descriptor, line)
            if written != len(line):
                os.ftruncate(descriptor, before)
                raise OSError(f"{path}: only {written} of {len(line)} bytes fitted; free some disk space and run again")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _mend_tail(path: Path) -> None:
    """Ends an unfinished last line: with a newline if it is whole, else by moving it to ``FILE.broken``."""
    if not path.is_file():
        return
    content = path.read_bytes()
    kept, tail = content[: content.rfind(b"\n") + 1], content[content.rfind(b"\n") + 1 :]
    if not tail:
        return
    try:
        _parse(tail, str(path))
    except RecordError:
        _set_aside(path, [tail])
        _replace(path, kept)
        warnings.warn(f"{path}: a line that was cut off was moved to {path.name}.broken", stacklevel=3)
    else:
        _replace(path, content + b"\n")


def repair(path: str | Path) -> int:
    """Moves every line that cannot be read to ``FILE.broken`` and returns how many there were."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no records file at {path}; nothing to repair")
    with _lock(path):
        sound, broken = [], []
        for line in path.read_bytes().split(b"\n"):
            if not line.strip():
                continue
            try:
                _parse(line, str(path))
            except RecordError:
                broken.append(line)
            else:
                sound.append(line)
        if broken:
            _set_aside(path, broken)
        _replace(path, b"".join(line + b"\n" for line in sound))
    return len(broken)


def _set_aside(path: Path, lines: list[bytes]) -> None:
    with open(f"{path}.broken", "ab") as aside:
        aside.writelines(line + b"\n" for line in lines)
        aside.flush()
        os.fsync(aside.fileno())


def _replace(path: Path, content: bytes) -> None:
    """Puts ``content`` in the place of a file in one step."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as new:
            new.write(content)
            new.flush()
            os.fsync(new.fileno())
        shutil.copymode(path, name)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
