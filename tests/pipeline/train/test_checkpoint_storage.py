"""File systems of checkpoints; tests/faults/test_s3_faults.py has a store that goes away."""

import pickle

import pytest
from pyarrow.fs import S3FileSystem

from ampere.pipeline.train import checkpoint_storage as module
from ampere.pipeline.train.checkpoint_storage import checkpoint_storage
from tests.helpers.faulty_proxy import faulty_proxy
from tests.helpers.processes import free_port
from tests.helpers.s3 import use_endpoint


@pytest.mark.parametrize("uri", ["/data/runs", "gs://bucket/runs"])
def test_ray_train_finds_the_file_system_of_other_folders(uri: str) -> None:
    assert checkpoint_storage(uri) == (uri, None)


def test_s3_requests_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy stands for a server that is away: each of its answers is an error 503."""
    with faulty_proxy(f"http://127.0.0.1:{free_port()}") as proxy:
        use_endpoint(proxy.url, monkeypatch)
        proxy.busy_share = 1.0
        monkeypatch.setattr(module, "ATTEMPTS", 3)
        path, filesystem = checkpoint_storage("s3://bucket/runs/m")
        assert path == "bucket/runs/m" and isinstance(filesystem, S3FileSystem)
        for used in (filesystem, pickle.loads(pickle.dumps(filesystem))):
            before = proxy.requests
            with pytest.raises(OSError, match="SLOW_DOWN|SlowDown|503"):
                used.get_file_info("bucket/runs/m")
            assert proxy.requests - before == 3
