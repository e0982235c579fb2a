"""What the driver can know is refused before Ray starts.

The fixture `no_hidden_ray` of all tests fails those that start Ray.
"""

import dataclasses
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from ampere import cluster
from ampere.cli import main
from ampere.cluster import connect
from ampere.command_line import explain
from ampere.config.embed import EmbedSettings
from ampere.config.evaluate import EvaluateSettings, FiguresSettings
from ampere.config.index import IndexSettings
from ampere.config.serve import ServeSettings
from ampere.config.train import TrainSettings
from ampere.pipeline.train import stage
from ampere.pipeline.train.stage import run_training
from ampere.records import FRAMES, SAMPLES
from ampere.store.workspace import Workspace
from serve.run import start
from tests.helpers.training import SIZES, small_job, small_set


class Refusing(BaseHTTPRequestHandler):
    """Answers 403 to everything."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.end_headers()

    do_HEAD = do_PUT = do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def http_port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture
def dead_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def store(workspace: Workspace) -> Workspace:
    """Four training products with samples of all domains, decoded."""
    training_set, frames = small_set(4)
    workspace.table(SAMPLES).upsert(
        [
            {
                "sample_id": name,
                "product_id": product,
                "domain": str(domain),
                "split": "train",
                "media_uris": ["a"],
            }
            for product, domains in training_set.products.items()
            for domain, names in domains.items()
            for name in names
        ]
    )
    rows = [
        {"sample_id": name, "fingerprint": "f", "frames": jpegs}
        for name, jpegs in frames.frames.items()
    ]
    workspace.table(FRAMES).append(rows)
    return workspace


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"workers": 3, "batch_size": 6},
            "two domains (of page, short, live): 4; expected at least 6 (2 for each of "
            "train.workers, 3)",
        ),
        ({"domains": ("page", "short"), "workers": 4, "batch_size": 8}, "(of page, short): 4;"),
        (
            {"validation_share": 0.999},
            "train.validation-share 0.999 holds out 4 of the 4 training products with samples of "
            "two domains, which leaves 0; expected at least 2",
        ),
        (
            {"data_share": 0.001},
            "train.data-share 0.001 leaves 0 training products; expected at least 2",
        ),
        (
            {"supervision": "frames", "workers": 40, "batch_size": 80},
            "too few decoded samples to train on: 24; expected at least 80",
        ),
    ],
)
def test_too_few_products_are_refused_by_the_driver(
    store: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setattr(stage, "train_on_ray", None)
    train = small_job(small_set(4)[0], text="none", **settings).train
    with pytest.raises(ValueError, match=re.escape(message)):
        run_training(store, SIZES, train)


def test_catalog_without_a_pair_of_domains_is_refused(
    store: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "train_on_ray", None)
    table = store.table(SAMPLES)
    table.upsert([row | {"domain": "page"} for row in table.read().to_pylist()])
    with pytest.raises(ValueError, match=r"samples of two domains \(of page, short, live\): 0;"):
        run_training(store, SIZES, small_job(small_set(4)[0], text="none").train)


def test_network_without_trainable_weights_is_refused(
    store: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "train_on_ray", None)
    monkeypatch.setattr(stage, "check_weights", lambda _: None)
    frozen = dataclasses.replace(SIZES, network="mllm", weights="m", linear_layer=False)
    with pytest.raises(ValueError, match="mllm has no weights to train without its linear layer"):
        run_training(store, frozen, small_job(small_set(4)[0], text="none").train)


@pytest.mark.parametrize("name", ["中文", "a b", "a/b", "..", "-a", "", "é", "a\n", "x" * 101])
@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (TrainSettings, "name"),
        (TrainSettings, "start_from"),
        (EmbedSettings, "model"),
        (IndexSettings, "model"),
        (ServeSettings, "model"),
        (EvaluateSettings, "models"),
        (EvaluateSettings, "compare"),
        (FiguresSettings, "models"),
    ],
)
def test_names_that_not_every_engine_takes_are_refused(kind: type, field: str, name: str) -> None:
    values: dict[str, object] = {"models": (name,), "compare": ("ampere", name)}
    if (field, name) == ("start_from", ""):
        return  # from scratch
    with pytest.raises(ValueError, match=f"{field} is .*; expected up to 100 ASCII letters"):
        kind(**{field: values.get(field, name)})


def test_search_refuses_a_bad_model_name(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "--workspace", workspace.uri, "--model", "../models/a"]) == 2
    assert "--model is '../models/a'; expected up to 100 ASCII" in capsys.readouterr().err


def test_missing_gpus_are_noticed_before_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(RuntimeError, match=r"embed\.gpus requests 2 in total, this machine has 0"):
        connect(2, "embed.gpus")


def test_endpoint_checks_port_and_model_before_ray_starts(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, silent_port: int
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("serve.run.proxy_runs", lambda: False)
    monkeypatch.setattr("serve.run.connect", None)
    with pytest.raises(RuntimeError, match=f"cannot bind 127.0.0.1:{silent_port}"):
        start(workspace, ServeSettings(port=silent_port))
    monkeypatch.setattr("serve.run.check_port", lambda *_: None)
    with pytest.raises(FileNotFoundError, match="model 'ampere' not found"):
        start(workspace, ServeSettings())


def test_demo_checks_its_port_before_any_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    silent_port: int,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("serve.run.proxy_runs", lambda: False)
    assert main(["demo", "--folder", f"{tmp_path}/demo", "--port", str(silent_port)]) == 1
    assert f"cannot bind 127.0.0.1:{silent_port}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def outside_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has not started Ray; the probe gives up soon."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr(cluster, "PROBE_S", 0.5)


@pytest.mark.parametrize("port", ["dead_port", "silent_port", "http_port"])
def test_cluster_that_does_not_answer_is_named(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, outside_ray: None, port: str
) -> None:
    address = f"127.0.0.1:{request.getfixturevalue(port)}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    expected = (
        f"cannot reach the Ray cluster at RAY_ADDRESS={address} .*Check that its head node runs"
    )
    with pytest.raises(RuntimeError, match=expected):
        connect()


@pytest.mark.parametrize("address", ["no-such-host.invalid:6379", "auto"])
def test_cluster_that_is_not_found_is_named(
    monkeypatch: pytest.MonkeyPatch, outside_ray: None, address: str
) -> None:
    def no_cluster(*_: object) -> None:
        raise ConnectionError("no running Ray instance")

    if address == "auto":  # other tests of this machine may run a Ray
        monkeypatch.setattr("ray._private.services.get_ray_address_from_environment", no_cluster)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(
        RuntimeError, match=f"cannot reach the Ray cluster at RAY_ADDRESS={address}"
    ):
        connect()


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:8265", "ray://127.0.0.1:10001", "127.0.0.1", ":6379", "a:b", "a:99999"],
)
def test_address_of_another_form_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, outside_ray: None, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    expected = f"RAY_ADDRESS is {address!r}; expected HOST:PORT of the head node"
    with pytest.raises(ValueError, match=re.escape(expected)):
        connect()


@pytest.mark.parametrize("address", ["", "local", " "])
def test_address_of_this_machine_is_no_cluster(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert cluster.cluster_address() is None


def test_denied_bucket_is_a_failure_and_a_denied_file_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], http_port: int
) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{http_port}",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert main(["status", "--workspace", "s3://denied/w"]) == 1
    message = capsys.readouterr().err.strip()
    assert message.startswith("ampere status: failed: object store: PermissionError")
    assert "Check the credentials, the endpoint and the bucket" in message and "\n" not in message
    assert explain(PermissionError(13, "Permission denied", "/data/w")) == (
        2,
        "[Errno 13] Permission denied: '/data/w'",
    )


def test_store_that_is_away_from_lance_is_a_failure() -> None:
    """Lance makes a ValueError of it, which would be a usage error."""
    error = ValueError("LanceError(IO): Generic S3 error: no answer, /home/a/rust/s3.rs:12:3")
    assert explain(error) == (
        1,
        "failed: object store: LanceError(IO): Generic S3 error: no answer. Check the credentials, "
        "the endpoint and the bucket",
    )
