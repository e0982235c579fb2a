"""Hosts made of Linux namespaces: the machines of a cluster, on this one machine.

A host has its own network interface, processes and files. It sees this machine's files as a copy:
what is installed here is installed there, and what it writes is its own and ends with it. A switch
without a way out connects the hosts, so every set of hosts has the same addresses.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

NETWORK = "198.18.0"  # of the addresses reserved for tests between machines (RFC 2544)
TOOLS = ("ip", "mount", "nsenter", "unshare")
USER = "host"
HOME = f"/home/{USER}"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ROOT = Path(__file__).parents[2]
# These may lie in a folder that the hosts do not see, as /tmp, or on another disk than /.
PYTHON = [ROOT, Path(sys.prefix).resolve(), Path(sys.base_prefix)]

# Process 1 of a host ends when its input does: with `hosts`, or with a test run that is killed.
# It ignores the ends of others, so that processes whose parents have ended do not stay as zombies.
FIRST_PROCESS = (
    sys.executable,
    "-c",
    """
import signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("ready", flush=True)
sys.stdin.read()
""",
)

# $1: an empty folder to mount on; $2: the host's name; then the folders that it sees as copies,
# `--`, those that hosts share, `--`, and the command of process 1.
START = f"""
set -e
own=$1; hostname "$2"; shift 2
mount -t tmpfs host "$own"
show_copy() {{  # of a folder of this machine; the host keeps what it writes into it
  layer=$own/$(echo "$1" | tr / _)
  mkdir -p "$layer/written" "$layer/work" "$own/root$1"
  mount -t overlay -o "lowerdir=$1,upperdir=$layer/written,workdir=$layer/work" host "$own/root$1"
}}
show_copy /
cd "$own/root"
mount --rbind /dev dev
mount --rbind /sys sys
mount -t proc proc proc
for folder in dev/shm run tmp; do mount -t tmpfs host $folder; done
while [ "$1" != -- ]; do show_copy "$1"; shift; done
shift
while [ "$1" != -- ]; do mkdir -p ".$1"; mount --bind "$1" ".$1"; shift; done
shift
ip link set lo up
# A home without any setting or key of this machine's user; named first, it is that of user 0.
cp -r etc/skel .{HOME}
sed -i '1i {USER}:x:0:0::{HOME}:/bin/bash' etc/passwd
exec chroot . "$@"
"""


@dataclass(frozen=True)
class Host:
    """A running host; `pid` is its first process, as this machine counts."""

    name: str
    address: str
    pid: int

    def command(self, script: str) -> list[str]:
        """The command line that runs a shell script in the host."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--net", "--pid", "--root"]
        env = ["env", "-i", f"--chdir={HOME}", f"HOME={HOME}", f"USER={USER}", f"PATH={PATH}"]
        return [*enter, *env, "bash", "-c", script]

    def run(self, script: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a shell script in the host and wait for its end."""
        return subprocess.run(
            self.command(script), capture_output=True, text=True, timeout=timeout, check=False
        )

    def processes(self) -> list[psutil.Process]:
        """All processes in the host but its first one."""
        own = _namespace(self.pid)
        found = [process for process in psutil.process_iter() if _namespace(process.pid) == own]
        return [process for process in found if process.pid != self.pid]


@contextmanager
def hosts(
    host_names: Sequence[str], folder: Path, shared: Sequence[Path] = ()
) -> Iterator[list[Host]]:
    """Start hosts that reach each other at 198.18.0.1, 198.18.0.2, ...; end them with all they run.

    Args:
        host_names: at least one.
        folder: for the folders that the hosts are mounted on.
        shared: folders that all hosts and this machine read and write, as on a network drive.

    A test is skipped where hosts cannot be made.
    """
    if reason := reason_without_hosts():
        pytest.skip(reason)
    with ExitStack() as stack:
        switch = stack.enter_context(_namespaces(["--net"], FIRST_PROCESS))
        _ip(switch, "link add switch type bridge")
        _ip(switch, "link set switch up")
        started = []
        for number, name in enumerate(host_names, start=1):
            own = folder / name
            own.mkdir()
            stack.callback(own.rmdir)  # fails if anything were left in it
            kinds = ["--net", "--mount", "--uts", "--pid", "--fork", "--kill-child"]
            start = ["sh", "-c", START, "start", own, name]
            start += [*PYTHON, "--", *shared, "--", *FIRST_PROCESS]
            pid = stack.enter_context(_namespaces(kinds, start))
            _connect(switch, pid, number)
            started.append(Host(name, f"{NETWORK}.{number}", pid))
        # Ray finds a host's own address by its name, as no address outside is reachable.
        names = "\n".join(["127.0.0.1 localhost", *(f"{h.address} {h.name}" for h in started)])
        for host in started:
            assert host.run(f"echo '{names}' > /etc/hosts").returncode == 0
        yield started


def reason_without_hosts() -> str | None:
    """Why hosts cannot be made here; None if they can."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return (
            f"no hosts of namespaces: {', '.join(missing)} not found; install iproute2, util-linux"
        )
    command = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "mount", "-t", "tmpfs"]
    tried = subprocess.run([*command, "host", "/tmp"], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"no hosts of namespaces: {tried.stderr.strip()}; needs root and namespaces"
    return None


@contextmanager
def _namespaces(kinds: Sequence[str], command: Sequence[object]) -> Iterator[int]:
    """Run a command in new namespaces; yields its process id once it prints `ready`."""
    with subprocess.Popen(
        ["unshare", *kinds, *map(str, command)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout and process.stderr
        if process.stdout.readline() != "ready\n":
            pytest.fail(f"the host did not start: {process.stderr.read()}")
        children = psutil.Process(process.pid).children()
        yield children[0].pid if children else process.pid


def _connect(switch: int, host: int, number: int) -> None:
    """Give a host an address, and connect it to the switch."""
    _ip(switch, f"link add port{number} type veth peer name eth0 netns {host}")
    _ip(switch, f"link set port{number} master switch up")
    _ip(host, f"address add {NETWORK}.{number}/24 dev eth0")
    _ip(host, "link set eth0 up")


def _ip(pid: int, arguments: str) -> None:
    """Run `ip` in the network namespace of a process."""
    subprocess.run(["nsenter", f"--target={pid}", "--net", "ip", *arguments.split()], check=True)


def _namespace(pid: int) -> Path | None:
    """Name of the namespace of processes that a process is in; None if it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/ns/pid").readlink()
    return None
