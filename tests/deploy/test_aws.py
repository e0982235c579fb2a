"""cluster.yaml brought up by Ray's own code for AWS, against a simulated AWS, and its policies."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.client
import pytest
import yaml
from moto import mock_aws
from moto.ec2.models.instance_types import InstanceType, InstanceTypeBackend
from ray.autoscaler._private.aws import node_provider
from ray.autoscaler._private.util import prepare_config

from tests.helpers.command_lines import check_command, commands_of_page

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "aws"
POLICIES = ("operator", "head", "storage")
SSH = {
    "IpProtocol": "tcp",
    "FromPort": 22,
    "ToPort": 22,
    "IpRanges": [{"CidrIp": "203.0.113.7/32"}],
}


def policy(name: str) -> list[dict[str, Any]]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["Statement"]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def actions(name: str) -> set[str]:
    return {action for statement in policy(name) for action in as_list(statement["Action"])}


def conditions(name: str, key: str) -> set[str]:
    """The values that a policy requires of one key."""
    return {
        value
        for statement in policy(name)
        for test in statement.get("Condition", {}).values()
        for value in as_list(test.get(key, []))
    }


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def calls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: dict[str, Any]
) -> Iterator[set[str]]:
    """A simulated account with the default network; yields the actions that are called."""
    # Ray asks for all machine types of AWS, whose answer the simulation takes seconds to write.
    nodes = config["available_node_types"].values()
    machines = {node["node_config"]["InstanceType"] for node in nodes}
    monkeypatch.setattr(InstanceTypeBackend, "instance_types", [*map(InstanceType, machines)])
    called: set[str] = set()
    call = botocore.client.BaseClient._make_api_call

    def recorded(self: Any, operation: str, arguments: dict[str, Any]) -> Any:
        called.add(f"{self.meta.service_model.service_name}:{operation}")
        return call(self, operation, arguments)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", recorded)
    monkeypatch.setattr(node_provider, "TAG_BATCH_DELAY", 0)
    monkeypatch.setenv("HOME", str(tmp_path))  # for the SSH key
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "simulated")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "simulated")
    with mock_aws():
        yield called


def prepare_account(config: dict[str, Any]) -> str:
    """Create the roles of README.md and the security group, open for SSH; returns its id."""
    for role in ("ampere-head", "ampere-worker"):
        boto3.client("iam").create_instance_profile(InstanceProfileName=role)
    ec2 = boto3.client("ec2", region_name=config["provider"]["region"])
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    name = config["provider"]["security_group"]["GroupName"]
    group = ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[SSH])
    return group


def bootstrap(config: dict[str, Any]) -> dict[str, Any]:
    """What `ray up` does before it starts the head."""
    filled = prepare_config(copy.deepcopy(config))
    filled = node_provider.AWSNodeProvider.fillout_available_node_types_resources(filled)
    return node_provider.AWSNodeProvider.bootstrap_config(filled)


def start_and_end(config: dict[str, Any], kind: str) -> dict[str, Any]:
    """What Ray does with a node in its life; returns what AWS says of the running machine."""
    provider = node_provider.AWSNodeProvider(config["provider"], config["cluster_name"])
    assert provider.non_terminated_nodes({}) == []
    node = config["available_node_types"][kind]["node_config"]
    ((name, _),) = provider.create_node(node, {"ray-node-type": kind}, 1).items()
    assert provider.non_terminated_nodes({"ray-node-type": kind}) == [name]
    provider.set_node_tags(name, {"ray-node-status": "up-to-date"})
    ec2 = boto3.client("ec2", region_name=config["provider"]["region"])
    (reservation,) = ec2.describe_instances(InstanceIds=[name])["Reservations"]
    provider.terminate_nodes([name])
    assert provider.non_terminated_nodes({}) == []
    return reservation["Instances"][0]


def test_operator_may_do_what_ray_up_and_down_do_and_nothing_else(
    config: dict[str, Any], calls: set[str]
) -> None:
    prepare_account(config)
    calls.clear()
    head = start_and_end(bootstrap(config), "head")
    assert actions("operator") == calls | {"iam:PassRole"}  # the role of RunInstances
    assert head["MetadataOptions"]["HttpTokens"] == "required"
    assert head["IamInstanceProfile"]["Arn"].endswith("/ampere-head")


@pytest.mark.parametrize("kind", ["cpu_worker", "gpu_worker"])
def test_head_may_start_and_end_workers_and_nothing_else(
    config: dict[str, Any], calls: set[str], kind: str
) -> None:
    prepare_account(config)
    ready = bootstrap(config)
    calls.clear()
    worker = start_and_end(ready, kind)
    assert actions("head") == calls | {"iam:PassRole"}
    assert worker["IamInstanceProfile"]["Arn"].endswith("/ampere-worker")
    tags = {tag["Key"]: tag["Value"] for tag in worker["Tags"]}
    assert {tags["ray-cluster-name"]} == conditions("head", "aws:ResourceTag/ray-cluster-name")


def test_ray_adds_no_rule_to_the_security_group(config: dict[str, Any], calls: set[str]) -> None:
    group = prepare_account(config)
    nodes = bootstrap(config)["available_node_types"].values()
    assert [node["node_config"]["SecurityGroupIds"] for node in nodes] == [[group]] * 3
    ec2 = boto3.client("ec2", region_name=config["provider"]["region"])
    (found,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    (rule,) = found["IpPermissions"]
    assert (rule["FromPort"], rule["ToPort"], rule["IpRanges"]) == (22, 22, SSH["IpRanges"])


def test_operator_cannot_make_a_group_that_is_open_to_all(
    config: dict[str, Any], calls: set[str]
) -> None:
    bootstrap(config)
    assert "ec2:CreateSecurityGroup" in calls - actions("operator")


def test_resources_of_workers_are_those_of_their_machines(
    config: dict[str, Any], calls: set[str]
) -> None:
    prepare_account(config)
    types = bootstrap(config)["available_node_types"]
    assert types["head"]["resources"]["CPU"] == 0
    assert types["cpu_worker"]["resources"]["CPU"] == 16
    assert types["gpu_worker"]["resources"]["GPU"] == 1


def test_policies_hold_the_names_of_the_cluster(config: dict[str, Any]) -> None:
    types = config["available_node_types"]
    for name, kinds in (("operator", {"head"}), ("head", {"cpu_worker", "gpu_worker"})):
        nodes = [types[kind]["node_config"] for kind in kinds]
        assert conditions(name, "ec2:InstanceType") == {node["InstanceType"] for node in nodes}
        roles = {node["IamInstanceProfile"]["Name"] for node in nodes}
        (passed,) = [part for part in policy(name) if part["Action"] == "iam:PassRole"]
        assert passed["Resource"].rpartition("/")[2] in roles and len(roles) == 1
        for key in ("aws:RequestTag/ray-cluster-name", "aws:ResourceTag/ray-cluster-name"):
            assert conditions(name, key) == {config["cluster_name"]}
    spot = [part for part in policy("head") if "spot-instances-request" in str(part["Resource"])]
    assert len(spot) == 1


@pytest.mark.parametrize("name", POLICIES)
def test_policies_name_whole_actions_and_only_listings_are_of_everything(name: str) -> None:
    assert not [action for action in actions(name) if "*" in action]
    for statement in policy(name):
        if statement["Resource"] == "*":
            assert all(":Describe" in action for action in as_list(statement["Action"]))


@pytest.mark.parametrize("name", POLICIES)
def test_policies_pass_the_grammar_of_iam(calls: set[str], name: str) -> None:
    iam = boto3.client("iam")
    text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    trust = (FOLDER / "trust.json").read_text(encoding="utf-8")
    iam.create_role(RoleName="r", AssumeRolePolicyDocument=trust)
    iam.put_role_policy(RoleName="r", PolicyName="p", PolicyDocument=text)
    with pytest.raises(iam.exceptions.MalformedPolicyDocumentException):
        iam.put_role_policy(
            RoleName="r", PolicyName="q", PolicyDocument=text.replace("Effect", "Affect")
        )


def test_storage_policy_is_of_one_bucket() -> None:
    arns = {arn for statement in policy("storage") for arn in as_list(statement["Resource"])}
    assert arns == {"arn:aws:s3:::BUCKET", "arn:aws:s3:::BUCKET/*"}


def test_commands_of_the_readme_are_operations_of_aws() -> None:
    checked = [check_command(words) for words in commands_of_page(FOLDER / "README.md")]
    assert checked.count("aws") == 14
