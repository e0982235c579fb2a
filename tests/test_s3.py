"""A workspace and a catalog in an S3 store: a local moto server over HTTP."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import fsspec
import pyarrow.compute as pc
import pytest
from moto.server import ThreadedMotoServer

from ampere.cli import main
from ampere.records import FAILURES, FRAMES, SAMPLES, TRANSCRIPTS
from ampere.store.workspace import Workspace
from tests.helpers.catalogs import manifest_rows
from tests.helpers.speech_models import write_faster_whisper, write_whisper

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
    # Servers of one process share what they store.
    with urlopen(Request(f"http://127.0.0.1:{port}/moto-api/reset", method="POST")):
        pass
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


def run(stage: str, *flags: str) -> str:
    """Output of a stage in a process of its own, so that its Ray workers see the store."""
    command = [sys.executable, "-m", "ampere.cli", stage, "--workspace", WORKSPACE, *flags]
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
    assert f"decode: {ROWS} files done" in run("decode")
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


@pytest.mark.nightly
def test_clips_in_a_bucket_are_transcribed(store: Any, tmp_path: Path) -> None:
    """A rubbish file, a missing one and a missing bucket fail their own rows."""
    speech = Path(__file__).parent / "data" / "speech" / "zh-tea.opus"
    store.upload_file(str(speech), BUCKET, "clips/tea.opus")
    store.put_object(Bucket=BUCKET, Key="clips/rubbish.mp4", Body=b"no media")
    media = ["tea.opus", "rubbish.mp4", "gone.mp4", "s3://nowhere/gone.mp4"]
    lines = ["sample_id,domain,media", *(f"c{i},live,{name}" for i, name in enumerate(media))]
    store.put_object(Bucket=BUCKET, Key="clips/manifest.csv", Body="\n".join(lines).encode())
    uri = f"s3://{BUCKET}/clips/manifest.csv"
    assert main(["prepare", "--manifest", uri, "--workspace", WORKSPACE]) == 0
    model = write_faster_whisper(tmp_path / "model", write_whisper(tmp_path / "whisper"))
    flags = ["--transcribe.model", str(model), "--transcribe.cpus", "0.5"]
    assert "1 clips done" in run("transcribe", *flags)
    workspace = Workspace.open(WORKSPACE)
    (row,) = workspace.table(TRANSCRIPTS).read().to_pylist()
    assert row["sample_id"] == "c0" and row["text"]
    failures = workspace.table(FAILURES).read().sort_by("sample_id")["error_type"].to_pylist()
    assert failures == ["UnknownFormat", "MissingMedia", "MissingMedia"]
    assert "0 clips done, 1 were done before" in run("transcribe", *flags)
