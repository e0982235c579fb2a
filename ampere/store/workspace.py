"""A workspace: the tables of a catalog, and folders for models, indexes and reports.

It is a local folder or a cloud URI (`s3://...`, `gs://...`). Its `workspace.json` contains the
version of the table schemas and the preset that provides the default settings of the stages.
"""

import json
import posixpath
import shutil
import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from ampere.config.presets import DEFAULT_PRESET
from ampere.config.systems import named_settings
from ampere.interrupts import at_exit
from ampere.records import SCHEMA_VERSION, TableSpec
from ampere.store.locks import check_locks, hold_lock
from ampere.store.table import Table
from ampere.uris import absolute, filesystem, is_uri

META_FILE = "workspace.json"


@dataclass(frozen=True)
class Workspace:
    """An opened workspace. Get one from `create` or `open`, which check its schema version.

    Attributes:
        uri: an absolute local path, or a cloud URI.
        preset: name of the preset, or PRESET+SYSTEM.
    """

    uri: str
    preset: str

    @staticmethod
    def exists(uri: str | Path) -> bool:
        """Whether there is a workspace at `uri`, of any schema version."""
        fs, path = filesystem(f"{absolute(uri)}/{META_FILE}")
        return fs.exists(path)

    @classmethod
    def open(cls, uri: str | Path) -> "Workspace":
        """Open an existing workspace.

        Raises:
            FileNotFoundError: there is no workspace at `uri`.
            ValueError: the workspace has another schema version, or its workspace.json is damaged.
        """
        uri = absolute(uri)
        meta_uri = f"{uri}/{META_FILE}"
        fs, path = filesystem(meta_uri)
        if not fs.exists(path):
            raise FileNotFoundError(
                f"no workspace at {uri} ({META_FILE} is missing). Create one with "
                f"`ampere prepare --workspace {uri} ...`"
            )
        meta = _parse_meta(fs.cat_file(path), meta_uri)
        if meta["schema_version"] != SCHEMA_VERSION:
            raise ValueError(
                f"the workspace at {uri} has schema version {meta['schema_version']}; expected "
                f"{SCHEMA_VERSION}. Use the ampere that created it, or prepare a new workspace"
            )
        return cls(uri, meta["preset"])

    @classmethod
    def create(
        cls, uri: str | Path, preset: str | None = None, *, default: str = DEFAULT_PRESET
    ) -> "Workspace":
        """Open a workspace, or create it if there is none.

        Args:
            uri: local folder or cloud URI.
            preset: its preset or PRESET+SYSTEM from now on; None: unchanged.
            default: preset of a new workspace, if none is given.

        Raises:
            ValueError: the preset or its system is unknown, or the workspace has another schema
                version.
        """
        uri = absolute(uri)
        fs, path = filesystem(f"{uri}/{META_FILE}")
        if fs.exists(path):
            workspace = cls.open(uri)
            if preset is None or preset == workspace.preset:
                return workspace
        preset = preset or default
        named_settings(preset)  # an unknown one is refused before anything is written
        workspace = cls(uri, preset)
        meta = {"schema_version": SCHEMA_VERSION, "preset": preset}
        workspace.write_text(META_FILE, json.dumps(meta))
        return workspace

    @cached_property
    def is_local(self) -> bool:
        """Whether the workspace is a local folder, not a cloud URI."""
        return not is_uri(self.uri)

    def table(self, spec: TableSpec) -> Table:
        """The table of a spec; it need not exist yet."""
        return Table(f"{self.uri}/{spec.name}.lance", spec)

    def lock(self, name: str, *, wait: bool = False) -> AbstractContextManager[None]:
        """Hold the write lock of a table or folder: one writer at a time.

        A killed job leaves none behind: the operating system releases a file lock, and a lease on
        a cloud URI ends a minute after its last renewal.

        Args:
            name: of the table or folder.
            wait: wait for the current holder instead of raising.

        Raises:
            RuntimeError: another process holds the lock, and `wait` is not set.
            ValueError: there are no leases in this kind of store.
        """
        return hold_lock(self.uri, name, wait=wait)

    def commit_lock(self, table: str) -> AbstractContextManager[None]:
        """Hold a table for a look at another one and the commit that depends on it; waits.

        Commits alone need no lock: Lance repeats one that conflicts with another.
        """
        return self.lock(f"{table}-commit", wait=True)

    def publish(self, folder: Path, name: str, *, last: str) -> str:
        """Copy a finished local folder to `name` (such as models/ampere) and return its URI.

        An existing folder is replaced. In a local workspace, a killed job leaves the folder
        complete or absent. Object stores cannot rename: there the file `last` is uploaded after all
        others, and a folder without it was left by a killed job.
        """
        check_locks()
        target = f"{self.uri}/{name}"
        fs, path = filesystem(target)
        staging = path + ".new" if self.is_local else path
        if fs.exists(staging):
            fs.rm(staging, recursive=True)
        fs.makedirs(posixpath.dirname(path), exist_ok=True)
        files = [file for file in folder.rglob("*") if file.is_file()]
        for file in sorted(files, key=lambda file: file == folder / last):
            goal = f"{staging}/{file.relative_to(folder).as_posix()}"
            fs.makedirs(posixpath.dirname(goal), exist_ok=True)
            fs.put_file(str(file), goal)
        if self.is_local:
            if fs.exists(path):
                fs.rm(path, recursive=True)
            fs.mv(staging, path, recursive=True)
        return target

    def fetch(self, name: str) -> Path:
        """A local path of folder `name`: the folder itself, or a copy of a cloud folder.

        Copies are deleted when this process ends. Every call downloads again, since the folder may
        have been replaced, and an earlier copy may still be in use.

        Raises:
            FileNotFoundError: there is no such folder.
        """
        fs, path = filesystem(f"{self.uri}/{name}")
        if not fs.exists(path):
            raise FileNotFoundError(f"{name} not found in {self.uri}")
        if self.is_local:
            return Path(path)
        local = Path(tempfile.mkdtemp(dir=downloads())) / Path(name).name
        fs.get(f"{path}/", f"{local}/", recursive=True)
        return local

    def names(self, folder: str) -> list[str]:
        """Sorted names of the entries of a folder such as `models`; empty if it does not exist."""
        fs, path = filesystem(f"{self.uri}/{folder}")
        if not fs.exists(path):
            return []
        names = (Path(entry).name for entry in fs.ls(path, detail=False))
        return sorted(name for name in names if not name.endswith(".new"))

    def read_text(self, name: str) -> str | None:
        """Read a small text file; None if it does not exist."""
        fs, path = filesystem(f"{self.uri}/{name}")
        return fs.cat_file(path).decode() if fs.exists(path) else None

    def write_text(self, name: str, text: str) -> str:
        """Write a small text file atomically and return its URI."""
        return self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, data: bytes) -> str:
        """Write a small file atomically and return its URI."""
        target = f"{self.uri}/{name}"
        fs, path = filesystem(target)
        fs.makedirs(posixpath.dirname(path), exist_ok=True)
        if self.is_local:  # a cloud object appears only when it is complete
            fs.pipe_file(f"{path}.new", data)
            Path(f"{path}.new").replace(path)
        else:
            fs.pipe_file(path, data)
        return target

    def remove(self, name: str) -> None:
        """Delete a folder."""
        fs, path = filesystem(f"{self.uri}/{name}")
        fs.rm(path, recursive=True)

    def read_report(self, name: str) -> str | None:
        """Read the text of reports/`name`; None if it does not exist."""
        return self.read_text(f"reports/{name}")

    def write_report(self, name: str, text: str) -> str:
        """Write reports/`name` and return its URI."""
        return self.write_text(f"reports/{name}", text)

    def put_report(self, name: str, file: Path | None) -> str:
        """Copy a local file of any size to reports/`name`, or delete the report; return its URI."""
        target = f"{self.uri}/reports/{name}"
        fs, path = filesystem(target)
        if file is not None:
            fs.makedirs(posixpath.dirname(path), exist_ok=True)
            fs.put_file(str(file), path)
        elif fs.exists(path):
            fs.rm_file(path)
        return target


@cache
def downloads() -> Path:
    """The folder for downloads of this process, deleted when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="ampere-"))
    at_exit(lambda: shutil.rmtree(folder, ignore_errors=True))
    return folder


def _parse_meta(content: bytes, uri: str) -> dict[str, Any]:
    """The content of workspace.json.

    Raises:
        ValueError: it is damaged.
    """
    try:
        meta = json.loads(content)
        return {"schema_version": meta["schema_version"], "preset": str(meta["preset"])}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{uri} is damaged: {content[:80]!r}; expected a JSON object with schema_version and "
            f"preset. If the tables beside it are intact, write "
            f'{{"schema_version": {SCHEMA_VERSION}, "preset": "{DEFAULT_PRESET}"}} to it; '
            "otherwise delete the folder and prepare again"
        ) from error
