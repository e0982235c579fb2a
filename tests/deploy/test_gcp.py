"""The rights of the head on Google Cloud against the calls in Ray's code; nothing is called."""

import re
from pathlib import Path

import ray.autoscaler._private.gcp as gcp
import yaml

ROOT = Path(__file__).parents[2]
# What Google's documentation of each method requires for a node of deploy/gcp/cluster.yaml.
PERMISSIONS = {
    "instances.insert": {
        *("instances.create", "instances.setLabels", "instances.setMetadata"),
        *("instances.setServiceAccount", "instances.setTags", "disks.create"),
        *("images.useReadOnly", "subnetworks.use", "subnetworks.useExternalIp"),
    },
    "instances.delete": {"instances.delete"},
    "instances.get": {"instances.get"},
    "instances.list": {"instances.list"},
    "instances.setLabels": {"instances.setLabels"},
    "instances.start": set(),  # only with cache_stopped_nodes
    "instances.stop": set(),
    "zoneOperations.get": {"zoneOperations.get"},
}


def test_head_has_the_rights_for_the_calls_of_ray_and_no_others() -> None:
    (folder,) = gcp.__path__
    source = (Path(folder) / "node.py").read_text(encoding="utf-8")
    (compute,) = re.findall(r"^class GCPCompute\(.*?(?=^class )", source, re.MULTILINE | re.DOTALL)
    calls = {".".join(call) for call in re.findall(r"resource\.(\w+)\(\)\s*\.(\w+)\(", compute)}
    assert calls == set(PERMISSIONS)
    role = yaml.safe_load((ROOT / "deploy/gcp/head-role.yaml").read_text(encoding="utf-8"))
    needed = {f"compute.{name}" for names in PERMISSIONS.values() for name in names}
    assert set(role["includedPermissions"]) == needed
