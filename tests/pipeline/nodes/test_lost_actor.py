"""An actor is lost, and its node lives.

Other processes: of `decode` and of the driver in tests/pipeline/kill/test_decode.py, engines of
`summarize` and `transcribe` beside it, a worker of `train` in tests/pipeline/train/test_train.py,
and replicas of the endpoint in tests/serve/test_replicas.py.
"""

from pathlib import Path

import pytest

from tests.helpers.nodes import processes_of, running_cluster, wait_for_worker
from tests.helpers.processes import start
from tests.helpers.workloads import embedding

pytestmark = [pytest.mark.timeout(600), pytest.mark.e2e, pytest.mark.nightly]


def test_lost_actor_costs_embed_no_row(tmp_path: Path) -> None:
    work, log = embedding(tmp_path), tmp_path / "log"
    with running_cluster(workers=2) as cluster:
        job = start(work.stage, work.workspace, work.flags, log)
        node = wait_for_worker(job, cluster, work.worker, work.is_half_done, log)
        processes_of(node, work.worker)[0].kill()
        assert job.wait(timeout=400) == 0, log.read_text()[-3000:]
    work.check_complete()
