"""Jobs on an S3 server that goes away for half a minute, is slow, or busy.

The media, the tables and the leases are all read through a proxy with these faults.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
import torch

from ampere.cli import main
from ampere.models.model_folder import SETTINGS_FILE, embedding_name
from ampere.pipeline.train.worker import METRICS_FILE
from ampere.records import FAILURES, FRAMES, SAMPLES, TableSpec
from ampere.store.embeddings import embeddings_spec
from ampere.store.workspace import Workspace
from ampere.training.loop import build_model
from tests.helpers.catalogs import manifest_rows
from tests.helpers.faulty_proxy import FaultyProxy, faulty_proxy
from tests.helpers.processes import ids, start, wait_for_rows, wait_until
from tests.helpers.s3 import BUCKET, s3_server, use_endpoint
from tests.helpers.training import small_job, small_set
from tests.helpers.workloads import (
    TRAIN_FLAGS,
    Workload,
    add_products,
    summarizing,
    transcribing,
)

pytestmark = [pytest.mark.timeout(1200), pytest.mark.e2e, pytest.mark.nightly]
WORKSPACE = f"s3://{BUCKET}/workspace"
OUTAGE_S = 30.0
PRODUCTS = 20
DECODE = ["--decode.batch-size", "2"]
EMBED = ["--embed.model", "m", "--embed.batch-size", "1"]
ENGINES: dict[str, Callable[..., Workload]] = {
    "transcribe": transcribing,
    "summarize": summarizing,
}
FAULTS: dict[str, Callable[[FaultyProxy], None]] = {
    "slow": lambda proxy: setattr(proxy, "delay_s", 0.5),
    "busy": lambda proxy: setattr(proxy, "busy_share", 0.3),
}


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """The store that this process and its children use, without faults so far."""
    with s3_server() as endpoint, faulty_proxy(endpoint) as proxy:
        use_endpoint(proxy.url, monkeypatch)
        yield proxy


@pytest.fixture
def listed(proxy: FaultyProxy, catalog: Path) -> Workspace:
    """A prepared catalog, with its media in the bucket."""
    client, lines = boto3.client("s3"), ["sample_id,product_id,domain,media"]
    for row in manifest_rows(catalog):
        name = f"{row['sample_id']}{Path(row['media']).suffix}"
        client.upload_file(row["media"], BUCKET, f"catalog/{name}")
        lines.append(f"{row['sample_id']},{row['product_id']},{row['domain']},{name}")
    client.put_object(Bucket=BUCKET, Key="catalog/m.csv", Body="\n".join(lines).encode())
    manifest = f"s3://{BUCKET}/catalog/m.csv"
    assert main(["prepare", "--manifest", manifest, "--workspace", WORKSPACE]) == 0
    return Workspace.open(WORKSPACE)


@pytest.fixture
def trained(proxy: FaultyProxy, tmp_path: Path) -> tuple[Workspace, TableSpec]:
    """A workspace with frames and a model, and the table of its embeddings."""
    workspace = Workspace.create(WORKSPACE, "demo")
    training_set, frames = small_set(PRODUCTS)
    workspace.table(SAMPLES).append(
        [
            {"sample_id": sample_id, "product_id": product, "domain": domain, "split": "train"}
            for product, domains in training_set.products.items()
            for domain, sample_ids in domains.items()
            for sample_id in sample_ids
        ]
    )
    workspace.table(FRAMES).append(
        [
            {"sample_id": sample_id, "fingerprint": "f", "frames": jpegs}
            for sample_id, jpegs in frames.frames.items()
        ]
    )
    torch.manual_seed(0)
    folder, job = tmp_path / "m", small_job(training_set)
    build_model(job).save_pretrained(folder, job.tokenizer)
    (folder / SETTINGS_FILE).write_text(json.dumps({"train": {"text": "raw"}}))
    workspace.publish(folder, "models/m", last=SETTINGS_FILE)
    return workspace, embeddings_spec(embedding_name(folder))


def outage(proxy: FaultyProxy, job: subprocess.Popen[bytes], log: Path) -> None:
    """Take the store away for half a minute; the job must not end meanwhile."""
    proxy.leave()
    try:
        job.wait(timeout=OUTAGE_S)
    except subprocess.TimeoutExpired:
        proxy.come_back()
    else:
        proxy.come_back()
        pytest.fail(f"the job ended by itself: {log.read_text()[-3000:]}")


def test_decode_goes_on_after_an_outage(
    proxy: FaultyProxy, listed: Workspace, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    job = start("decode", listed, DECODE, log)
    wait_for_rows(job, listed.table(FRAMES), 4, log)
    outage(proxy, job, log)
    assert job.wait(timeout=300) == 0, log.read_text()[-3000:]
    # A file whose time limit ended meanwhile is recorded as one that may be read later.
    assert sorted(ids(listed, FRAMES) + ids(listed, FAILURES)) == ids(listed, SAMPLES)
    retry = ["--retry-failed", "--only-retryable"]
    assert main(["decode", "--workspace", WORKSPACE, *DECODE, *retry]) == 0
    assert ids(listed, FRAMES) == ids(listed, SAMPLES)


def test_embed_goes_on_after_an_outage(
    proxy: FaultyProxy, trained: tuple[Workspace, TableSpec], tmp_path: Path
) -> None:
    workspace, spec = trained
    log = tmp_path / "log"
    job = start("embed", workspace, EMBED, log)
    wait_for_rows(job, workspace.table(spec), 1, log)
    outage(proxy, job, log)
    assert job.wait(timeout=300) == 0, log.read_text()[-3000:]
    assert ids(workspace, spec) == ids(workspace, SAMPLES)


@pytest.mark.parametrize("stage", ENGINES)
def test_engines_go_on_after_an_outage(proxy: FaultyProxy, tmp_path: Path, stage: str) -> None:
    work, log = ENGINES[stage](tmp_path, uri=WORKSPACE), tmp_path / "log"
    job = start(stage, work.workspace, work.flags, log)
    wait_until(job, work.is_half_done, log)
    outage(proxy, job, log)
    assert job.wait(timeout=300) == 0, log.read_text()[-3000:]
    work.check_complete()


@pytest.mark.parametrize("stage", ENGINES)
@pytest.mark.parametrize("fault", FAULTS)
def test_engines_on_a_slow_or_busy_store(
    proxy: FaultyProxy, tmp_path: Path, stage: str, fault: str
) -> None:
    work, log = ENGINES[stage](tmp_path, 12, WORKSPACE), tmp_path / "log"
    FAULTS[fault](proxy)
    job = start(stage, work.workspace, work.flags, log)
    assert job.wait(timeout=900) == 0, log.read_text()[-3000:]
    proxy.delay_s = proxy.busy_share = 0.0
    work.check_complete()


def test_train_goes_on_after_an_outage(proxy: FaultyProxy, tmp_path: Path) -> None:
    """Its checkpoints are in the store, and its last one there becomes the model."""
    workspace, log = Workspace.create(WORKSPACE, "demo"), tmp_path / "log"
    add_products(workspace, PRODUCTS)
    job = start("train", workspace, [*TRAIN_FLAGS, "--train.workers", "1"], log)
    wait_until(job, lambda: has_checkpoint("workspace/runs/"), log)
    outage(proxy, job, log)
    assert job.wait(timeout=300) == 0, log.read_text()[-3000:]
    assert trained_steps() == list(range(1, 61))


@pytest.mark.parametrize("fault", FAULTS)
def test_train_on_a_slow_or_busy_store(proxy: FaultyProxy, tmp_path: Path, fault: str) -> None:
    workspace, log = Workspace.create(WORKSPACE, "demo"), tmp_path / "log"
    add_products(workspace, PRODUCTS)
    FAULTS[fault](proxy)
    job = start("train", workspace, [*TRAIN_FLAGS, "--train.workers", "1"], log)
    assert job.wait(timeout=900) == 0, log.read_text()[-3000:]
    proxy.delay_s = proxy.busy_share = 0.0
    assert trained_steps() == list(range(1, 61))


def trained_steps() -> list[int]:
    """The steps in the metrics of the trained model."""
    key = f"workspace/models/ampere/{METRICS_FILE}"
    body = boto3.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"]
    return [json.loads(line)["step"] for line in body.read().splitlines()]


def has_checkpoint(prefix: str) -> bool:
    """Whether a file of a training's checkpoint is in the bucket."""
    found = boto3.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=prefix)
    return any("checkpoint_" in item["Key"] for item in found.get("Contents", ()))


@pytest.mark.parametrize("fault", FAULTS)
def test_decode_on_a_slow_or_busy_store(
    proxy: FaultyProxy, listed: Workspace, tmp_path: Path, fault: str
) -> None:
    log = tmp_path / "log"
    FAULTS[fault](proxy)
    job = start("decode", listed, DECODE, log)
    assert job.wait(timeout=900) == 0, log.read_text()[-3000:]
    proxy.delay_s = proxy.busy_share = 0.0
    assert ids(listed, FRAMES) == ids(listed, SAMPLES)
    assert listed.table(FAILURES).count() == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_embed_on_a_slow_or_busy_store(
    proxy: FaultyProxy, trained: tuple[Workspace, TableSpec], tmp_path: Path, fault: str
) -> None:
    workspace, spec = trained
    log = tmp_path / "log"
    FAULTS[fault](proxy)
    job = start("embed", workspace, EMBED, log)
    assert job.wait(timeout=900) == 0, log.read_text()[-3000:]
    proxy.delay_s = proxy.busy_share = 0.0
    assert ids(workspace, spec) == ids(workspace, SAMPLES)


def test_store_that_stays_away_ends_the_job_and_a_rerun_finishes(
    proxy: FaultyProxy, listed: Workspace, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    job = start("decode", listed, DECODE, log)
    wait_for_rows(job, listed.table(FRAMES), 4, log)
    proxy.leave()
    assert job.wait(timeout=900) == 1, log.read_text()[-3000:]
    proxy.come_back()
    output = log.read_text()
    assert "ampere decode: failed: " in output and "Traceback" not in output
    assert main(["decode", "--workspace", WORKSPACE, "--retry-failed", *DECODE]) == 0
    assert ids(listed, FRAMES) == ids(listed, SAMPLES)
    assert listed.table(FAILURES).count() == 0


def test_second_run_of_a_stage_is_refused_and_a_killed_one_is_followed(
    proxy: FaultyProxy, listed: Workspace, tmp_path: Path
) -> None:
    log, second = tmp_path / "log", tmp_path / "second"
    job = start("decode", listed, DECODE, log)
    wait_until(job, lambda: listed.table(FRAMES).count() > 0, log)
    proxy.delay_s = 1.0  # so that the first job does not end before the second has looked
    other = start("decode", listed, DECODE, second)
    assert other.wait(timeout=200) == 1
    assert f"another job is writing decode in {WORKSPACE}: process {job.pid} on" in (
        second.read_text()
    )
    job.kill()
    job.wait()
    proxy.delay_s = 0.0
    assert main(["decode", "--workspace", WORKSPACE, *DECODE]) == 0
    assert ids(listed, FRAMES) == ids(listed, SAMPLES)
