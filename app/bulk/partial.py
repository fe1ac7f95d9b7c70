"""`OUTPUT.partial`: the folder that holds a run's work until it is complete, and how far it has come.

The journal is replaced as a whole after the data that it speaks of is durable. So whenever a run ends, by whatever
means, the next one cuts off what the journal does not know and goes on with the row behind the last that it does.
"""

import fcntl
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from l2v.app.bulk.errors import BulkError, telling

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come.

    Attributes:
        rows: of the input, from its start.
        written: vectors.
        data_bytes: of the data file.
        bad: rows set aside.
        bad_bytes: of the file that they are set aside in.
    """

    rows: int = 0
    written: int = 0
    data_bytes: int = 0
    bad: int = 0
    bad_bytes: int = 0


class Partial:
    """The work on one output, locked for as long as it is open.

    Attributes:
        progress: what is durable.
        job: what the work belongs to: input, options and model, all of which a resumed run must share.
        bad_file: where bad rows have been set aside, if any were.
    """

    def __init__(self, output: Path, *, overwrite: bool) -> None:
        self.output = output
        self.folder = output.parent / f"{output.name}.partial"
        self.data = self.folder / "data"
        self.progress = Progress()
        self.job: dict[str, Any] = {}
        self.bad_file: str | None = None
        self._overwrite, self._readable = overwrite, True

    def __enter__(self) -> Self:
        with telling("write", self.output):
            if self.output.is_dir():
                raise BulkError(f"cannot write {self.output}: it is a folder")
            self._lock = self._locked()
            try:
                self._read_journal()
                self._check_output()
            except BaseException:
                self._close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def begin(self, job: dict[str, Any], bad_file: Path | None) -> None:
        """Takes up the job, where an earlier run left it if there was one.

        Raises:
            BulkError: the earlier run had another job.
        """
        for part, value in self.job.items() if self.progress.rows else ():
            if differing := [name for name in value if value[name] != job[part].get(name)]:
                raise BulkError(
                    f"{self.folder} was begun with another {part} ({', '.join(differing)}): "
                    f"run that command to its end, or delete the folder to begin anew"
                )
        path = str(bad_file.resolve()) if bad_file else None
        if self.progress.bad and self.bad_file != path:
            raise BulkError(f"the run to resume has set bad rows aside in {self.bad_file}: name that with --skip-bad")
        if bad_file and self.bad_file != path and bad_file.exists() and not self._overwrite:
            raise BulkError(f"{bad_file} exists already: name another file for bad rows, or say --overwrite")
        self.job, self.bad_file = job, path
        self.commit(self.progress)

    def forget(self) -> None:
        """Begins anew: an input that cannot be read twice cannot be resumed. Its file of bad rows is written anew."""
        self.progress, self.job = Progress(), {}

    def commit(self, progress: Progress) -> None:
        """Records that so much is durable."""
        journal = {"version": _VERSION, "job": self.job, "bad_file": self.bad_file, "progress": asdict(progress)}
        temporary = self.folder / "journal.tmp"
        with telling("write", self.output):
            with temporary.open("wb") as file:
                file.write(orjson.dumps(journal, option=orjson.OPT_INDENT_2))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._journal)
            os.fsync(self._lock)
        self.progress = progress

    def publish(self, finished: Path) -> None:
        """Puts the finished file under the output's name, at once, and removes the folder."""
        with telling("write", self.output):
            self._check_output()  # somebody else may have made it since
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
            raise BulkError(f"{self.output} exists already: name another output, or say --overwrite")

    def _locked(self) -> int:
        """The folder, made where it is not there, and locked."""
        while True:
            self.folder.mkdir(exist_ok=True)
            try:
                descriptor = os.open(self.folder, os.O_RDONLY)
            except FileNotFoundError:
                continue  # the run before has just finished and removed it
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), self.folder.stat()):
                    return descriptor
            except FileNotFoundError:
                pass  # as above
            except BlockingIOError:
                os.close(descriptor)
                raise BulkError(f"another run is writing {self.output}") from None
            os.close(descriptor)

    @property
    def _worthless(self) -> bool:
        """Whether there is nothing to come back to: no journal, or one that we read and that knows of nothing."""
        begun = self.progress.rows or self.bad_file
        return not self._journal.exists() or (self._readable and not begun)

    def _read_journal(self) -> None:
        if self._journal.exists():
            try:
                journal = orjson.loads(self._journal.read_bytes())
                if journal["version"] != _VERSION:
                    raise ValueError
                self.job, self.bad_file = journal["job"], journal["bad_file"]
                self.progress = Progress(**journal["progress"])
                if self.progress.data_bytes and not self.data.exists():
                    # The run before put it under the output's name, and ended before it removed the rest.
                    self.forget()
                    self.bad_file = None
            except (ValueError, KeyError, TypeError):
                self._readable = False
                raise BulkError(f"{self._journal} cannot be read: delete {self.folder} to begin anew") from None

    def _close(self) -> None:
        if self._worthless and self.folder.is_dir():
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)
