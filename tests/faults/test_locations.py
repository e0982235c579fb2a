"""Unusual locations: `file://` URIs, odd names, empty ones, damaged workspace files."""

import csv
import functools
import json
import os
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from ampere.cli import main
from ampere.media.decoder import MissingMedia
from ampere.media.source import load
from ampere.records import SAMPLES
from ampere.store.workspace import META_FILE, Workspace
from ampere.uris import absolute

ODD_NAMES = ["a%20b", "100%", "a#b", "a?b", "run::2", "云 岚"]


def write_manifest(folder: Path, media: str) -> Path:
    path = folder / "m.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["sample_id", "domain", "media"], ["s", "page", media]])
    return path


def prepare(manifest: str, workspace: str) -> int:
    return main(["prepare", "--manifest", manifest, "--workspace", workspace])


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """An HTTP server of the test's folder."""
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_file_uri_is_the_local_path(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/w"
    workspace = Workspace.create(uri)
    assert workspace.uri == str(tmp_path / "w") and workspace.is_local
    assert (
        absolute(f"file://localhost{tmp_path}/w")
        == absolute(f"local://{tmp_path}/w")
        == str(tmp_path / "w")
    )
    with (
        workspace.lock("frames"),
        pytest.raises(RuntimeError, match="another job is writing frames"),
        Workspace.open(uri).lock("frames"),
    ):
        pass


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_characters_of_local_names_are_literal(tmp_path: Path, name: str, scheme: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"x")
    manifest = write_manifest(folder, "a.jpg")
    uri = f"{scheme}{folder}/w"
    assert prepare(f"{scheme}{manifest}", uri) == 0
    (row,) = Workspace.open(uri).table(SAMPLES).read().to_pylist()
    assert row["media_uris"] == [f"{folder}/a.jpg"]
    assert load(row["media_uris"][0], 9) == load(f"file://{folder}/a.jpg", 9) == b"x"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_missing_media_at_an_odd_name(tmp_path: Path) -> None:
    with pytest.raises(MissingMedia, match="media file not found: .*a::b.jpg"):
        load(f"{tmp_path}/a::b.jpg", 9)


def test_link_keeps_its_own_name_and_folder(tmp_path: Path) -> None:
    """A cache of downloads links names to files that are named by their checksum."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "a.jpg").write_bytes(b"x")
    blob = write_manifest(tmp_path / "blobs", "a.jpg").rename(tmp_path / "blobs" / "3f2a")
    (tmp_path / "shop" / "m.csv").symlink_to(blob)
    assert prepare(f"{tmp_path}/shop/m.csv", f"{tmp_path}/w") == 0
    (row,) = Workspace.open(tmp_path / "w").table(SAMPLES).read().to_pylist()
    assert row["media_uris"] == [f"{tmp_path}/shop/a.jpg"]


def test_signed_url_of_a_manifest(tmp_path: Path, server: str) -> None:
    write_manifest(tmp_path, "pages/a.mp4")
    assert prepare(f"{server}/m.csv?signature=a/b", f"{tmp_path}/w") == 0
    (row,) = Workspace.open(tmp_path / "w").table(SAMPLES).read().to_pylist()
    assert row["media_uris"] == [f"{server}/pages/a.mp4"]


def test_missing_manifest_of_a_server_is_named(
    tmp_path: Path, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(f"{server}/none.csv", f"{tmp_path}/w") == 2
    assert f"manifest not found: {server}/none.csv" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("variables", "cause"),
    [
        ({}, "NoCredentialsError"),
        (
            {
                "AWS_ACCESS_KEY_ID": "a",
                "AWS_SECRET_ACCESS_KEY": "b",
                "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
                "AWS_MAX_ATTEMPTS": "1",
            },
            "EndpointConnectionError",
        ),
    ],
)
def test_cloud_error_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str],
    cause: str,
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert main(["status", "--workspace", "s3://nowhere/w"]) == 1
    message = capsys.readouterr().err.strip()
    assert f"ampere status: failed: object store: {cause}" in message and "\n" not in message
    assert "Check the credentials, the endpoint and the bucket" in message


@pytest.mark.parametrize("command", ["prepare", "status"])
def test_empty_workspace_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    manifest = str(write_manifest(tmp_path, "a.jpg"))
    flags = ["--manifest", manifest] if command == "prepare" else []
    assert main([command, *flags, "--workspace", ""]) == 2
    assert "empty location; expected a path or a URI" in capsys.readouterr().err


def test_empty_manifest_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare("", f"{tmp_path}/w") == 2
    assert "empty location" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("content", ["", "{}", "[1]", "null", '{"schema_version": 1}', "\ufffd"])
def test_damaged_workspace_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    Workspace.create(tmp_path)
    (tmp_path / META_FILE).write_text(content, encoding="utf-8")
    for command in ("status", "decode"):
        assert main([command, "--workspace", str(tmp_path)]) == 2
        message = capsys.readouterr().err
        assert f"{META_FILE} is damaged" in message and "prepare again" in message


def test_full_disk_leaves_no_half_workspace_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is complete or absent, so the next `prepare` creates it."""

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full_disk)
        with pytest.raises(OSError, match="No space left"):
            Workspace.create(tmp_path / "w")
    assert not (tmp_path / "w" / META_FILE).exists()
    workspace = Workspace.create(tmp_path / "w")
    assert json.loads((tmp_path / "w" / META_FILE).read_text())["preset"] == workspace.preset
