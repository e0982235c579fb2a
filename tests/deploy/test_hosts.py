"""The hosts that stand for the machines of a cluster in tests."""

import json
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.helpers.hosts import Host, hosts, reason_without_hosts

# Answers one connection with the name of its host.
SERVE = (
    'python3 -c \'import socket; s = socket.create_server(("", 7)); print(flush=True); '
    "s.accept()[0].sendall(socket.gethostname().encode())'"
)
ASK = "python3 -c 'import socket; print(socket.create_connection((\"second\", 7)).recv(9))'"


def links() -> list[str]:
    """Network interfaces of this machine."""
    listed = subprocess.run(["ip", "-json", "link"], capture_output=True, check=True)
    return [link["ifname"] for link in json.loads(listed.stdout)]


def mounts() -> list[str]:
    return Path("/proc/self/mounts").read_text().splitlines()


def test_host_has_files_of_its_own(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    with hosts(["first", "second"], tmp_path, [shared]) as (first, second):
        assert first.run(f"echo one > /etc/ampere; echo two > {shared}/file").returncode == 0
        assert second.run(f"ls /etc/ampere /tmp; cat {shared}/file").stdout.split()[-1] == "two"
        assert second.run("cat /etc/ampere").returncode == 1
    assert not Path("/etc/ampere").exists()
    assert (shared / "file").read_text() == "two\n"


def test_hosts_reach_each_other_and_nothing_else(tmp_path: Path) -> None:
    with hosts(["first", "second"], tmp_path) as (first, second):
        with subprocess.Popen(second.command(SERVE), stdout=subprocess.PIPE) as server:
            assert server.stdout and server.stdout.readline() == b"\n"
            assert first.run(ASK).stdout == "b'second'\n"
        assert first.run("ip route").stdout.startswith("198.18.0.0/24 dev eth0")
        assert "default" not in first.run("ip route").stdout


def test_host_sees_only_its_own_processes(tmp_path: Path) -> None:
    with hosts(["first", "second"], tmp_path) as (first, second):
        with subprocess.Popen(first.command("exec sleep 60")) as sleeper:
            processes(first, 1)
            assert not second.processes()
            assert second.run("pkill sleep").returncode == 1
            assert first.run("pkill sleep").returncode == 0
            sleeper.wait(timeout=10)
        assert not first.processes()


def processes(host: Host, count: int) -> list[psutil.Process]:
    """Wait for processes of a host."""
    while len(found := host.processes()) < count:
        continue
    return found


def test_nothing_of_the_hosts_remains(tmp_path: Path) -> None:
    if reason := reason_without_hosts():
        pytest.skip(reason)
    before = links(), mounts()
    with hosts(["first", "second"], tmp_path) as started:
        command = subprocess.Popen(started[0].command("setsid sleep 60 & sleep 60"))
        running = [*processes(started[0], 2), *(psutil.Process(host.pid) for host in started)]
        assert (links(), mounts()) == before  # none of it is in this machine's namespaces
    command.wait(timeout=10)
    assert not any(process.is_running() for process in running)
    assert (links(), mounts()) == before
    assert not list(tmp_path.iterdir())
