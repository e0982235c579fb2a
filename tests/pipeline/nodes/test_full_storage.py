"""The object store of the nodes is full, or the disk of the workspace."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ampere.store.workspace import Workspace
from tests.helpers.nodes import running_cluster
from tests.helpers.processes import start, wait_until
from tests.helpers.workloads import (
    TRAIN_FLAGS,
    WORKLOADS,
    Workload,
    add_products,
    decoding,
    metrics_of,
)

pytestmark = [pytest.mark.timeout(900), pytest.mark.e2e, pytest.mark.nightly]
MB = 2**20
STORE = 80 * MB  # the least that Ray accepts is 75 MiB
DISK = 64 * MB

FILL = """
import sys, numpy, ray
ray.init(logging_level="error")

@ray.remote(num_cpus=0)
class Holder:
    def fill(self):
        self.held = [ray.put(numpy.ones(20 << 20, numpy.uint8)) for _ in range(10)]

nodes = [node["NodeID"] for node in ray.nodes()]
holders = [Holder.options(label_selector={"ray.io/node-id": node}).remote() for node in nodes]
ray.get([holder.fill.remote() for holder in holders])
print("full", flush=True)
sys.stdin.read()
"""


def workload(stage: str, folder: Path, catalog: Path) -> Workload:
    return decoding(folder, catalog) if stage == "decode" else WORKLOADS[stage](folder)


@pytest.mark.parametrize("stage", ["decode", *WORKLOADS])
def test_jobs_run_beside_objects_that_fill_the_store(
    tmp_path: Path, catalog: Path, stage: str
) -> None:
    """Each node holds two and a half times the size of its store, so that Ray spills to disk."""
    work, log = workload(stage, tmp_path, catalog), tmp_path / "log"
    options = {"object_store_memory": STORE}
    with running_cluster(workers=2, head=options, **options), full_stores():
        spilled = Path(os.environ["RAY_TMPDIR"]).rglob("ray_spilled_objects*/*")
        assert sum(path.stat().st_size for path in spilled) > STORE
        job = start(work.stage, work.workspace, work.flags, log)
        assert job.wait(timeout=400) == 0, log.read_text()[-3000:]
    work.check_complete()


@contextlib.contextmanager
def full_stores() -> Iterator[None]:
    """Hold objects of another job in the store of every node."""
    with subprocess.Popen(
        [sys.executable, "-c", FILL], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"full\n"
        yield
        holder.kill()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, which a test can fill."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    result = subprocess.run(mount, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"no file system can be mounted here: {result.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Fill a disk to its last byte by a file; returns its path."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (MB, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    return path


@pytest.mark.parametrize("stage", ["decode", *WORKLOADS])
def test_full_disk_ends_the_job_and_a_rerun_does_the_rest(
    small_disk: Path, tmp_path: Path, catalog: Path, stage: str
) -> None:
    work, log = workload(stage, small_disk, catalog), tmp_path / "log"
    with running_cluster(workers=2):
        job = start(work.stage, work.workspace, work.flags, log)
        wait_until(job, work.is_half_done, log)
        filler = fill(small_disk)
        assert job.wait(timeout=300) == 1, log.read_text()[-3000:]
        assert "No space left on device" in log.read_text()
        before = work.table.count()
        filler.unlink()
        rerun = start(work.stage, work.workspace, work.flags, log)
        assert rerun.wait(timeout=400) == 0, log.read_text()[-3000:]
    assert before > 0
    work.check_complete()


def test_training_on_a_full_disk_ends_and_is_resumed(small_disk: Path, tmp_path: Path) -> None:
    workspace = Workspace.create(small_disk / "workspace", "demo")
    add_products(workspace, products=20)
    log, flags = tmp_path / "log", [*TRAIN_FLAGS, "--train.name", "m"]
    with running_cluster(workers=2):
        job = start("train", workspace, flags, log)
        wait_until(job, lambda: len(metrics_of(workspace, "m")) >= 10, log)
        filler = fill(small_disk)
        assert job.wait(timeout=300) == 1, log.read_text()[-3000:]
        assert "No space left on device" in log.read_text()
        filler.unlink()
        rerun = start("train", workspace, flags, log)
        assert rerun.wait(timeout=400) == 0, log.read_text()[-3000:]
    assert [row["step"] for row in metrics_of(workspace, "m")] == list(range(1, 61))
