import json
import subprocess
import sys
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from ampere.config.presets import PRESETS
from ampere.records import SAMPLES, SCHEMA_VERSION
from ampere.store.workspace import META_FILE, Workspace
from ampere.uris import absolute


def write_folder(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def files_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_create_then_open(tmp_path: Path) -> None:
    made = Workspace.create(tmp_path / "deep" / "workspace", "rope")
    assert made.uri == str(tmp_path / "deep" / "workspace")
    assert Workspace.open(made.uri) == made
    assert json.loads((tmp_path / "deep" / "workspace" / META_FILE).read_text()) == {
        "schema_version": SCHEMA_VERSION,
        "preset": "rope",
    }


def test_create_keeps_the_preset_by_default(tmp_path: Path) -> None:
    assert Workspace.create(tmp_path / "w").preset == "small"
    assert Workspace.create(tmp_path / "w", "rope").preset == "rope"
    assert Workspace.create(tmp_path / "w").preset == "rope"
    assert Workspace.open(tmp_path / "w").preset == "rope"
    assert Workspace.create(tmp_path / "v", default="small+zero-shot").preset == "small+zero-shot"
    assert Workspace.create(tmp_path / "v").preset == "small+zero-shot"


def test_changing_the_preset_keeps_the_tables(workspace: Workspace) -> None:
    workspace.table(SAMPLES).upsert([{"sample_id": "a"}])
    assert Workspace.create(workspace.uri, "rope").table(SAMPLES).count() == 1


def test_unknown_preset_creates_no_workspace(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'huge'; expected small, demo, rope"):
        Workspace.create(tmp_path / "w", "huge")
    with pytest.raises(ValueError, match=r"'small\+zero'; expected a system of ampere"):
        Workspace.create(tmp_path / "w", "small+zero")
    assert not (tmp_path / "w").exists()


def test_open_error_names_the_workspace_and_ampere_prepare(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no workspace at {tmp_path}/w .*ampere prepare"):
        Workspace.open(tmp_path / "w")


@pytest.mark.parametrize("preset", [None, *PRESETS])
def test_other_schema_version_is_refused(workspace: Workspace, preset: str | None) -> None:
    meta = Path(workspace.uri) / META_FILE
    meta.write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1, "preset": "demo"}))
    with pytest.raises(
        ValueError,
        match=f"version {SCHEMA_VERSION + 1}; expected {SCHEMA_VERSION}",
    ):
        Workspace.open(workspace.uri)
    with pytest.raises(ValueError, match="schema version"):
        Workspace.create(workspace.uri, preset)


HOLD_LOCK = """
import sys
from ampere.store.workspace import Workspace
with Workspace.open(sys.argv[1]).lock("samples"):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_lock_excludes_other_processes_and_ends_with_its_process(workspace: Workspace) -> None:
    command = [sys.executable, "-c", HOLD_LOCK, workspace.uri]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
        with (
            pytest.raises(RuntimeError, match="another job is writing samples"),
            workspace.lock("samples"),
        ):
            pass
        with workspace.lock("frames"):  # another table is free
            pass
        holder.kill()  # no cleanup: the operating system releases the lock
        with workspace.lock("samples", wait=True):
            pass


def test_lock_is_released_after_an_error(workspace: Workspace) -> None:
    with pytest.raises(KeyError), workspace.lock("samples"):
        raise KeyError
    with workspace.lock("samples"):
        pass


def test_publish_replaces_the_folder(workspace: Workspace, tmp_path: Path) -> None:
    first = write_folder(tmp_path / "one", a="1", sub__b="2")
    where = workspace.publish(first, "models/ampere", last="a")
    assert where == f"{workspace.uri}/models/ampere"
    assert files_of(workspace.fetch("models/ampere")) == {"a": "1", "sub/b": "2"}
    workspace.publish(write_folder(tmp_path / "two", c="3"), "models/ampere", last="c")
    assert files_of(workspace.fetch("models/ampere")) == {"c": "3"}
    assert files_of(first) == {"a": "1", "sub/b": "2"}


def test_leftovers_of_a_killed_publish_are_ignored(workspace: Workspace, tmp_path: Path) -> None:
    write_folder(Path(workspace.uri) / "models" / "ampere.new", half="x")
    assert workspace.names("models") == []
    workspace.publish(write_folder(tmp_path / "one", a="1"), "models/ampere", last="a")
    assert workspace.names("models") == ["ampere"]
    assert files_of(workspace.fetch("models/ampere")) == {"a": "1"}


def test_names_are_sorted_and_empty_without_a_folder(workspace: Workspace, tmp_path: Path) -> None:
    assert workspace.names("models") == []
    folder = write_folder(tmp_path / "one", a="1")
    for name in ("b", "a", "c-2"):
        workspace.publish(folder, f"models/{name}", last="a")
    assert workspace.names("models") == ["a", "b", "c-2"]


def test_fetch_error_names_the_missing_folder(workspace: Workspace) -> None:
    with pytest.raises(FileNotFoundError, match=f"models/none not found in {workspace.uri}"):
        workspace.fetch("models/none")


def test_reports_are_written_and_replaced(workspace: Workspace) -> None:
    workspace.write_report("e.json", "old, and longer")
    where = workspace.write_report("e.json", "云")
    assert Path(where).read_text(encoding="utf-8") == "云"
    assert where == f"{workspace.uri}/reports/e.json"


def test_workspace_at_a_cloud_uri(tmp_path: Path) -> None:
    """The in-memory store of fsspec stands in for a cloud store; Lance tables are not covered."""
    uri = f"memory://bucket-{tmp_path.name}/workspace"
    with pytest.raises(FileNotFoundError):
        Workspace.open(uri)
    made = Workspace.create(uri + "/", "rope")
    assert made.uri == uri and not made.is_local
    assert Workspace.open(uri) == made
    refused = "memory:// has no lock that ampere knows; expected .* s3://"
    with pytest.raises(ValueError, match=refused), made.lock("samples"):
        pass
    made.publish(write_folder(tmp_path / "one", a="1", sub__b="2"), "models/ampere", last="a")
    made.publish(write_folder(tmp_path / "two", c="3", sub__b="4"), "models/ampere", last="c")
    assert made.names("models") == ["ampere"]
    fetched = made.fetch("models/ampere")
    assert fetched.name == "ampere"
    assert files_of(fetched) == {"c": "3", "sub/b": "4"}


def test_killed_publish_on_an_object_store_leaves_no_last_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Workspace.create(f"memory://bucket-{tmp_path.name}/workspace", "demo")
    made.publish(write_folder(tmp_path / "one", a="1", b="2", c="3"), "models/m", last="b")
    put = MemoryFileSystem.put_file

    def killed(store: MemoryFileSystem, source: str, goal: str) -> None:
        put(store, source, goal)
        if goal.endswith("c"):
            raise KeyboardInterrupt

    monkeypatch.setattr(MemoryFileSystem, "put_file", killed)
    with pytest.raises(KeyboardInterrupt):
        made.publish(write_folder(tmp_path / "two", a="4", b="5", c="6"), "models/m", last="b")
    assert (made.read_text("models/m/c"), made.read_text("models/m/b")) == ("6", None)


FETCH = """
import sys
from pathlib import Path
from ampere.store.workspace import Workspace
made = Workspace.create("memory://bucket/workspace")
made.publish(Path(sys.argv[1]), "models/ampere", last="a")
for _ in range(2):
    print(made.fetch("models/ampere"), (made.fetch("models/ampere") / "a").read_text())
"""


def test_downloads_are_deleted_when_the_process_ends(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "one", a="1")
    command = [sys.executable, "-c", FETCH, str(folder)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    copies = [Path(name) for name in shown[::2]]
    assert shown[1::2] == ["1", "1"] and len(set(copies)) == 2
    assert (
        copies[0].parent.parent == copies[1].parent.parent and not copies[0].parent.parent.exists()
    )


def test_absolute_paths_and_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert absolute("w/") == absolute(Path("w")) == f"{tmp_path}/w"
    assert absolute("~/w") == "/home/someone/w"
    assert absolute("s3://bucket/w/") == "s3://bucket/w"
