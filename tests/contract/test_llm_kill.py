"""kill -9 between paid calls, and the loss of the disk: how much is paid for twice."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from llm_server import Script, ScriptedLlm

from nearer.llm.ledger import Ledger
from nearer.llm.request import Request
from nearer.store.protocol import WorkArea

CONCURRENT = 6
SCRIPT = """
import json, sys
from pathlib import Path
from nearer.llm.access import Access
from nearer.llm.ask import Asker
from nearer.llm.endpoint import Endpoint
from nearer.llm.ledger import Ledger
from nearer.llm.prices import Prices
from nearer.llm.request import Request
from nearer.progress import Silent
from nearer.store import S3Buckets, S3Options, open_store

url, disk, root, s3, count, segment = sys.argv[1:]
buckets = S3Buckets(default=S3Options(endpoint=s3 or None))
store = open_store(root or disk, cache_directory=Path(disk), buckets=buckets)
with store.work("llm-test") as area:
    ledger = Ledger(area, segment_replies=int(segment), segment_seconds=1e9)
    backend = Endpoint(
        model="scripted", access=Access(base_url=url, key="k"), concurrent=CONCURRENT, delay_seconds=0, timeout_seconds=1.0,
        attempts=5, backoff_seconds=0.001, warn=print,
    )
    asker = Asker(backend=backend, ledger=ledger, token_budget=None, prices=Prices(), progress=Silent())
    requests = [
        Request(messages=(("system", "s"), ("user", f"u {number}")), max_tokens=9, temperature=0.0)
        for number in range(int(count))
    ]
    replies = asker.ask(requests, what="test")
    ledger.close()
print(json.dumps([sum(not reply.problem for reply in replies), asker.usage.calls, asker.usage.known]))
""".replace("CONCURRENT", str(CONCURRENT))


class Machine:
    """Processes that ask for so many replies, on one disk; artifacts on it, or in S3."""

    def __init__(self, disk: Path, *, count: int, root: str = "", s3: str = "", segment: int = 10) -> None:
        self.disk = disk
        self.arguments = [str(disk), root, s3, str(count), str(segment)]

    def start(self, server: ScriptedLlm) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", SCRIPT, server.url, *self.arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def kill(self, server: ScriptedLlm, *, after: int) -> None:
        """Start, and kill -9 once so many more calls were answered."""
        wanted = sum(server.good.values()) + after
        process = self.start(server)
        try:
            server.wait_for(wanted)
        finally:
            process.kill()
            process.communicate()

    def finish(self, server: ScriptedLlm) -> list[int]:
        out, err = self.start(server).communicate(timeout=300)
        assert out, err
        return json.loads(out.splitlines()[-1])


def test_kill_9_repeats_at_most_the_calls_under_way(tmp_path: Path) -> None:
    """The next start asks for what is missing, and for no more than was in the air."""
    machine = Machine(tmp_path, count=120)
    with ScriptedLlm(Script(too_many=0.05, broken=0.05, delay_seconds=0.002)) as server:
        machine.kill(server, after=40)
        good, calls, known = machine.finish(server)
        assert good == calls + known == 120
        assert known >= 40 - CONCURRENT
        assert server.repeated() <= CONCURRENT
        assert server.most <= 2 * CONCURRENT  # those of the killed one may still be answered


def test_a_lost_disk_repeats_at_most_two_segments_and_the_calls_under_way(
    tmp_path: Path, s3_root: str, s3_endpoint: str
) -> None:
    """The machine dies and its disk with it; another one finds the segments in S3."""
    with ScriptedLlm(Script(delay_seconds=0.002)) as server:
        first = Machine(tmp_path / "first", count=80, root=s3_root, s3=s3_endpoint, segment=8)
        first.kill(server, after=50)
        # The dead machine's lease would run out by itself; its holder's name saves the test the wait.
        holder = next(path for path in first.disk.rglob("holder") if path.is_file())
        second = Machine(tmp_path / "second", count=80, root=s3_root, s3=s3_endpoint, segment=8)
        target = second.disk / holder.relative_to(first.disk)
        target.parent.mkdir(parents=True)
        shutil.copy(holder, target)
        shutil.rmtree(first.disk)
        good, calls, known = second.finish(server)
        assert good == calls + known == 80
        assert 0 < server.repeated() <= 2 * 8 + CONCURRENT


@pytest.mark.full
@pytest.mark.parametrize("seed", range(3))
def test_a_thousand_calls_through_every_fault_and_five_kills(tmp_path: Path, seed: int) -> None:
    """Every good reply once, six at a time, and no call repeated beyond those under way at each kill."""
    script = Script(
        seed=seed, too_many=0.05, broken=0.05, silent=0.004, slow=0.05, half=0.05, empty=0.05, delay_seconds=0.001
    )
    draw = random.Random(seed)
    machine = Machine(tmp_path, count=1000)
    with ScriptedLlm(script) as server:
        for _ in range(5):
            machine.kill(server, after=draw.randrange(20, 180))
        good, calls, known = machine.finish(server)
        repeated, attempts = server.repeated(), len(server.calls)
    assert good == calls + known == 1000
    assert repeated <= 5 * CONCURRENT
    print(f"seed {seed}: 1000 replies, {attempts} requests, {repeated} repeated over 5 kills, {known} from the ledger")


def test_the_ledger_finds_what_another_process_wrote(tmp_path: Path) -> None:
    """The key is the same in every process: no hash that is salted."""
    with ScriptedLlm() as server:
        Machine(tmp_path, count=3).finish(server)
    (area,) = (tmp_path / ".nearer/work").glob("llm-test*/")
    ledger = Ledger(WorkArea(path=area))
    request = Request(messages=(("system", "s"), ("user", "u 1")), max_tokens=9, temperature=0.0)
    assert ledger.get(request.key("scripted")) is not None
