"""Records files: JSON lines, appended atomically, each run once, read with a check of every line."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from klnorm_lib.study.errors import NotWrittenError, RecordError
from klnorm_lib.study.record import Record, check

ROOM = 2**20  # bytes that must be free before a run begins; a record has some thousands
LABEL = ("name", "arm", "stage")  # of a study: one record for each, though the run be the same

# Digests of the lines that this process has checked: a file is read again for every run of a study.
_sound: set[bytes] = set()


def label(study: Mapping[str, Any] | None) -> tuple | None:
    """What a study calls a run: its name, arm and stage."""
    return None if study is None else tuple(study.get(name) for name in LABEL)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = FileLock(f"{os.path.realpath(path)}.lock")  # one lock, by whatever name the file is called
    try:
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        raise OSError(
            f"{path} cannot be locked ({error}): its folder must be writable, on a file system with locks. Choose "
            "another file (--records)"
        ) from error
    try:
        yield
    finally:
        lock.release()


def check_path(path: str | Path) -> None:
    """Raise ``OSError`` unless a record can be written to ``path``; makes its folder, so that nothing is left to fail.

    Raises ``RecordError`` for a file that holds something else.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it, such as {path / 'run.jsonl'} (--records)")
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is no ordinary file, so it keeps no records; choose another one (--records)")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"the folder of the records file {path} cannot be made ({error}); choose another one") from error
    place = path if path.exists() else path.parent
    if not os.access(place, os.W_OK):
        raise PermissionError(f"{place} is not writable, so no record can be kept in {path}; choose another file")
    if path.is_file():
        with open(path, "rb") as file:
            start = file.read(64).lstrip()
        if start and not start.startswith(b"{"):
            raise RecordError(
                f"{path} is no records file: it begins with {start[:20]!r}; choose another one (--records)"
            )
    free = shutil.disk_usage(path.parent).free
    if free < ROOM:
        raise OSError(f"{free:,} bytes are free where {path} lies, too few for a record; free some space")
    with _locked(path):
        pass


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
    """All records of a file, in order, each checked against the schema; a finished run that is there twice, once.

    Raises ``FileNotFoundError`` if there is no such file and ``RecordError`` naming file and line for a line that is
    cut off, not JSON, or against the schema.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no records file at {path}; `klnorm run` writes one, --records names it")
    *lines, tail = _content(path).split(b"\n")
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
    found = [_parse(line, f"{path}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]
    return distinct(found, lambda record: (record.hash, label(record.study)))


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    if content and not content.endswith(b"\n") and Path(f"{os.path.realpath(path)}.lock").exists():
        with contextlib.suppress(OSError), _locked(path):  # the line may be on its way
            content = path.read_bytes()
    return content


def distinct(records: Iterable[Record], key: Callable[[Record], Hashable] = lambda record: record.hash) -> list[Record]:
    """``records`` without the finished ones of which an earlier one has the same key: a run counts once."""
    seen, kept = set(), []
    for record in records:
        if record.status == "finished":
            if key(record) in seen:
                continue
            seen.add(key(record))
        kept.append(record)
    return kept


def finished(path: str | Path | None, hash: str) -> Record | None:
    """The finished record of this hash, or ``None`` if there is none (failures do not count)."""
    if path is None or not Path(path).is_file():
        return None
    for record in reversed(read_records(path)):
        if record.hash == hash and record.status == "finished":
            record.already_done = True
            return record
    return None


def append(path: str | Path, record: Record) -> Record:
    """Adds one record as one whole line, under a lock, and waits until it is on disk.

    Returns the record that the file then holds: where a finished one of the same hash (under the same name, if it
    belongs to a study) is there already, that one, and nothing is written. A tail left by a killed writer is first
    moved to ``FILE.broken``, so that it cannot swallow the new line. Raises ``RecordError`` if the record breaks the
    schema, and ``NotWrittenError`` if the file does not take the whole line, saying where it was kept instead.
    """
    line = record.to_line().encode()
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            _mend_tail(path)
            there = _there(path, record)
            if there is None:
                _write(path, line)
    except OSError as error:
        raise NotWrittenError(path, error, record, _keep_elsewhere(path, record, line)) from error
    return record if there is None else there


def _there(path: Path, record: Record) -> Record | None:
    """The finished record of the same run in the file, read without the lines of others."""
    if not path.is_file():
        return None
    mark = record.hash.encode()
    with open(path, "rb") as lines:
        for line in lines:
            if mark not in line:
                continue
            with contextlib.suppress(RecordError):  # a broken line is told when the file is read
                other = _parse(line.strip(), str(path))
                same = other.hash == record.hash and label(other.study) == label(record.study)
                if same and other.status == "finished":
                    other.already_done = True
                    return other
    return None


def _write(path: Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        before = os.fstat(descriptor).st_size
        try:
            written = os.write(descriptor, line)
            if written != len(line):
                raise OSError(f"only {written} of {len(line)} bytes fitted")
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, before)
            raise
    finally:
        os.close(descriptor)


def _keep_elsewhere(path: Path, record: Record, line: bytes) -> Path | None:
    """Where the line was written instead: beside ``path``, in the working folder or among temporary files."""
    for folder in (path.parent, Path.cwd(), Path(tempfile.gettempdir())):
        kept = folder / f"{path.stem}-{record.hash[:12]}.jsonl"
        with contextlib.suppress(OSError):
            try:
                _write(kept, line)
            except OSError:
                if not kept.stat().st_size:
                    kept.unlink()
                raise
            return kept
    return None


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
    with _locked(path):
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
    path = Path(os.path.realpath(path))  # a link stays a link
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
