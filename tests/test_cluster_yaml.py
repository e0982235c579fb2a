"""cluster.yaml against Ray's own schema, and against what the project promises of it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from ampere.config.presets import rope

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


def test_passes_rays_schema(cluster: dict[str, Any]) -> None:
    validate_config(prepare_config(cluster))


def test_schema_check_can_fail(cluster: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="no_such_key"):
        validate_config(prepare_config(cluster | {"no_such_key": 1}))


@pytest.mark.parametrize("kind", ["cpu_worker", "gpu_worker"])
def test_workers_scale_from_none(cluster: dict[str, Any], kind: str) -> None:
    node = cluster["available_node_types"][kind]
    assert node["min_workers"] == 0 < node["max_workers"]


def test_every_node_has_an_image_of_its_own(cluster: dict[str, Any]) -> None:
    """Ray's own is years old and has neither our Python nor a driver for our CUDA."""
    for node in cluster["available_node_types"].values():
        assert (
            "ubuntu" in node["node_config"]["ImageId"] and "22.04" in node["node_config"]["ImageId"]
        )


def test_the_papers_preset_finds_as_many_gpus_as_it_trains_on(cluster: dict[str, Any]) -> None:
    workers = {
        kind: cluster["available_node_types"][kind]["max_workers"]
        for kind in ("cpu_worker", "gpu_worker")
    }
    assert rope().train.workers * rope().train.gpus <= workers["gpu_worker"]  # one GPU a machine
    assert sum(workers.values()) <= cluster["max_workers"]


def test_nodes_install_our_requirements(cluster: dict[str, Any]) -> None:
    gpu = cluster["available_node_types"]["gpu_worker"]["worker_setup_commands"]
    commands = [*cluster["head_setup_commands"], *cluster["worker_setup_commands"], *gpu]
    assert [c.split()[-1] for c in commands if "tools/setup.sh" in c] == ["cpu", "cpu", "gpu"]
    for kind in ("cpu", "gpu"):
        pinned = (ROOT / "requirements" / f"{kind}.txt").read_text(encoding="utf-8")
        assert "vllm" in pinned and "s3fs==" in pinned and "boto3==" in pinned


def test_every_node_starts_with_the_token(cluster: dict[str, Any]) -> None:
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    starts = [*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in command for command in starts if "ray start" in command)


def test_requirements_name_no_registry() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text(encoding="utf-8")
        assert "://" not in text and "--index-url" not in text and "--find-links" not in text, (
            path.name
        )
