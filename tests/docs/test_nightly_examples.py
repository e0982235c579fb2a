"""The examples for schedulers: they have flags of `ampere run`, and the YAML fits its schema."""

import ast
import copy
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ampere.command_line import read_flags
from ampere.commands import Run

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "nightly"
SCHEMA = ROOT.parent / "shared" / "reference" / "kuberay" / "ray.io_raycronjobs.yaml"
JOB = "jobs/run.py "


def cron_job() -> dict[str, Any]:
    return yaml.safe_load((EXAMPLES / "ray-cron-job.yaml").read_text(encoding="utf-8"))


def commands(name: str) -> list[str]:
    """The shell commands of an example that run the job."""
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    if name.endswith(".py"):
        constants = (
            node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)
        )
        lines = [value for value in constants if isinstance(value, str)]
    elif name.endswith(".yaml"):
        lines = [cron_job()["spec"]["jobTemplate"]["entrypoint"]]
    else:
        lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [line for line in lines if JOB in line]


@pytest.mark.parametrize("name", ["crontab", "ray-cron-job.yaml", "airflow_dag.py"])
def test_examples_have_flags_that_exist(name: str) -> None:
    (command,) = commands(name)
    flags = shlex.split(command.partition(JOB)[2].partition(" >")[0])
    run = read_flags(Run, flags)
    assert isinstance(run, Run) and run.until == "index" and run.manifest and run.budget_minutes
    # Inside a Ray job relative paths are refused.
    assert run.workspace.startswith("/") and run.manifest.startswith("/")


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


@pytest.mark.skipif(not SCHEMA.exists(), reason=f"no KubeRay schema at {SCHEMA}")
def test_cron_job_fits_the_schema_of_kuberay() -> None:
    # The loader in C, since the file is a megabyte.
    definition = yaml.load(SCHEMA.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    (version,) = definition["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"]["properties"] = {"name": {"type": "string"}}
    job = cron_job()
    assert job["apiVersion"] == f"{definition['spec']['group']}/{version['name']}"
    assert job["kind"] == definition["spec"]["names"]["kind"]
    validator = jsonschema.Draft202012Validator(strict(schema))
    assert [error.message for error in validator.iter_errors(job)] == []
    misspelled = copy.deepcopy(job)
    misspelled["spec"]["jobTemplate"]["entryPoint"] = "x"
    (error,) = validator.iter_errors(misspelled)
    assert "'entryPoint' was unexpected" in error.message
