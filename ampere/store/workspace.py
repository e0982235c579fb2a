"""Where a catalogue lives: its tables, and the folders for models, indexes and reports.

A workspace is a local folder or a cloud URI (`s3://...`, `gs://...`). `workspace.json` holds the version of the table
schemas and the preset that stages take their settings from unless told otherwise.
"""

import atexit
import fcntl
import json
import posixpath
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import fsspec

from ampere.config.presets import PRESETS
from ampere.records import SCHEMA_VERSION, TableSpec
from ampere.store.table import Table
from ampere.uris import absolute

META_FILE = "workspace.json"


@dataclass(frozen=True)
class Workspace:
    """An opened workspace. Make one by `create` or `open`, which check its version.

    Attributes:
        uri: an absolute local path, or a cloud URI.
        preset: name of its preset.
    """

    uri: str
    preset: str

    @classmethod
    def open(cls, uri: str | Path) -> "Workspace":
        """Open an existing workspace.

        Raises:
            FileNotFoundError: there is no workspace at `uri`.
            ValueError: it was made by another schema version.
        """
        uri = absolute(uri)
        meta_uri = f"{uri}/{META_FILE}"
        fs, path = fsspec.core.url_to_fs(meta_uri)
        if not fs.exists(path):
            raise FileNotFoundError(
                f"no workspace at {uri} ({META_FILE} is missing); make one with `ampere prepare --workspace {uri} ...`"
            )
        meta = json.loads(fs.cat_file(path))
        if meta["schema_version"] != SCHEMA_VERSION:
            raise ValueError(
                f"the workspace at {uri} has schema version {meta['schema_version']}, this ampere reads version "
                f"{SCHEMA_VERSION}; use the ampere that made it, or prepare a new workspace"
            )
        return cls(uri, meta["preset"])

    @classmethod
    def create(cls, uri: str | Path, preset: str | None = None) -> "Workspace":
        """Open a workspace, making it first if there is none. `preset` None keeps what it has (new: demo)."""
        uri = absolute(uri)
        fs, path = fsspec.core.url_to_fs(f"{uri}/{META_FILE}")
        if fs.exists(path):
            workspace = cls.open(uri)
            if preset is None or preset == workspace.preset:
                return workspace
        preset = preset or "demo"
        if preset not in PRESETS:
            raise ValueError(f"unknown preset {preset!r}; there are {', '.join(PRESETS)}")
        fs.makedirs(posixpath.dirname(path), exist_ok=True)
        fs.pipe_file(
            path, json.dumps({"schema_version": SCHEMA_VERSION, "preset": preset}).encode()
        )
        return cls(uri, preset)

    @cached_property
    def is_local(self) -> bool:
        return "://" not in self.uri

    def table(self, spec: TableSpec) -> Table:
        return Table(f"{self.uri}/{spec.name}.lance", spec)

    @contextmanager
    def lock(self, name: str, *, wait: bool = False) -> Iterator[None]:
        """Hold the right to write table `name`: one writer at a time. `wait` waits for a holder to end.

        The lock goes with the process, so a killed job leaves none behind. On a cloud URI there is no such lock, and
        running one stage twice at once is the user's to avoid.

        Raises:
            RuntimeError: another process holds it, and `wait` is not set.
        """
        if not self.is_local:
            yield
            return
        with open(f"{self.uri}/.{name}.lock", "w", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                raise RuntimeError(
                    f"another job is writing {name} in {self.uri}; wait for it to end, or stop it"
                ) from error
            yield

    def publish(self, folder: Path, name: str, *, last: str) -> str:
        """Put a finished local folder at `name` (such as models/ampere), replacing what was there; return its URI.

        In a local workspace it is there whole or not at all. Object stores rename nothing: there the file `last` comes
        after all others, and a folder without it is what a killed job left.
        """
        target = f"{self.uri}/{name}"
        fs, path = fsspec.core.url_to_fs(target)
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
        """A local path of folder `name`: itself in a local workspace, else a copy that goes with this process.

        Every call downloads anew: a model of the same name may be another one by now, and who was given the copy before
        may still read it.

        Raises:
            FileNotFoundError: there is no such folder.
        """
        fs, path = fsspec.core.url_to_fs(f"{self.uri}/{name}")
        if not fs.exists(path):
            raise FileNotFoundError(f"{self.uri} has no {name}")
        if self.is_local:
            return Path(path)
        local = Path(tempfile.mkdtemp(dir=downloads())) / Path(name).name
        fs.get(f"{path}/", f"{local}/", recursive=True)
        return local

    def names(self, folder: str) -> list[str]:
        """Names inside a folder such as `models`, sorted; empty if there is no such folder."""
        fs, path = fsspec.core.url_to_fs(f"{self.uri}/{folder}")
        if not fs.exists(path):
            return []
        found = (Path(entry).name for entry in fs.ls(path, detail=False))
        return sorted(name for name in found if not name.endswith(".new"))

    def read_text(self, name: str) -> str | None:
        """The text of a small file, or None if there is none."""
        fs, path = fsspec.core.url_to_fs(f"{self.uri}/{name}")
        return fs.cat_file(path).decode() if fs.exists(path) else None

    def write_text(self, name: str, text: str) -> str:
        """Write a small file, whole or not at all, and return its URI."""
        return self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, data: bytes) -> str:
        """Write a small file, whole or not at all, and return its URI."""
        target = f"{self.uri}/{name}"
        fs, path = fsspec.core.url_to_fs(target)
        fs.makedirs(posixpath.dirname(path), exist_ok=True)
        if self.is_local:  # a cloud object is there when it is whole
            fs.pipe_file(f"{path}.new", data)
            Path(f"{path}.new").replace(path)
        else:
            fs.pipe_file(path, data)
        return target

    def remove(self, name: str) -> None:
        """Delete a folder."""
        fs, path = fsspec.core.url_to_fs(f"{self.uri}/{name}")
        fs.rm(path, recursive=True)

    def read_report(self, name: str) -> str | None:
        """The text of reports/`name`, or None if there is none."""
        return self.read_text(f"reports/{name}")

    def write_report(self, name: str, text: str) -> str:
        """Write reports/`name` and return its URI."""
        return self.write_text(f"reports/{name}", text)

    def put_report(self, name: str, file: Path | None) -> str:
        """Make reports/`name` a copy of a local file, however long, and return its URI; None removes the report."""
        target = f"{self.uri}/reports/{name}"
        fs, path = fsspec.core.url_to_fs(target)
        if file is not None:
            fs.makedirs(posixpath.dirname(path), exist_ok=True)
            fs.put_file(str(file), path)
        elif fs.exists(path):
            fs.rm_file(path)
        return target


@cache
def downloads() -> Path:
    """The folder for what this process downloads, deleted when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="ampere-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
