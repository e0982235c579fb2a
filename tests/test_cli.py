import ast
import csv
import dataclasses
import errno
import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ampere.cli import main
from ampere.command_line import COMMANDS, read_flags
from ampere.commands import Decode, Prepare, Summarize, Train
from ampere.config.presets import PRESETS
from ampere.config.settings import Settings
from ampere.records import SAMPLES
from ampere.store.workspace import META_FILE, Workspace
from tests.helpers.catalogs import write_rope
from tests.helpers.processes import free_port

COLUMNS = ["sample_id", "product_id", "domain", "text", "media"]
STAGES = [name for name in COMMANDS if name not in ("demo", "prepare")]


@pytest.fixture(autouse=True)
def no_ray_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "catalog.csv"
    rows = [
        ["a", "p", "page", "title", "a.jpg"],
        ["b", "p", "short", "words", "b.mp4"],
        ["c", "", "live", "", "1.jpg|2.jpg"],
        ["b", "q", "page", "again", "x.jpg"],
        ["d", "q", "radio", "", "d.jpg"],
    ]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return path


def status(*argv: str | Path) -> int:
    """Exit status of `ampere ARGV`, returned or raised as SystemExit."""
    try:
        return main([str(part) for part in argv])
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else 1


def plain(text: str) -> str:
    """Terminal text without colors, frames and line breaks."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", text).split())


def test_prepare_end_to_end(
    tmp_path: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status("prepare", "--workspace", tmp_path / "w", "--manifest", manifest) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1].startswith("prepare: 3 rows done")
    assert "2 failed (" in shown[-1] and f"Result: {tmp_path}/w/samples.lance" in shown[-1]
    assert "catalog.csv:5: duplicate sample_id b (first at catalog.csv:3, kept)" in shown
    workspace = Workspace.open(tmp_path / "w")
    assert workspace.preset == "small"
    assert workspace.table(SAMPLES).count() == 3
    assert status("status", "--workspace", tmp_path / "w") == 0
    assert "prepare 3 0 2 0" in plain(capsys.readouterr().out)
    assert status("status", "--workspace", tmp_path / "w", "--failures") == 0
    assert "catalog.csv:6 InvalidRow (attempt 1): sample d: domain is 'radio'" in plain(
        capsys.readouterr().out
    )
    assert (
        status(
            "export",
            "--workspace",
            tmp_path / "w",
            "--out",
            tmp_path / "out",
            "--tables",
            "samples",
        )
        == 0
    )
    assert pq.read_table(tmp_path / "out" / "samples.parquet").num_rows == 3


def test_prepare_reads_rope(tmp_path: Path) -> None:
    write_rope(tmp_path / "rope")
    images = ("--images", "https://cdn/x")
    assert (
        status(
            "prepare",
            "--workspace",
            tmp_path / "w",
            "--rope",
            tmp_path / "rope",
            *images,
            "--preset",
            "rope",
        )
        == 0
    )
    workspace = Workspace.open(tmp_path / "w")
    assert workspace.preset == "rope"
    uris = (
        workspace.table(SAMPLES)
        .read(where=pc.field("sample_id") == "page-10001")["media_uris"]
        .to_pylist()
    )
    assert uris == [["https://cdn/x/p1.jpg"]]


def test_usage_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert status() == 2
    assert status("--help") == status("-h") == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^  {name} +\w", shown, re.M) for name in COMMANDS)


def test_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("decoed", "--workspace", "w") == 2
    assert "unknown command 'decoed'" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_help_lists_the_flags_of_the_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(name, "--help") == 0
    shown = plain(capsys.readouterr().out)
    flags = {
        "demo": ["--folder", "--products", "--seed", "--port"],
        "prepare": ["--rope", "--images", "--manifest", "--media-folder", "--name-clips"],
        "run": ["--media-folder", "--from", "--until", "--budget-minutes", "--transcribe.model"],
        "decode": ["--decode.num-frames", "--decode.short-side", "--retry-failed"],
        "transcribe": ["--transcribe.model", "--transcribe.engine", "--retry-failed"],
        "summarize": [
            "--summarize.model",
            "--summarize.prompt",
            "--summarize.gpus",
            "--retry-failed",
        ],
        "train": ["--train.batch-size", "--train.epochs", "--model.image-size", "--train.name"],
        "embed": ["--embed.model", "--embed.workers", "--retry-failed"],
        "index": ["--index.model", "--index.split", "--index.target-recall", "rollback"],
        "evaluate": ["--evaluate.models", "--evaluate.compare", "--judgments"],
        "keys": ["add", "list", "remove", "--role", "--id"],
        "figures": ["--figures.models", "--figures.queries"],
        "ablate": ["--ablate.tables", "--ablate.seeds", "--train.epochs"],
        "plan": ["--rows", "--cluster", "--prices", "--sample", "--stages", "--json"],
        "search": ["--file", "--text", "--model", "--k", "--json"],
        "report": ["--model", "--duplicate-similarity", "--agreeing", "--limit", "--json"],
        "serve": ["--serve.port", "--serve.host", "--serve.max-upload-mb"],
        "frames": ["SAMPLE_ID", "--out"],
        "inspect": ["SAMPLE_ID"],
        "evaluate-summaries": ["--gold", "--summarize.method", "--json"],
        "evaluate-transcripts": ["--gold", "--transcribe.model", "--json"],
        "status": ["--failures"],
        "export": ["--out", "--tables"],
    }[name]
    if name != "demo":
        flags += ["--workspace", "--preset"]
    assert [flag for flag in flags if flag not in shown] == []
    assert f"ampere {name}" in shown


def test_search_asks_the_model_of_its_preset(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--workspace", workspace.uri, "--text", "a"]
    for preset, model in (("small+zero-shot", "zero-shot"), ("small", "ampere")):
        assert main(["search", *flags, "--preset", preset]) == 2
        assert f"model '{model}' not found in" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["search", "serve"])
def test_workspace_with_a_system_finds_its_model(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = Workspace.create(tmp_path / "w", "small+zero-shot").uri
    words = ["--text", "a"] if name == "search" else ["--serve.port", str(free_port())]
    assert status(name, "--workspace", uri, *words) == 2
    assert "model 'zero-shot' not found in" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["prepare", *STAGES])
def test_unknown_preset_is_a_usage_error(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(name, "--workspace", tmp_path / "w", "--preset", "huge") == 2
    message = f"ampere {name}: --preset is 'huge'; expected small, demo, rope"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in STAGES if name != "serve"])
def test_missing_workspace_is_a_usage_error(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {
        "export": ["--out", str(tmp_path / "out")],
        "frames": ["a"],
        "inspect": ["a"],
        "evaluate-summaries": ["--gold", "x"],
        "evaluate-transcripts": ["--gold", "x"],
        "plan": ["--rows", "1", "--cluster", "cpu=1x2"],
    }.get(name, [])
    assert status(name, "--workspace", tmp_path / "none", *more) == 2
    shown = capsys.readouterr().err
    assert f"no workspace at {tmp_path}/none" in shown and "ampere prepare" in shown
    assert list(tmp_path.iterdir()) == []


def test_workspace_flag_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    assert status("decode") == 2
    assert "--workspace" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("decode", ["--decode.num-frames", "many"], "--decode.num-frames"),
        ("decode", ["--decode.num-frames", "0"], "it must be at least 1"),
        ("decode", ["--no-such-flag", "1"], "--no-such-flag"),
        ("train", ["--train.batch-size", "7", "--train.workers", "2"], "train.batch_size is 7"),
        ("index", ["--index.split", "dev"], "dev"),
        ("export", [], "--out"),
    ],
)
def test_invalid_flag_is_a_usage_error(
    name: str,
    flags: list[str],
    message: str,
    workspace: Workspace,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert status(name, "--workspace", workspace.uri, *flags) == 2
    assert message in plain(capsys.readouterr().err)


def test_relative_paths_are_refused_inside_a_ray_job(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    manifest: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    for workspace in (["--workspace", "w"], ["--workspace=w"], ["--workspace", "./w"]):
        assert status("prepare", *workspace, "--manifest", manifest) == 2
        assert "relative, and a Ray job runs in a temporary copy" in capsys.readouterr().err
    assert status("prepare", "--workspace", tmp_path / "w", "--manifest", "catalog.csv") == 2
    assert "--manifest catalog.csv is relative" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()
    assert status("prepare", "--workspace", tmp_path / "w", "--manifest", manifest) == 0
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR")
    assert status("prepare", "--workspace", "v", "--manifest", manifest) == 0
    assert (tmp_path / "v" / META_FILE).exists()


def no_flags(_: Path) -> list[str]:
    return []


def both(folder: Path) -> list[str]:
    return ["--rope", str(folder), "--manifest", str(folder / "catalog.csv")]


def images_alone(folder: Path) -> list[str]:
    return ["--manifest", str(folder / "catalog.csv"), "--images", "x"]


def missing_manifest(folder: Path) -> list[str]:
    return ["--manifest", str(folder / "none.csv")]


def missing_column(folder: Path) -> list[str]:
    (folder / "short.csv").write_text("sample_id,product_id,domain,text\na,p,page,t\n")
    return ["--manifest", str(folder / "short.csv")]


def no_rows(folder: Path) -> list[str]:
    (folder / "header.csv").write_text(",".join(COLUMNS) + "\n")
    return ["--manifest", str(folder / "header.csv")]


def unknown_suffix(folder: Path) -> list[str]:
    return ["--manifest", str(folder / "catalog.xlsx")]


def no_rope_files(folder: Path) -> list[str]:
    return ["--rope", str(folder)]


def not_utf_8(folder: Path) -> list[str]:
    (folder / "gbk.csv").write_bytes(
        ",".join([*COLUMNS, "价格"]).encode("gbk") + b"\na,p,page,t,a.jpg,1\n"
    )
    return ["--manifest", str(folder / "gbk.csv")]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (no_flags, "no catalog is given; expected --manifest FILE, --media-folder DIR or"),
        (both, "--rope and --manifest are given; expected one of"),
        (images_alone, "--images requires --rope"),
        (missing_manifest, "none.csv"),
        (missing_column, "media; required are sample_id"),
        (no_rows, "header.csv contains no samples"),
        (unknown_suffix, "expected .csv, .jsonl or .parquet"),
        (no_rope_files, "no ROPE files"),
        (not_utf_8, "gbk.csv"),
    ],
)
def test_unreadable_catalog_creates_no_workspace(
    flags: Callable[[Path], list[str]],
    message: str,
    tmp_path: Path,
    manifest: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert status("prepare", "--workspace", tmp_path / "w", *flags(tmp_path)) == 2
    assert message in plain(capsys.readouterr().err)
    assert not (tmp_path / "w").exists()


def test_only_invalid_rows_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.jsonl").write_text("{\n[]\n")
    assert (
        status("prepare", "--workspace", tmp_path / "w", "--manifest", tmp_path / "bad.jsonl") == 1
    )
    assert "2 failed (2 ParseError" in capsys.readouterr().out


def test_locked_table_is_a_failure_not_a_usage_error(
    workspace: Workspace, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with workspace.lock("samples"):
        assert status("prepare", "--workspace", workspace.uri, "--manifest", manifest) == 1
    assert "failed: another job is writing samples" in capsys.readouterr().err


def test_interrupt_message_says_how_to_resume(
    monkeypatch: pytest.MonkeyPatch, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(self: Prepare) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Prepare, "run", interrupt)
    assert status("prepare", "--workspace", workspace.uri) == 130
    assert "run it again to resume" in capsys.readouterr().err


@pytest.mark.parametrize("preset", PRESETS)
def test_settings_default_to_the_preset_of_the_workspace(tmp_path: Path, preset: str) -> None:
    uri = Workspace.create(tmp_path / "w", preset).uri
    settings = PRESETS[preset]()
    decode = read_flags(Decode, ["--workspace", uri])
    assert isinstance(decode, Decode) and decode.decode == settings.decode
    train = read_flags(Train, ["--workspace", uri])
    assert isinstance(train, Train) and (train.model, train.train) == (
        settings.model,
        settings.train,
    )


def test_flags_override_the_preset_of_the_workspace(workspace: Workspace) -> None:
    flags = ["--workspace", workspace.uri, "--preset", "rope", "--summarize.batch-size", "7"]
    command = read_flags(Summarize, flags)
    assert isinstance(command, Summarize)
    expected = PRESETS["rope"]().summarize
    assert command.summarize == type(expected)(**vars(expected) | {"batch_size": 7})
    assert Workspace.open(workspace.uri).preset == "demo"


def test_retry_failed_is_a_switch(workspace: Workspace) -> None:
    for flags, expected in (([], False), (["--retry-failed"], True)):
        command = read_flags(Decode, ["--workspace", workspace.uri, *flags])
        assert isinstance(command, Decode) and command.retry_failed is expected


def test_each_job_file_runs_the_command_of_its_name() -> None:
    files = sorted((Path(__file__).parents[1] / "jobs").glob("*.py"))
    assert len(files) == 13
    for file in files:
        name = file.stem.replace("_", "-")
        assert name in COMMANDS and f'main(["{name}", *sys.argv[1:]])' in file.read_text()


def fields_without_help(kind: type) -> Iterator[str]:
    """Fields of a dataclass, inherited ones included, that no docstring follows."""
    own = {field.name for field in dataclasses.fields(kind)}
    for base in (base for base in kind.__mro__ if dataclasses.is_dataclass(base)):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(body, ast.ClassDef)
        for line, following in zip(body.body, [*body.body[1:], None], strict=True):
            if not isinstance(line, ast.AnnAssign) or line.target.id not in own:
                continue
            match following:
                case ast.Expr(value=ast.Constant(value=str(text))) if text.strip():
                    pass
                case _:
                    yield f"{base.__name__}.{line.target.id}"


def test_every_setting_and_flag_has_a_help_line() -> None:
    """The docstring below a field is its help text in `--help`."""
    parts = {
        field.name: type(getattr(Settings(), field.name)) for field in dataclasses.fields(Settings)
    }
    missing = {name for kind in parts.values() for name in fields_without_help(kind)}
    # The help text of a group of settings is the docstring of their class.
    groups = {*parts, "settings"}
    for kind in COMMANDS.values():
        missing |= {name for name in fields_without_help(kind) if name.split(".")[1] not in groups}
    assert missing == set()


def test_missing_help_line_is_detected() -> None:
    assert list(fields_without_help(Undocumented)) == ["Undocumented.size", "Undocumented.last"]


@dataclasses.dataclass
class Undocumented:
    """Some settings."""

    size: int
    width: int
    """Width in pixels."""
    last: int = 0


def test_other_schema_version_is_a_usage_error(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path(workspace.uri) / META_FILE).write_text(
        json.dumps({"schema_version": 99, "preset": "demo"})
    )
    assert status("status", "--workspace", workspace.uri) == 2
    assert "schema version 99" in capsys.readouterr().err


def test_full_disk_is_a_failure_not_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scheduler retries failures, but not usage errors."""

    def fill(_: Prepare) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Prepare, "run", fill)
    assert status("prepare", "--workspace", workspace.uri) == 1
    assert "ampere prepare: failed: [Errno 28] No space left on device" in capsys.readouterr().err


def test_missing_cloud_store_library_is_reported_without_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    assert status("status", "--workspace", "gs://bucket/w") == 1
    assert "gcsfs" in capsys.readouterr().err


def test_closed_output_pipe_prints_no_error(workspace: Workspace) -> None:
    """As in `ampere status | head`."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "ampere.cli", "status", "--workspace", workspace.uri]
    result = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (result.returncode, result.stderr) == (1, b"")
