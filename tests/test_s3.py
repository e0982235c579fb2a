"""A workspace and a catalog in an S3 store: a local moto server over HTTP."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import fsspec
import pyarrow.compute as pc
import pytest
from moto.server import ThreadedMotoServer

from ampere.cli import main
from ampere.records import FRAMES, SAMPLES
from ampere.store.workspace import Workspace
from tests.helpers.catalogs import manifest_rows

pytestmark = pytest.mark.e2e
BUCKET = "shop"
WORKSPACE = f"s3://{BUCKET}/workspace"
ROWS = 6


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """S3 client of an empty store, to which the environment of this process points."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    # A cached file system would still point to the store of another test.
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    yield client
    server.stop()


def decode() -> str:
    """Output of `ampere decode` in a process of its own, so that its Ray workers see the store."""
    command = [sys.executable, "-m", "ampere.cli", "decode", "--workspace", WORKSPACE]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    return result.stdout


def test_catalog_and_workspace_in_a_bucket(
    store: Any, catalog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = manifest_rows(catalog)[:ROWS]
    lines = ["sample_id,product_id,domain,text,media,split"]
    for row in rows:
        name = Path(row["media"]).name
        store.upload_file(row["media"], BUCKET, f"catalog/{name}")
        lines.append(f"{row['sample_id']},{row['product_id']},{row['domain']},,{name},train")
    store.put_object(Bucket=BUCKET, Key="catalog/manifest.csv", Body="\n".join(lines).encode())
    uri = f"s3://{BUCKET}/catalog/manifest.csv"
    assert main(["prepare", "--manifest", uri, "--workspace", WORKSPACE]) == 0
    assert f"decode: {ROWS} files done" in decode()
    workspace = Workspace.open(WORKSPACE)
    assert workspace.table(SAMPLES).count() == workspace.table(FRAMES).count() == ROWS
    frames = workspace.table(FRAMES)
    fragment = frames.write_fragment(frames.read())
    part = frames.fragment_of([rows[0]["sample_id"]], fragment)  # reads the file
    frames.delete(pc.field("sample_id") == rows[0]["sample_id"])
    frames.append_fragments([part], frames.newest_fragment())
    assert frames.count() == ROWS
    frames.compact()
    capsys.readouterr()
    assert main(["status", "--workspace", WORKSPACE]) == 0
    assert f"decode {ROWS} 0 0 0" in " ".join(capsys.readouterr().out.split())
    # Folders, as of models and indexes.
    (tmp_path / "m").mkdir()
    (tmp_path / "m/config.json").write_text("{}")
    for _ in range(2):  # the second replaces the first
        workspace.publish(tmp_path / "m", "models/m", last="config.json")
    assert workspace.names("models") == ["m"]
    assert (workspace.fetch("models/m") / "config.json").read_text() == "{}"
    workspace.remove("models/m")
    assert workspace.names("models") == []
