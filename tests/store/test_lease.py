"""Leases in an S3 server that honours conditional writes; processes race, die and are paused."""

import json
import os
import signal
import subprocess
import sys
import time

import boto3
import pytest

from ampere.records import SAMPLES
from ampere.store import lease
from ampere.store.conditional import ConditionalFile
from ampere.store.lease import Holder, LeaseLost, _Watch, held_lease
from ampere.store.locks import check_locks
from ampere.store.workspace import Workspace
from tests.helpers.faulty_proxy import FaultyProxy
from tests.helpers.s3 import BUCKET

pytestmark = pytest.mark.slow
LEASE_S = 4.0  # a renewal every 0.7 s, also where six processes share two cores
PROCESSES, ROUNDS = 4, 12
NAMES = str.maketrans("/:[]", "----")


@pytest.fixture
def uri(request: pytest.FixtureRequest) -> str:
    """Of a lease of this test alone."""
    return f"s3://{BUCKET}/{request.node.nodeid.translate(NAMES)}/leases/x.json"


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


COUNT = """
import os, random, signal, sys
import boto3
from ampere.store.lease import held_lease
uri, bucket, key, lease_s, rounds, dies = sys.argv[1:]
client = boto3.client("s3")
for number in range(int(rounds)):
    with held_lease(uri, "the counter", wait=True, lease_s=float(lease_s)):
        count = int(client.get_object(Bucket=bucket, Key=key)["Body"].read())
        client.put_object(Bucket=bucket, Key=key, Body=str(count + 1).encode())
        print("counted", flush=True)
        if dies == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_no_update_is_lost_by_processes_that_race_and_die(store: None, uri: str) -> None:
    """The increment itself has no condition: the lease alone keeps two from reading one count."""
    client, key = boto3.client("s3"), f"{uri.split('/')[3]}/count"
    client.put_object(Bucket=BUCKET, Key=key, Body=b"0")
    arguments = [uri, BUCKET, key, str(LEASE_S), str(ROUNDS)]
    ends = ["lives"] * (PROCESSES - 1) + ["dies"]
    processes = [start(COUNT, *arguments, end) for end in ends]
    counted = sum(process.communicate(timeout=200)[0].count("counted") for process in processes)
    assert [process.returncode for process in processes] == [0] * (PROCESSES - 1) + [-9]
    assert counted == ROUNDS * (PROCESSES - 1) + 1
    assert int(client.get_object(Bucket=BUCKET, Key=key)["Body"].read()) == counted


def test_without_the_lease_updates_are_lost(store: None, uri: str) -> None:
    """So the test above can fail."""
    client, key = boto3.client("s3"), f"{uri.split('/')[3]}/count"
    client.put_object(Bucket=BUCKET, Key=key, Body=b"0")
    unlocked = COUNT.replace("with held_lease(", "if (").replace(
        ', "the counter", wait=True, lease_s=float(lease_s)', ""
    )
    arguments = [uri, BUCKET, key, str(LEASE_S), "100", "lives"]
    processes = [start(unlocked, *arguments) for _ in range(PROCESSES)]
    counted = sum(process.communicate(timeout=200)[0].count("counted") for process in processes)
    assert counted == 100 * PROCESSES
    assert int(client.get_object(Bucket=BUCKET, Key=key)["Body"].read()) < counted


HOLD = """
import sys
from ampere.store.lease import held_lease
with held_lease(sys.argv[1], "frames in s3://shop", wait=False, lease_s=float(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_second_holder_is_refused_while_the_first_renews(store: None, uri: str) -> None:
    with start(HOLD, uri, str(LEASE_S)) as holder:
        assert line_of(holder) == "held"
        message = rf"another job is writing frames: process {holder.pid} on .* since \d{{4}}-.*stop"
        for _ in range(2):  # it is still alive after a whole lease
            with (
                pytest.raises(RuntimeError, match=message),
                held_lease(uri, "frames", wait=False, lease_s=LEASE_S),
            ):
                pass
        holder.communicate("\n", timeout=60)
    begin = time.monotonic()
    with held_lease(uri, "frames", wait=False, lease_s=LEASE_S):  # released: nobody waits
        assert time.monotonic() - begin < LEASE_S / 2


def test_lease_of_a_killed_holder_is_taken_over(store: None, uri: str) -> None:
    with start(HOLD, uri, str(LEASE_S)) as holder:
        assert line_of(holder) == "held"
        holder.kill()
    begin = time.monotonic()
    with held_lease(uri, "frames", wait=False, lease_s=60):  # the holder's own time counts
        assert LEASE_S <= time.monotonic() - begin < 3 * LEASE_S


APPEND = """
import sys
from ampere.records import SAMPLES
from ampere.store import lease
from ampere.store.workspace import Workspace
lease.LEASE_S = float(sys.argv[2])
workspace = Workspace.open(sys.argv[1])
with workspace.lock("samples"):
    print("held", flush=True)
    sys.stdin.readline()
    try:
        workspace.table(SAMPLES).append([{"sample_id": "late", "domain": "page"}])
        print("committed", flush=True)
    except lease.LeaseLost as error:
        print(f"lost: {error}", flush=True)
"""


def test_paused_holder_that_lost_its_lease_does_not_commit(store: None, uri: str) -> None:
    workspace = Workspace.create(uri.removesuffix("/leases/x.json"), "demo")
    table = workspace.table(SAMPLES)
    with start(APPEND, workspace.uri, str(LEASE_S)) as holder:
        assert line_of(holder) == "held"
        holder.send_signal(signal.SIGSTOP)
        with workspace.lock("samples"):
            table.append([{"sample_id": "new", "domain": "page"}])
            holder.send_signal(signal.SIGCONT)
            holder.stdin.write("\n")  # type: ignore[union-attr]
            holder.stdin.flush()  # type: ignore[union-attr]
            answer = line_of(holder)
    assert answer.startswith("lost: the lease of samples in s3://shop/") and "run the" in answer
    assert table.read(["sample_id"])["sample_id"].to_pylist() == ["new"]


def test_paused_holder_whose_lease_nobody_took_goes_on(store: None, uri: str) -> None:
    workspace = Workspace.create(uri.removesuffix("/leases/x.json"), "demo")
    with start(APPEND, workspace.uri, str(LEASE_S)) as holder:
        assert line_of(holder) == "held"
        holder.send_signal(signal.SIGSTOP)
        with pytest.raises(subprocess.TimeoutExpired):
            holder.wait(timeout=LEASE_S + 1)
        holder.send_signal(signal.SIGCONT)
        answer, _ = holder.communicate("\n", timeout=60)
    assert answer == "committed\n"
    assert workspace.table(SAMPLES).count() == 1


def test_commits_are_checked_in_the_thread_that_holds_the_lock(
    store: None, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace.create(uri.removesuffix("/leases/x.json"), "demo")
    check_locks()  # none is held
    with workspace.lock("decode"), workspace.commit_lock("frames"):
        check_locks()
        stolen = ConditionalFile(f"{workspace.uri}/leases/decode.json")
        found = stolen.read()
        assert found is not None
        assert stolen.write(Holder.this_process(60).content(), found[1]) is not None
        monkeypatch.setattr(lease, "clock", lambda: time.monotonic() + 1e9)  # a long pause
        with pytest.raises(LeaseLost, match="decode in"):
            check_locks()
        with pytest.raises(LeaseLost):
            workspace.table(SAMPLES).append([{"sample_id": "a", "domain": "page"}])
    assert workspace.table(SAMPLES).dataset() is None
    check_locks()


def test_lost_answer_of_a_renewal_is_no_lost_lease(proxy: FaultyProxy, uri: str) -> None:
    """The request is repeated, and the store refuses the repetition: the first one was done."""
    proxy.lost_answers = 1
    with held_lease(uri, "frames", wait=False, lease_s=LEASE_S) as held:
        proxy.lost_answers = 1
        held._renewed_at -= LEASE_S
        held.check()
        assert proxy.lost_answers == 0


def test_holder_survives_an_outage_longer_than_its_lease(proxy: FaultyProxy, uri: str) -> None:
    """Another process that waits meanwhile does not rob it: its time stops, too."""
    with held_lease(uri, "frames", wait=False, lease_s=LEASE_S) as held:
        waiting = start(COUNT_ONE_LOOK, uri, str(LEASE_S))
        assert line_of(waiting) == "waiting"
        proxy.leave()
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=1.5 * LEASE_S)
        proxy.come_back()
        held.check()
    assert line_of(waiting) == "held"
    waiting.communicate(timeout=60)


COUNT_ONE_LOOK = """
import sys
from ampere.store.conditional import ConditionalFile
from ampere.store.lease import held_lease
ConditionalFile(sys.argv[1]).read()
print("waiting", flush=True)
with held_lease(sys.argv[1], "frames", wait=True, lease_s=float(sys.argv[2])):
    print("held", flush=True)
"""


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_store_that_ignores_conditions_is_refused(
    proxy: FaultyProxy, uri: str, header: str
) -> None:
    proxy.hidden = {header.lower()}
    with (
        pytest.raises(ValueError, match=f"ignores {header}.*two jobs"),
        held_lease(uri, "frames", wait=False, lease_s=LEASE_S),
    ):
        pass


def test_missing_bucket_and_damaged_lease_are_errors(store: None, uri: str) -> None:
    with (
        pytest.raises(OSError, match=r"cannot write s3://nowhere/x\.json"),
        held_lease("s3://nowhere/x.json", "frames", wait=True, lease_s=LEASE_S),
    ):
        pass
    boto3.client("s3").put_object(Bucket=BUCKET, Key=uri.split("/", 3)[3], Body=b"{}")
    with (
        pytest.raises(ValueError, match="damaged"),
        held_lease(uri, "frames", wait=True, lease_s=LEASE_S),
    ):
        pass


def test_store_that_is_away_is_an_error(proxy: FaultyProxy, uri: str) -> None:
    proxy.leave()
    with pytest.raises(OSError, match=f"cannot read or write {uri}: [^\n]*$"):
        ConditionalFile(uri).write(b"x", None, patience_s=0)


def test_watch_counts_only_time_in_which_the_store_answers() -> None:
    holder, watch = Holder.this_process(60), _Watch()
    assert [watch.is_over(holder, now) for now in (0.0, 10.0, 20.0)] == [False] * 3
    assert not watch.is_over(holder, 70.0)  # 50 s without an answer
    assert not watch.is_over(holder, 80.0)
    assert not watch.is_over(holder.renewal(), 90.0)
    assert watch.changes == 1
    looks = [watch.is_over(holder.renewal(), now) for now in (100.0, 110.0, 120.0, 130.0, 140.0)]
    assert looks == [False] * 5
    assert watch.is_over(holder.renewal(), 150.0)


def test_lease_names_its_holder(store: None, uri: str) -> None:
    with held_lease(uri, "frames", wait=False, lease_s=LEASE_S):
        found = ConditionalFile(uri).read()
        assert found is not None and json.loads(found[0])["pid"] == os.getpid()
        assert not json.loads(found[0])["released"]
    found = ConditionalFile(uri).read()
    assert found is not None and json.loads(found[0])["released"]
