"""One process at a time works on a fingerprint, across machines; what is left of dead ones goes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from fault_proxy import proxied
from s3_machine import forked, machine, quick, space_at
from store_work import files_below, publish, write

from nearer.errors import Interrupted
from nearer.store.s3 import lease
from nearer.store.space import AREA, Stat

PIECE = {"weights.bin": b"w" * 1000, "state.json": b"{}"}


@pytest.fixture
def clean(s3_endpoint, monkeypatch):
    quick(monkeypatch)
    return space_at(s3_endpoint)


@pytest.fixture
def beats(monkeypatch):
    """Leases that beat often and are looked at often."""
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.2)
    monkeypatch.setattr(lease, "_POLL_SECONDS", 1.5)  # ages are told in whole seconds


def stale_after(monkeypatch, seconds):
    monkeypatch.setattr(lease, "STALE_SECONDS", seconds)


def share(area, name):
    write(area.path / name, PIECE)
    area.share(name)
    return area.segments.flush()


def test_while_one_machine_works_another_is_sent_away(s3_root, clean, tmp_path, beats):
    """The lease beats, so the other one is not dead: it says which process has the work."""
    with machine(s3_root, clean, tmp_path / "a").work("w1") as area:
        started = time.monotonic()
        with (
            pytest.raises(Interrupted, match=f"process {os.getpid()} on"),
            machine(s3_root, clean, tmp_path / "b").work("w1"),
        ):
            pass
        assert time.monotonic() - started < lease.STALE_SECONDS / 2
        assert share(area, "step-1") == ()


def test_the_lease_of_a_dead_machine_is_taken_over(s3_root, s3_endpoint, clean, tmp_path, monkeypatch, beats):
    """What it had shared is found; nothing has to be removed by hand."""

    def work():
        with machine(s3_root, space_at(s3_endpoint), tmp_path / "a").work("w1") as area:
            share(area, "step-1")
            os.kill(os.getpid(), signal.SIGKILL)

    _, status = os.waitpid(forked(work), 0)
    assert os.WIFSIGNALED(status)
    stale_after(monkeypatch, 1.0)
    with machine(s3_root, clean, tmp_path / "b").work("w1") as area:
        assert area.shared() == {"step-1"}
        assert files_below(area.bring("step-1")) == PIECE


def test_the_same_machine_need_not_wait(s3_root, s3_endpoint, clean, tmp_path):
    """Whoever has the directory of a killed process has its lease at once."""

    def work():
        with machine(s3_root, space_at(s3_endpoint), tmp_path / "a").work("w1"):
            os.kill(os.getpid(), signal.SIGKILL)

    os.waitpid(forked(work), 0)
    started = time.monotonic()
    with machine(s3_root, clean, tmp_path / "a").work("w1"):
        assert time.monotonic() - started < 5.0


def test_a_frozen_process_changes_nothing_when_it_comes_back(s3_root, s3_endpoint, clean, tmp_path, monkeypatch, beats):
    """Stopped for longer than a lease lives: its next share is refused, and what the other has shared stays."""
    stale_after(monkeypatch, 2.0)
    answer = Path(tmp_path, "answer")

    def work():
        # No heartbeat comes in between: what the process does first when it is revived is to share.
        monkeypatch.setattr(lease, "BEAT_SECONDS", 60.0)
        with machine(s3_root, space_at(s3_endpoint), tmp_path / "a").work("w1") as area:
            write(area.path / "step-1", {"weights.bin": b"old"})
            area.share("step-1")
            area.segments.flush()
            os.kill(os.getpid(), signal.SIGSTOP)
            write(area.path / "step-2", {"weights.bin": b"older"})
            area.share("step-2", instead_of=["step-1"])

    process = forked(work, answer=answer)
    os.waitpid(process, os.WUNTRACED)
    with machine(s3_root, clean, tmp_path / "b").work("w1") as area:
        assert share(area, "step-9") == ()
        os.kill(process, signal.SIGCONT)
        _, status = os.waitpid(process, 0)
        assert os.WEXITSTATUS(status) == 100 + Interrupted.code, answer
        assert "another process has taken this work over" in answer.read_text()
    with machine(s3_root, clean, tmp_path / "c").work("w1") as area:
        assert area.shared() == {"step-1", "step-9"}
        assert files_below(area.bring("step-9")) == PIECE


def test_a_beat_whose_answer_is_lost_does_not_lose_the_lease(s3_root, s3_endpoint, clean, tmp_path, monkeypatch):
    """The write had its effect: the next beat recognises it as its own."""
    with proxied(s3_endpoint) as (proxy, through):
        held = lease.Lease(space_at(through, attempts=2), f"{s3_root}/lease.json", holder="me")
        with held.held():
            for fault in ("reset-after", "late-503", "500"):
                proxy.reset(lambda _number, method, fault=fault: fault if method == "PUT" else None)
                held._renewed = 0.0
                with pytest.raises(Exception, match="store"):
                    held.check()
                proxy.reset(lambda _number, _method: None)
                held.check()
                assert not held._lost.is_set()
                proxy.reset(lambda number, _method, fault=fault: fault if number == 1 else None)
                held._renewed = 0.0
                held.check()
                assert not held._lost.is_set()


def test_a_beat_that_is_refused_does_not_end_the_heart(s3_root, s3_endpoint, clean, tmp_path, beats):
    """Credentials that expire and are renewed (a role's) leave the lease alive."""
    with proxied(s3_endpoint) as (proxy, through):
        held = lease.Lease(space_at(through, attempts=1), f"{s3_root}/lease.json", holder="me")
        with held.held():
            proxy.reset(lambda _number, _method: "expired")
            wait_for(lambda: proxy.count > 3)
            proxy.reset(lambda _number, _method: None)
            wait_for(lambda: proxy.count > 3)
            renewed = held._renewed
            wait_for(lambda: held._renewed > renewed)


def wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def aged(space, monkeypatch, seconds):
    """Everything that is listed looks older."""
    listed, uploads = space.list, space.unfinished

    def older(found):
        return {name: Stat(stat.size, stat.modified - seconds, stat.tag) for name, stat in found.items()}

    monkeypatch.setattr(space, "list", lambda prefix: older(listed(prefix)))
    monkeypatch.setattr(space, "unfinished", lambda prefix: older(uploads(prefix)))


def leave_behind(root, space, tmp_path):
    """A staging with a file and a begun upload, begun uploads of a copy and of a piece, and finished work."""
    publish(machine(root, space, tmp_path / "a"), "models/m", {"model.bin": b"m"}, "f1")
    space.put(f"{root}/{AREA}/staging/20260101T000000Z-aa/model.bin", b"m")
    for key in ("staging/20260101T000000Z-aa/big.bin", "staging/20260101T000000Z-bb/big.bin", "work/w2/bytes/ab"):
        begin(space, f"{root}/{AREA}/{key}")
    begin(space, f"{root}/models/m/big.bin")
    with machine(root, space, tmp_path / "a").work("f1") as area:
        assert share(area, "step-1") == ()


def begin(space, key):
    bucket, _, name = key.removeprefix("s3://").partition("/")
    upload = space.wire.call("CreateMultipartUpload", bucket, name)["UploadId"]
    space.wire.send("UploadPart", bucket, name, b"part", UploadId=upload, PartNumber=1)


def test_gc_removes_what_dead_processes_left(s3_root, clean, tmp_path, monkeypatch):
    """Old staging, begun uploads and finished work go; the artifact and its claim stay."""
    leave_behind(s3_root, clean, tmp_path)
    store = machine(s3_root, clean, tmp_path / "b")
    aged(clean, monkeypatch, 15 * 24 * 3600)
    found = store.gc(remove=False)
    reasons = {left.key.removeprefix(f"{s3_root}/"): left.reason for left in found}
    assert reasons == {
        ".nearer/staging/20260101T000000Z-aa": "staging of a process that ended",
        ".nearer/staging/20260101T000000Z-bb": "staging of a process that ended",
        ".nearer/work/f1": "work whose artifact stands",
        ".nearer/work/w2": "work untouched for two weeks",
        "models/m": "copies that were begun by a process that ended",
    }
    assert store.gc(remove=True) == found
    assert {name.split("/")[0] for name in clean.list(f"{s3_root}/{AREA}")} == {"claims"}
    assert not clean.unfinished(s3_root)
    assert store.gc(remove=False) == ()
    assert store.verify("models/m") == ()


def test_gc_leaves_what_may_be_alive(s3_root, clean, tmp_path):
    """An upload of this hour may belong to a living process, and so does work whose lease beats."""
    leave_behind(s3_root, clean, tmp_path)
    with machine(s3_root, clean, tmp_path / "a").work("f1"):
        assert machine(s3_root, clean, tmp_path / "b").gc(remove=True) == ()
    assert len(clean.unfinished(s3_root)) == 4
    [left] = machine(s3_root, clean, tmp_path / "b").gc(remove=True)
    assert left.key.endswith("/work/f1")
