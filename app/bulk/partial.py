"""`OUTPUT.partial`, the folder that holds an unfinished output and a journal of the rows in that output.

The journal is replaced atomically, and only after the data that it describes is durable. However a run ends, the next
run drops the data that the journal does not record, and continues after the last recorded row.
"""

import fcntl
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from l2v.app.bulk.errors import CommandError, file_errors

_VERSION = 1


@dataclass(frozen=True, slots=True)
class RunProgress:
    """The progress of a run.

    Attributes:
        rows: the number of input rows that are done, good and bad.
        written: the number of vectors written.
        data_bytes: the size of the data file.
        bad: the number of bad rows written.
        bad_bytes: the size of the file of bad rows.
    """

    rows: int = 0
    written: int = 0
    data_bytes: int = 0
    bad: int = 0
    bad_bytes: int = 0


class Partial:
    """The unfinished output of a run. The folder is locked while this context manager is active.

    Attributes:
        progress: the durable progress.
        job: the input, options and model. A resumed run must have the same job.
        bad_file: the file of bad rows, if there is one.
    """

    def __init__(self, output: Path, *, overwrite: bool) -> None:
        self.output = output
        self.folder = output.parent / f"{output.name}.partial"
        self.data = self.folder / "data"
        self.progress = RunProgress()
        self.job: dict[str, Any] = {}
        self.bad_file: str | None = None
        self._overwrite, self._readable = overwrite, True

    def __enter__(self) -> Self:
        with file_errors("write", self.output):
            if self.output.is_dir():
                raise CommandError(f"cannot write {self.output}: it is a folder")
            self._lock = self._locked()
            try:
                self._read_journal()
                self._check_output()
            except BaseException:
                self._close()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def begin(self, job: dict[str, Any], bad_file: Path | None) -> None:
        """Start the job, or resume it from the progress of an earlier run.

        Raises:
            CommandError: the earlier run was for another job, or its bad rows are not in `bad_file`.
        """
        # Standard input cannot be read twice, so a run that reads it starts over.
        if job["input"]["path"] == self.job.get("input", {}).get("path", "-") == "-":
            self._forget()
        for part, value in self.job.items() if self.progress.rows else ():
            if differing := [name for name in value if value[name] != job[part].get(name)]:
                raise CommandError(
                    f"{self.folder} is from an earlier command, which differs in {part} ({', '.join(differing)}): "
                    f"run the earlier command again, or delete the folder to start over"
                )
        path = str(bad_file.resolve()) if bad_file else None
        if self.progress.bad and self.bad_file != path:
            raise CommandError(f"the run to resume writes bad rows to {self.bad_file}: pass that file with --skip-bad")
        if bad_file and self.bad_file != path and bad_file.exists() and not self._overwrite:
            raise CommandError(f"{bad_file} already exists: choose another file for bad rows or pass --overwrite")
        self.job, self.bad_file = job, path
        self.commit(self.progress)

    def commit(self, progress: RunProgress) -> None:
        """Record the progress. The data that the progress counts must already be durable."""
        journal = {"version": _VERSION, "job": self.job, "bad_file": self.bad_file, "progress": asdict(progress)}
        temporary = self.folder / "journal.tmp"
        with file_errors("write", self.output):
            with temporary.open("wb") as file:
                file.write(orjson.dumps(journal, option=orjson.OPT_INDENT_2))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._journal)
            os.fsync(self._lock)
        self.progress = progress

    def publish(self, finished: Path) -> None:
        """Move the finished file to the output's path atomically, and remove the folder."""
        with file_errors("write", self.output):
            self._check_output()  # another program may have created the output meanwhile
            with finished.open("rb") as file:
                os.fsync(file.fileno())
            finished.replace(self.output)
            parent = os.open(self.output.parent, os.O_RDONLY)
            try:
                os.fsync(parent)
            finally:
                os.close(parent)
            shutil.rmtree(self.folder)

    @property
    def _journal(self) -> Path:
        return self.folder / "journal.json"

    def _check_output(self) -> None:
        if self.output.exists() and not self._overwrite:
            raise CommandError(f"{self.output} already exists: choose another output or pass --overwrite")

    def _locked(self) -> int:
        """Create the folder if needed and lock it."""
        while True:
            self.folder.mkdir(exist_ok=True)
            try:
                descriptor = os.open(self.folder, os.O_RDONLY)
            except FileNotFoundError:
                continue  # a run that has just finished removed the folder
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), self.folder.stat()):
                    return descriptor
            except FileNotFoundError:
                pass  # a run that has just finished removed the folder
            except BlockingIOError:
                os.close(descriptor)
                raise CommandError(f"another run is writing {self.output}") from None
            os.close(descriptor)

    @property
    def _disposable(self) -> bool:
        """Whether the folder holds nothing to resume: no journal, or a readable journal without progress."""
        started = self.progress.rows or self.bad_file
        return not self._journal.exists() or (self._readable and not started)

    def _read_journal(self) -> None:
        if self._journal.exists():
            try:
                journal = orjson.loads(self._journal.read_bytes())
                if journal["version"] != _VERSION:
                    raise ValueError
                self.job, self.bad_file = journal["job"], journal["bad_file"]
                self.progress = RunProgress(**journal["progress"])
                if self.progress.data_bytes and not self.data.exists():
                    # The last run published its data, but ended before it removed the folder.
                    self._forget()
                    self.bad_file = None
            except (ValueError, KeyError, TypeError):
                self._readable = False
                raise CommandError(f"{self._journal} cannot be read: delete {self.folder} to start over") from None

    def _forget(self) -> None:
        self.progress, self.job = RunProgress(), {}

    def _close(self) -> None:
        # After `publish`, a later run may already have a folder of the same name.
        if self.folder.is_dir() and os.path.samestat(os.fstat(self._lock), self.folder.stat()) and self._disposable:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)
