"""deploy/kuberay/ against KubeRay's own schemas, Ray's schema of Serve, and the command line."""

import copy
import importlib
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from ampere.commands import Run
from serve.app import SearchArgs
from tests.helpers.command_lines import check_command, read_ampere

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "kuberay"
CRDS = Path(os.environ.get("AMPERE_KUBERAY_CRDS", ""))
KINDS = {
    "stage-cpu.yaml": "RayJob",
    "stage-gpu.yaml": "RayJob",
    "night.yaml": "RayCronJob",
    "search.yaml": "RayService",
}
STAGES = {
    "stage-cpu.yaml": ("decode", "index", "evaluate"),
    "stage-gpu.yaml": ("embed", "transcribe", "summarize", "train"),
}
needs_schemas = pytest.mark.skipif(
    "AMPERE_KUBERAY_CRDS" not in os.environ,
    reason="AMPERE_KUBERAY_CRDS names no folder with KubeRay's definitions (ray.io_*.yaml)",
)


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))


def cluster(name: str) -> dict[str, Any]:
    """The Ray cluster of a file."""
    spec = read(name)["spec"]
    spec = spec.get("jobTemplate", spec)
    return spec.get("rayClusterSpec") or spec["rayClusterConfig"]


def pods(name: str) -> Iterator[dict[str, Any]]:
    """The pods of a file, the head's first."""
    groups = [cluster(name)["headGroupSpec"], *cluster(name)["workerGroupSpecs"]]
    return (group["template"]["spec"] for group in groups)


def containers(name: str) -> Iterator[dict[str, Any]]:
    return (container for pod in pods(name) for container in pod["containers"])


def strict(schema: Any) -> Any:
    """A schema that refuses keys it does not name; Kubernetes would drop them without a word."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {name: strict(part) for name, part in schema.items()}
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result.setdefault("additionalProperties", False)
    return result


def validator(kind: str) -> jsonschema.Draft202012Validator:
    # The loader in C, since a file is a megabyte.
    text = (CRDS / f"ray.io_{kind.lower()}s.yaml").read_text(encoding="utf-8")
    definition = yaml.load(text, Loader=yaml.CSafeLoader)
    assert definition["spec"]["names"]["kind"] == kind
    (version,) = [v for v in definition["spec"]["versions"] if v["name"] == "v1"]
    schema = version["schema"]["openAPIV3Schema"]
    names = {name: {"type": "string"} for name in ("name", "generateName")}
    schema["properties"]["metadata"]["properties"] = names
    return jsonschema.Draft202012Validator(strict(schema))


def test_every_file_has_its_kind() -> None:
    assert {path.name: read(path.name)["kind"] for path in FOLDER.glob("*.yaml")} == KINDS


@needs_schemas
@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_file_fits_the_schema_of_kuberay(name: str, kind: str) -> None:
    document, checked = read(name), validator(kind)
    assert document["apiVersion"] == "ray.io/v1"
    assert [error.message for error in checked.iter_errors(document)] == []
    for path, wrong in ((("spec",), "noSuchKey"), (("metadata",), "label")):
        misspelled: Any = copy.deepcopy(document)
        part = misspelled
        for key in path:
            part = part[key]
        part[wrong] = "x"
        (error,) = checked.iter_errors(misspelled)
        assert f"'{wrong}' was unexpected" in error.message


@needs_schemas
def test_schema_refuses_a_misspelled_key_of_a_container() -> None:
    document = read("stage-gpu.yaml")
    group = document["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    group["template"]["spec"]["containers"][0]["resource"] = {}
    (error,) = validator("RayJob").iter_errors(document)
    assert "'resource' was unexpected" in error.message


@pytest.mark.parametrize("name", KINDS)
def test_cluster_has_a_token_an_autoscaler_and_limits(name: str) -> None:
    spec = cluster(name)
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] and spec["autoscalerOptions"]["version"] == "v2"
    assert spec["autoscalerOptions"]["idleTimeoutSeconds"] <= 300
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in spec["workerGroupSpecs"]:
        least = 2 if name == "search.yaml" else 0
        assert group["minReplicas"] == least < group["maxReplicas"] <= 16


@pytest.mark.parametrize("name", KINDS)
def test_containers_have_few_rights_and_no_secrets(name: str) -> None:
    for pod in pods(name):
        assert pod["securityContext"] == {"runAsNonRoot": True, "runAsUser": 1000}
    for pod in [*pods(name)][1:]:  # the autoscaler of the head asks Kubernetes for workers
        assert pod["automountServiceAccountToken"] is False
    for container in containers(name):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["envFrom"] == [{"secretRef": {"name": "ampere-storage"}}]
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert not re.search("AWS_SECRET|AUTH_TOKEN|password", text)


@pytest.mark.parametrize("name", KINDS)
def test_images_are_those_of_the_dockerfile(name: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    for container in containers(name):
        kind = "gpu" if "nvidia.com/gpu" in container["resources"]["limits"] else "cpu"
        assert container["image"] == f"REGISTRY/ampere:{version}-{kind}"
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    for kind in ("cpu", "gpu"):
        assert f"--target {kind} -t REGISTRY/ampere:{version}-{kind} ." in dockerfile


@pytest.mark.parametrize(
    ("name", "stage"), [(name, stage) for name, stages in STAGES.items() for stage in stages]
)
def test_each_stage_is_a_job_with_flags_that_exist(name: str, stage: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert f"sed 's/{STAGES[name][0]}/" in text and stage in text.partition("apiVersion")[0]
    job = yaml.safe_load(text.replace(STAGES[name][0], stage))["spec"]
    words = shlex.split(job["entrypoint"])
    assert check_command(words) == "jobs" and f"jobs/{stage}.py" in words[1]
    assert job["shutdownAfterJobFinishes"] is True and job["activeDeadlineSeconds"] <= 43200


def test_night_is_one_run_within_its_budget() -> None:
    job = read("night.yaml")["spec"]["jobTemplate"]
    words = shlex.split(job["entrypoint"])
    assert words[:2] == ["python", "/home/ray/ampere/jobs/run.py"]
    run = read_ampere("run", words[2:])
    assert isinstance(run, Run) and run.until == "index" and run.manifest
    assert 0 < run.budget_minutes * 60 < job["activeDeadlineSeconds"] < 24 * 3600


def test_search_is_the_application_of_this_repository() -> None:
    text = read("search.yaml")["spec"]["serveConfigV2"]
    config = ServeDeploySchema.model_validate(yaml.safe_load(text))
    (application,) = config.applications
    module, _, builder = application.import_path.partition(":")
    assert callable(getattr(importlib.import_module(module), builder))
    assert SearchArgs.model_validate(application.args).requires_keys is True
    head, worker = containers("search.yaml")
    assert worker["readinessProbe"]["httpGet"] == {"path": "/-/healthz", "port": 8000}
    assert worker["readinessProbe"]["httpGet"]["port"] == config.http_options.port
    assert head["env"] == worker["env"]


def test_search_has_the_arguments_of_the_file_for_other_clusters() -> None:
    """`revision` too; further arguments set what a single machine has not."""
    ours = yaml.safe_load(read("search.yaml")["spec"]["serveConfigV2"])["applications"][0]
    other = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text("utf-8"))["applications"][0]
    ours["args"]["workspace"] = other["args"]["workspace"]
    assert ours["args"].items() >= other["args"].items()
    assert {k: ours[k] for k in ours if k != "args"} == {k: other[k] for k in other if k != "args"}
