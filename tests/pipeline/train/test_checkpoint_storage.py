"""File systems of checkpoints; tests/faults/test_s3_faults.py has a store that goes away."""

import pickle

import pytest
from pyarrow.fs import S3FileSystem

from ampere.pipeline.train.checkpoint_storage import checkpoint_storage
from tests.helpers.faulty_proxy import faulty_proxy
from tests.helpers.processes import free_port
from tests.helpers.s3 import use_endpoint


@pytest.mark.parametrize("uri", ["/data/runs", "gs://bucket/runs"])
def test_ray_train_finds_the_file_system_of_other_folders(uri: str) -> None:
    assert checkpoint_storage(uri) == (uri, None)


def test_s3_requests_are_retried_also_after_pickling(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy stands for a server that is away: each of its answers is an error 503."""
    with faulty_proxy(f"http://127.0.0.1:{free_port()}") as proxy:
        use_endpoint(proxy.url, monkeypatch)
        proxy.busy_share = 1.0
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
        path, filesystem = checkpoint_storage("s3://bucket/runs/m")
        assert path == "bucket/runs/m" and isinstance(filesystem, S3FileSystem)
        pickled = pickle.dumps(filesystem)
        # A worker on another machine may have other variables.
        monkeypatch.delenv("AWS_ENDPOINT_URL")
        monkeypatch.delenv("AWS_MAX_ATTEMPTS")
        for used in (filesystem, pickle.loads(pickled)):
            before = proxy.requests
            with pytest.raises(OSError, match="SLOW_DOWN|SlowDown|503"):
                used.get_file_info("bucket/runs/m")
            assert proxy.requests - before == 3


@pytest.mark.parametrize("server", ["localhost:9000", "http://host/path", "ftp://host"])
def test_server_of_another_form_is_refused(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    with pytest.raises(ValueError, match=f"AWS_ENDPOINT_URL is '{server}'; expected http://HOST"):
        checkpoint_storage("s3://bucket/runs/m")
