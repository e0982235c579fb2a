"""Checks of deploy/local/cluster.yaml without a cluster; `test_ray_up.py` makes one of it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "deploy/local/cluster.yaml").read_text(encoding="utf-8"))


def test_ray_takes_the_file_as_it_is(config: dict[str, Any]) -> None:
    """Where Ray fills in defaults, the head is one of the workers and one of these is missing."""
    assert prepare_config(config) == config
    validate_config(config)


def test_every_worker_is_started(config: dict[str, Any]) -> None:
    workers = config["available_node_types"]["local.cluster.node"]
    count = len(config["provider"]["worker_ips"])
    assert workers["min_workers"] == workers["max_workers"] == config["max_workers"] == count
    assert config["available_node_types"]["head"]["max_workers"] == 0


def test_nodes_need_the_token(config: dict[str, Any]) -> None:
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for kind in ("head", "worker"):
        assert "RAY_AUTH_MODE=token" in " ".join(config[f"{kind}_setup_commands"])
