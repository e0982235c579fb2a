"""A workspace and a catalogue in an S3 store, which runs here: moto's, over HTTP."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import fsspec
import pytest
from moto.server import ThreadedMotoServer

from ampere.records import FRAMES, SAMPLES
from ampere.store.workspace import Workspace
from tests.helpers.catalogs import manifest_rows

pytestmark = pytest.mark.timeout(300)
BUCKET = "shop"
ROWS = 6


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """An S3 client of a store of this test alone, which this process and those that it starts find by environment."""
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
    fsspec.get_filesystem_class(
        "s3"
    ).clear_instance_cache()  # it would go on with another test's store
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    yield client
    server.stop()


def ampere(*arguments: str) -> str:
    command = [
        sys.executable,
        "-m",
        "ampere.cli",
        *arguments,
        "--workspace",
        f"s3://{BUCKET}/workspace",
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    return result.stdout


def test_a_catalogue_and_its_workspace_in_a_bucket(
    store: object, catalogue: Path, tmp_path: Path
) -> None:
    rows = manifest_rows(catalogue)[:ROWS]
    lines = ["sample_id,product_id,domain,text,media,split"]
    for row in rows:
        name = Path(row["media"]).name
        store.upload_file(row["media"], BUCKET, f"catalogue/{name}")
        lines.append(f"{row['sample_id']},{row['product_id']},{row['domain']},,{name},train")
    store.put_object(Bucket=BUCKET, Key="catalogue/manifest.csv", Body="\n".join(lines).encode())
    ampere("prepare", "--manifest", f"s3://{BUCKET}/catalogue/manifest.csv")
    assert f"decode: {ROWS} files done" in ampere("decode")
    workspace = Workspace.open(f"s3://{BUCKET}/workspace")
    assert workspace.table(SAMPLES).count() == workspace.table(FRAMES).count() == ROWS
    workspace.table(FRAMES).compact()
    assert f"decode {ROWS} 0 0 0" in " ".join(ampere("status").split())
    # Folders of models and indexes.
    (tmp_path / "m").mkdir()
    (tmp_path / "m/config.json").write_text("{}")
    for _ in range(2):  # the second takes the place of the first
        workspace.publish(tmp_path / "m", "models/m", last="config.json")
    assert workspace.names("models") == ["m"]
    assert (workspace.fetch("models/m") / "config.json").read_text() == "{}"
    workspace.remove("models/m")
    assert workspace.names("models") == []
