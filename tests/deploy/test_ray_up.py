"""`ray up deploy/local/cluster.yaml`: a head and two workers, over SSH, as the guide says it.

The machines are hosts of namespaces. They have no network but each other; the installed environment
stands for one that an earlier `ray up` or an image made.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ampere.cli import main
from ampere.records import FRAMES
from ampere.store.workspace import Workspace
from tests.helpers.hosts import PATH, USER, Host, hosts

ROOT = Path(__file__).parents[2]
FILE = "deploy/local/cluster.yaml"
SSHD = shutil.which("sshd", path=PATH)
DASHBOARD = "http://127.0.0.1:8265"

# In its own folder of the checkout, with its environment, as a user who has installed it.
PROMPT = (
    f"cd {ROOT} && export PATH={Path(sys.prefix).resolve()}/bin:$PATH"
    " RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0"
)

pytestmark = pytest.mark.timeout(600)


class Cluster:
    """Three machines that can be reached by SSH, and the computer of their user."""

    def __init__(self, user: Host, nodes: list[Host]) -> None:
        self.user = user
        self.head, *self.workers = nodes
        self.nodes = nodes

    def run(self, command: str, timeout: float = 240) -> str:
        """Output of a command that the user types; fails with the test if the command does."""
        done = self.user.run(f"{PROMPT} && {command}", timeout)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def alive(self) -> list[str]:
        """Names of the nodes in the cluster."""
        listed = self.run(f"ray exec {FILE} 'ray list nodes --format json'")
        nodes = json.loads(listed[listed.index("[\r\n") : listed.rindex("]") + 1])
        return sorted(node["node_ip"] for node in nodes if node["state"] == "ALIVE")

    def wait_for_nodes(self) -> None:
        """Wait until the head has started Ray on all workers."""
        expected = [node.address for node in self.nodes]
        while self.alive() != expected:
            continue


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all machines see, as of a network drive."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Iterator[Cluster]:
    """Machines with an SSH server each, which the user's key opens; `FILE` names them."""
    if SSHD is None:
        pytest.skip("no sshd; install openssh-server")
    if shutil.which("rsync") is None:
        pytest.skip("no rsync, which `ray up` copies files with; install rsync")
    folder = tmp_path_factory.mktemp("hosts")
    with ExitStack() as stack:
        user, *nodes = stack.enter_context(
            hosts(["laptop", "head", "worker-1", "worker-2"], folder, [shared])
        )
        cluster = Cluster(user, nodes)
        cluster.run(
            "mkdir -m 700 ~/.ssh && ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/ampere_cluster"
        )
        key = cluster.run("cat ~/.ssh/ampere_cluster.pub").strip()
        for node in nodes:
            stack.callback(start_sshd(node, key).wait)
        addresses = [node.address for node in nodes]
        names = ["HEAD_ADDRESS", "WORKER_1_ADDRESS", "WORKER_2_ADDRESS"]
        changes = [f"s/{name}/{address}/" for name, address in zip(names, addresses, strict=True)]
        cluster.run(f"sed -i '{';'.join(changes)};s/USER/{USER}/' {FILE}")
        cluster.run("ray get-auth-token --generate")
        yield cluster


def start_sshd(node: Host, key: str) -> subprocess.Popen[bytes]:
    """Start the SSH server of a machine that has the environment; wait until it listens."""
    prepare = [
        f"ln -s {Path(sys.prefix).resolve()} ~/venv",
        f"cp {ROOT}/requirements/cpu.txt ~/venv/.requirements.txt",
        f"mkdir -m 700 ~/.ssh && echo '{key}' > ~/.ssh/authorized_keys",
        "mkdir /run/sshd && ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/of_this_host",
        f"exec {SSHD} -D -e -f /dev/null -o HostKey=/etc/ssh/of_this_host",
    ]
    server = subprocess.Popen(node.command(" && ".join(prepare)), stderr=subprocess.PIPE)
    assert server.stderr
    assert b"listening" in server.stderr.readline()
    return server


@pytest.fixture(scope="module")
def cluster(machines: Cluster) -> Iterator[Cluster]:
    """The cluster of these machines."""
    machines.run(f"ray up -y {FILE}")
    machines.wait_for_nodes()
    yield machines
    machines.run(f"ray down -y {FILE}")


@pytest.fixture(scope="module")
def dashboard(cluster: Cluster) -> Iterator[None]:
    """The job server of the cluster, at port 8265 of the user's computer."""
    with subprocess.Popen(
        cluster.user.command(f"{PROMPT} && exec ray dashboard {FILE}"), stdout=subprocess.DEVNULL
    ) as forward:
        waited = cluster.user.run("until (: < /dev/tcp/127.0.0.1/8265) 2>/dev/null; do :; done")
        assert waited.returncode == 0
        yield
        forward.terminate()


def test_head_runs_no_tasks(cluster: Cluster) -> None:
    status = cluster.run(f"ray exec {FILE} 'ray status -v'")
    assert "1 head" in status and "2 local.cluster.node" in status


@pytest.mark.usefixtures("dashboard")
def test_request_without_the_token_is_refused(cluster: Cluster) -> None:
    ask = f"ray job list --address {DASHBOARD}"
    assert "[]" in cluster.run(ask)
    for change in ("unset RAY_AUTH_MODE", "export RAY_AUTH_TOKEN=of-another-cluster-than-this-one"):
        refused = cluster.user.run(f"{PROMPT} && {change} && {ask}")
        assert refused.returncode == 1
        assert "401" in refused.stderr or "403" in refused.stderr, refused.stderr


@pytest.mark.usefixtures("dashboard")
def test_job_from_outside_runs_on_all_workers(
    cluster: Cluster, shared: Path, catalog: Path
) -> None:
    media = shutil.copytree(catalog, shared / "catalog")
    uri = str(shared / "workspace")
    assert main(["prepare", "--manifest", str(media / "manifest.csv"), "--workspace", uri]) == 0
    log = cluster.run(
        f"ray job submit --address {DASHBOARD} --working-dir . "
        f"-- python jobs/decode.py --workspace {uri} --decode.batch-size 4"
    )
    assert "decode: " in log and "rows done" in log
    frames = Workspace.open(uri).table(FRAMES)
    assert frames.count() > 0
    listed = cluster.run(f"ray exec {FILE} 'ray list tasks --format json --limit 1000'")
    print(listed)


def test_exec_and_attach_run_a_command_on_the_head(cluster: Cluster) -> None:
    assert "head\r\n" in cluster.run(f"ray exec {FILE} hostname")
    assert "head\r\n" in cluster.run(f"echo 'hostname; exit' | ray attach {FILE}")


def test_down_leaves_no_process_and_up_works_again(cluster: Cluster) -> None:
    for _ in range(2):
        cluster.run(f"ray down -y {FILE}")
        for node in cluster.nodes:
            wait_for_no_ray(node)
        cluster.run(f"ray up -y {FILE}")
        cluster.wait_for_nodes()


def wait_for_no_ray(node: Host) -> None:
    """Wait until only the SSH server runs on a machine."""
    while not all(process.name() == "sshd" for process in node.processes()):
        continue
