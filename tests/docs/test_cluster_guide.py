"""The guide to clusters: its commands are understood; those for machines at hand are run."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.helpers.command_lines import BLOCK, check_command, commands_of_page

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "cluster.md"
NAMESPACE = ["unshare", "--pid", "--net", "--mount", "--fork", "--mount-proc", "--kill-child"]
# Ray's folder too, in which a command finds the cluster of its machine.
PRIVATE = ["ip link set lo up", "mkdir -p /tmp/ray", "mount -t tmpfs tmpfs /tmp/ray"]
Run = Callable[..., str]


def blocks(heading: str) -> list[str]:
    """The shell blocks of a section of the guide."""
    text = GUIDE.read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    return BLOCK.findall(section)


@pytest.mark.parametrize("page", ["docs/guides/cluster.md", "README.md"])
def test_commands_of_page_are_understood(page: str) -> None:
    checked = [check_command(words) for words in commands_of_page(ROOT / page)]
    assert {"ray", "ampere"} <= set(checked) and len(checked) > 10


def test_kuberay_jobs_are_what_the_guide_makes_of_the_files(tmp_path: Path) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text('[ "$1" != create ] || { echo ---; cat "$3"; }', encoding="utf-8")
    kubectl.chmod(0o755)
    (script,) = [block for block in blocks("KubeRay") if "kubectl create -f -" in block]
    output = subprocess.run(
        ["sh", "-ec", script],
        cwd=ROOT,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "BUCKET": "shop"},
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    jobs = [document["spec"]["entrypoint"].split() for document in yaml.safe_load_all(output)]
    assert [Path(words[1]).stem for words in jobs] == ["prepare", "decode", "summarize"]
    assert [check_command(words) for words in jobs] == ["jobs"] * 3
    assert jobs[0][-2:] == ["--manifest", "s3://shop/catalog.csv"]


@pytest.fixture
def run_as_typed(tmp_path: Path) -> Run:
    """Run shell blocks of the guide in namespaces of their own.

    So the ports are those of the guide, `ray stop` finds no other Ray, and nothing is left behind.
    """
    probe = [*NAMESPACE, "ip", "link", "set", "lo", "up"]
    if not shutil.which("unshare") or subprocess.run(probe, check=False).returncode:
        pytest.skip("unshare and ip cannot make namespaces here; they need root")
    for name, color in (("red", (200, 20, 20)), ("blue", (0, 0, 220))):
        Image.new("RGB", (64, 48), color).save(tmp_path / f"{name}.jpg")

    def run(*scripts: str) -> str:
        script = "\n".join([*PRIVATE, *scripts])
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        done = subprocess.run(
            [*NAMESPACE, "bash", "-ec", script.replace("/data/workspace", f"{tmp_path}/workspace")],
            cwd=ROOT,
            env=clean | {"DIR": str(tmp_path), "HEAD": "127.0.0.1", "HOME": str(tmp_path)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_one_machine_works_as_typed(run_as_typed: Run) -> None:
    output = run_as_typed(*blocks("One machine"))
    assert re.search(r"Job 'raysubmit_\w+' succeeded", output)
    assert re.search(r"embed-zero-shot +2 +0 +0 +0", output)
    assert "Stopped all" in output


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_existing_cluster_works_as_typed(run_as_typed: Run) -> None:
    """Two nodes of one machine; the endpoint of a cluster is tested in tests/serve."""
    start, use = blocks("Existing cluster")
    use = "".join(line for line in use.splitlines(True) if not line.startswith("serve "))
    token = "RAY_AUTH_MODE=token ray get-auth-token --generate"
    status = "ampere status --workspace /data/workspace"
    # Of the worker: the head has none. The autoscaler looks at the nodes every five seconds.
    joined = "timeout 60 sh -c 'until ray status | grep 0.0/2.0.CPU; do :; done'"
    output = run_as_typed(". .venv/bin/activate", token, start, joined, use, status)
    assert output.count("Ray runtime started.") == 2
    assert re.search(r"Job 'raysubmit_\w+' succeeded", output)
    assert re.search(r"embed-zero-shot +2 +0 +0 +0", output) and "index zero-shot@" in output
