"""`ray up deploy/local/cluster.yaml`: a head and two workers over SSH, with the guide's commands.

The machines are hosts of namespaces that reach nothing but each other. The environment of the tests
stands for one that an earlier `ray up` or an image left there.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from ampere.cli import main
from ampere.records import FRAMES, SAMPLES
from ampere.store.workspace import Workspace
from tests.helpers.hosts import PATH, ROOT, USER, Host, hosts

FILE = "deploy/local/cluster.yaml"
GUIDE = ROOT / "docs/guides/cluster.md"
SSHD = shutil.which("sshd", path=PATH)
VENV = Path(sys.prefix).resolve()

# The user is in the folder of the checkout.
PROMPT = (
    f"cd {ROOT} && . {VENV}/bin/activate && export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0"
)

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]


class Cluster:
    """Three machines with an SSH server each, and the computer of their user."""

    def __init__(self, user: Host, nodes: list[Host]) -> None:
        self.user = user
        self.nodes = nodes
        self.head, *self.workers = nodes

    def try_to(self, command: str) -> subprocess.CompletedProcess[str]:
        """Type a command at the user's computer."""
        return self.user.run(f"{PROMPT} && {command}", timeout=300)

    def run(self, command: str) -> str:
        """Output of a command at the user's computer; fails with the test if the command does."""
        done = self.try_to(command)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def listed(self, kind: str) -> list[dict[str, Any]]:
        """The rows of `ray list KIND` on the head."""
        text = self.run(f"ray exec {FILE} 'ray list {kind} --format json --limit 1000'")
        [answer] = [line for line in text.splitlines() if line.startswith("[{")]
        return json.loads(answer)

    def wait_for_nodes(self) -> dict[str, str]:
        """Wait until the head has started Ray on all workers; returns the node id of each host."""
        while True:
            alive = {
                n["node_ip"]: n["node_id"] for n in self.listed("nodes") if n["state"] == "ALIVE"
            }
            if len(alive) == len(self.nodes):
                return {host.name: alive[host.address] for host in self.nodes}


def guide(beginning: str) -> str:
    """The command of the guide's section that begins so."""
    section = (
        GUIDE.read_text(encoding="utf-8").split("## Hosts reached by SSH\n")[1].split("\n## ")[0]
    )
    lines = section.replace("\\\n", " ").splitlines()
    [command] = [line.split(" #")[0] for line in lines if line.startswith(beginning)]
    return command.removesuffix("&").strip()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all machines see, as on a network drive."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Iterator[Cluster]:
    """The machines, which the user's key opens and `FILE` names; Ray does not run yet."""
    if SSHD is None:
        pytest.skip("no sshd: install openssh-server")
    if shutil.which("rsync") is None:
        pytest.skip("no rsync, with which `ray up` copies files: install rsync")
    folder = tmp_path_factory.mktemp("hosts")
    with ExitStack() as stack:
        names = ["laptop", "head", "worker-1", "worker-2"]
        user, *nodes = stack.enter_context(hosts(names, folder, [shared]))
        cluster = Cluster(user, nodes)
        cluster.run("mkdir -m 700 ~/.ssh && " + guide("ssh-keygen"))
        key = cluster.run("cat ~/.ssh/ampere_cluster.pub").strip()
        for node in nodes:
            start_sshd(node, key)
        placeholders = ["HEAD_ADDRESS", "WORKER_1_ADDRESS", "WORKER_2_ADDRESS", "USER"]
        values = [*(node.address for node in nodes), USER]
        changes = [f"s/{old}/{new}/" for old, new in zip(placeholders, values, strict=True)]
        cluster.run(f"sed -i '{';'.join(changes)}' {FILE} && {guide('export RAY_AUTH_MODE')}")
        yield cluster


def start_sshd(node: Host, key: str) -> None:
    """Start the SSH server of a machine that has the environment; it ends with the machine."""
    prepare = [
        f"ln -s {VENV} ~/venv",
        f"cp {ROOT}/requirements/cpu.txt ~/venv/.requirements.txt",
        f"mkdir -m 700 ~/.ssh && echo '{key}' > ~/.ssh/authorized_keys",
        "mkdir /run/sshd && ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/of_this_host",
        f"{SSHD} -f /dev/null -o HostKey=/etc/ssh/of_this_host",
    ]
    started = node.run(" && ".join(prepare))
    assert started.returncode == 0, started.stderr


@pytest.fixture(scope="module")
def cluster(machines: Cluster) -> Iterator[Cluster]:
    """The cluster of these machines."""
    machines.run(guide("ray up"))
    machines.wait_for_nodes()
    yield machines
    machines.run(guide("ray down"))


@pytest.fixture
def dashboard(cluster: Cluster) -> Iterator[None]:
    """The job server of the cluster, forwarded to the user's computer."""
    command = cluster.user.command(f"{PROMPT} && {guide('ray dashboard')}")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        cluster.run("until (: < /dev/tcp/127.0.0.1/8265) 2>/dev/null; do :; done")
        yield
        cluster.run("pkill ssh")


@pytest.mark.usefixtures("dashboard")
def test_request_without_the_token_is_refused(cluster: Cluster) -> None:
    head = f"{cluster.head.address}:6379"
    asks = [
        "ray job list --address http://127.0.0.1:8265",
        f"python -c 'from ampere.cluster import check_reachable; check_reachable(\"{head}\")'",
    ]
    for ask in asks:
        cluster.run(ask)
        for change in ("unset RAY_AUTH_MODE", f"export RAY_AUTH_TOKEN={'0' * 64}"):
            refused = cluster.try_to(f"{change} && {ask}")
            assert refused.returncode == 1
            assert "token" in refused.stderr, refused.stderr


@pytest.mark.usefixtures("dashboard")
def test_job_from_outside_runs_on_all_workers(
    cluster: Cluster, shared: Path, catalog: Path
) -> None:
    media = shutil.copytree(catalog, shared / "catalog")
    uri = str(shared / "workspace")
    assert main(["prepare", "--manifest", str(media / "manifest.csv"), "--workspace", uri]) == 0
    submit = guide("ray job submit").replace("/data/workspace", uri)
    assert "decode: 100 files done" in cluster.run(f"{submit} --decode.batch-size 4")
    workspace = Workspace.open(uri)
    assert workspace.table(FRAMES).count() == workspace.table(SAMPLES).count() == 100
    tasks = [task for task in cluster.listed("tasks") if "MapBatches" in task["name"]]
    ids = cluster.wait_for_nodes()
    assert {task["node_id"] for task in tasks} == {ids["worker-1"], ids["worker-2"]}
    [job] = cluster.listed("jobs")
    assert job["driver_info"]["node_ip_address"] == cluster.head.address


def test_exec_and_attach_run_a_command_on_the_head(cluster: Cluster) -> None:
    assert "2 local.cluster.node" in cluster.run(guide("ray exec"))
    assert "# head\nexit\n" in cluster.run(f"echo 'hostname; exit' | {guide('ray attach')}")


def test_ray_ends_with_down_and_comes_up_again(cluster: Cluster) -> None:
    cluster.run(guide("ray up"))  # restarts Ray everywhere
    cluster.wait_for_nodes()
    cluster.run(guide("ray down"))
    for node in cluster.nodes:  # workers end a minute after the head
        wait_for_end(node)
    cluster.run(guide("ray up"))
    cluster.wait_for_nodes()


def wait_for_end(node: Host) -> None:
    """Wait until nothing but the SSH server runs on a machine."""
    while left := [process for process in node.processes() if is_left(process)]:
        psutil.wait_procs(left, timeout=1)


def is_left(process: psutil.Process) -> bool:
    """Whether a process runs that is not of the SSH server."""
    with suppress(psutil.NoSuchProcess):
        return process.name() != "sshd"
    return False
