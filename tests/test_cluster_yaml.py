"""Checks of cluster.yaml against Ray's schema and against the documentation."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from ampere.config.presets import rope

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


def test_cluster_yaml_passes_the_schema_of_ray(config: dict[str, Any]) -> None:
    validate_config(prepare_config(config))


def test_unknown_key_fails_the_schema(config: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="no_such_key"):
        validate_config(prepare_config(config | {"no_such_key": 1}))


@pytest.mark.parametrize("kind", ["cpu_worker", "gpu_worker"])
def test_workers_scale_from_zero(config: dict[str, Any], kind: str) -> None:
    node = config["available_node_types"][kind]
    assert node["min_workers"] == 0 < node["max_workers"]


def test_every_node_type_sets_its_image(config: dict[str, Any]) -> None:
    """Ray's default image is years old, without our Python and without a driver for our CUDA."""
    for node in config["available_node_types"].values():
        assert (
            "ubuntu" in node["node_config"]["ImageId"] and "22.04" in node["node_config"]["ImageId"]
        )


def test_cluster_has_enough_gpus_for_the_rope_preset(config: dict[str, Any]) -> None:
    workers = {
        kind: config["available_node_types"][kind]["max_workers"]
        for kind in ("cpu_worker", "gpu_worker")
    }
    assert rope().train.workers * rope().train.gpus <= workers["gpu_worker"]  # one GPU a machine
    assert sum(workers.values()) <= config["max_workers"]


def test_nodes_install_the_requirements(config: dict[str, Any]) -> None:
    gpu = config["available_node_types"]["gpu_worker"]["worker_setup_commands"]
    commands = [*config["head_setup_commands"], *config["worker_setup_commands"], *gpu]
    assert [c.split()[-1] for c in commands if "tools/setup.sh" in c] == ["cpu", "cpu", "gpu"]
    for kind in ("cpu", "gpu"):
        pinned = (ROOT / "requirements" / f"{kind}.txt").read_text(encoding="utf-8")
        assert "vllm" in pinned and "s3fs==" in pinned and "boto3==" in pinned


def test_every_node_starts_with_the_auth_token(config: dict[str, Any]) -> None:
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in command for command in starts if "ray start" in command)


def test_requirements_name_no_registry() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text(encoding="utf-8")
        assert "://" not in text and "--index-url" not in text and "--find-links" not in text, (
            path.name
        )
