"""Seeded schedules of faults between nearer and a real S3 server: whole or absent, right or an error."""

from __future__ import annotations

import os
import random
import shutil
import time
import traceback
from collections import Counter

import pytest
from fault_proxy import FAULTS, TELLS_WRONG_BYTES, proxied
from s3_machine import machine, quick, space_at
from store_work import content, files_below, publish, write

from nearer.errors import ArtifactMissing, InputError, NearerError, OutOfReach

BIG = random.Random(5).randbytes(11 << 20)
FULL = pytest.mark.full, pytest.mark.timeout(3600)
SAMPLE = range(6)
ALL = [range(first, 520, 4) for first in range(4)]


class Schedule:
    """What one seed stands for: a mix of faults, and what is done meanwhile."""

    def __init__(self, seed):
        draw = random.Random(seed)
        self.seed, self.draw = seed, draw
        # Two that surely come, so that a few seeds in a row have all of them.
        self.surely = [FAULTS[(2 * seed + place) % len(FAULTS)] for place in (0, 1)]
        self.kinds = [*self.surely, *draw.sample(FAULTS, draw.randint(0, 2))]
        self.every, self.offset = draw.choice([3, 4, 6, 9, 15]), draw.randrange(3)
        self.regular = draw.random() < 0.5
        self.end = draw.choice([None, None, None, "expired", "reset-before"])
        self.end_after = draw.randint(16, 90)
        self.at_once = draw.choice([1, 4])
        self.checks_md5 = draw.random() < 0.5
        self.big = seed % 6 == 0
        self.small_files = draw.choice(["auto", "boto3"])
        self.seen = 0

    def plan(self, number, _method):
        self.seen = number
        if number in (self.every, self.every + 5):
            return self.surely[number > self.every]
        if self.end and number >= self.end_after:
            return self.end
        hit = (number + self.offset) % self.every == 0 if self.regular else self.draw.random() < 1 / self.every
        return self.draw.choice(self.kinds) if hit else None

    @property
    def ended(self):
        return self.end is not None and self.seen >= self.end_after

    def files(self, name):
        files = {f"part-{n}.bin": f"{name}{n}".encode() * self.draw.randint(1, 300) for n in range(3)}
        files |= {f"only-{name}.txt": name.encode(), "sub/config.json": b"", "same.txt": b"same"}
        return files | ({"big.bin": BIG[: -1 - len(name)] + name.encode()} if self.big else {})


class Run:
    """One schedule against the server, and what a clean reader sees in the end."""

    def __init__(self, schedule, root, clean, faulty, directory):
        self.schedule, self.root, self.clean, self.faulty, self.directory = schedule, root, clean, faulty, directory
        self.outcomes = Counter()
        self.possible = [None]
        self.machines = 0

    def machine(self, space, *, overwrite=False):
        self.machines += 1
        return machine(self.root, space, self.directory / f"machine-{self.machines}", overwrite=overwrite)

    def under_faults(self, name, work):
        """Do something; gives its result or the error, which must be one in words and of a sensible kind."""
        store = self.machine(self.faulty, overwrite=True)
        was_ended = self.schedule.ended
        try:
            result = work(store)
        except NearerError as error:
            self.outcomes[f"{name}: {type(error).__name__}"] += 1
            self.check_error(error, was_ended=was_ended)
            return error
        self.outcomes[f"{name}: done"] += 1
        return result

    def check_error(self, error, *, was_ended):
        if was_ended:
            wanted = OutOfReach if self.schedule.end == "reset-before" else InputError
            assert type(error) is wanted, error
            assert ("have expired" in error.what) == (wanted is InputError)
        elif not self.schedule.ended and not TELLS_WRONG_BYTES & set(self.schedule.kinds):
            assert isinstance(error, OutOfReach | ArtifactMissing), error

    def publish(self, name):
        files = self.schedule.files(name)
        result = self.under_faults("publish", lambda store: publish(store, "models/m", files, f"f-{name}"))
        self.possible = [*self.possible, files] if isinstance(result, NearerError) else [files]

    def fetch(self):
        result = self.under_faults("fetch", content)
        if isinstance(result, ArtifactMissing):
            assert None in self.possible or TELLS_WRONG_BYTES & set(self.schedule.kinds)
        elif not isinstance(result, NearerError):
            assert result in self.possible

    def verify(self):
        self.under_faults("verify", lambda store: store.verify("models/m"))

    def pointer(self):
        text = f"generation {self.schedule.draw.random()}"
        result = self.under_faults("pointer", lambda store: store.write_text("alias", text))
        found = self.machine(self.clean).read_text("alias")
        assert found == text or (isinstance(result, NearerError) and found is None)

    def work(self):
        """Two checkpoints, the second instead of the first; another machine finds complete ones only."""
        pieces = {name: self.schedule.files(name) for name in ("step-1", "step-2")}
        fingerprint = f"w{self.machines}"
        sent = {}

        def push(store):
            with store.work(fingerprint) as area:
                write(
                    area.path,
                    {f"{name}/{path}": data for name, files in pieces.items() for path, data in files.items()},
                )
                area.share("step-1")
                if self.schedule.draw.random() < 0.5:
                    sent["step-1"] = area.segments.flush() == ()
                area.share("step-2", instead_of=["step-1"])
                sent["step-2"] = area.segments.flush() == ()

        self.under_faults("push", push)
        clean = self.machine(self.clean)
        clean.space.delete(f"{self.root}/.nearer/work/{fingerprint}/lease.json")
        with clean.work(fingerprint) as area:
            found = area.shared()
            assert found <= set(pieces)
            if sent.get("step-2"):
                # The first one's marker may come late, after it was taken away.
                assert found == {"step-2"} or ("late" in self.schedule.kinds and found == set(pieces))
            elif sent.get("step-1"):
                assert found
            for name in found:
                assert files_below(area.bring(name)) == pieces[name]
            self.outcomes[f"pieces found: {len(found)}"] += 1

    def go(self):
        self.publish("a")
        steps = [self.fetch, lambda: self.publish("b"), self.fetch, self.verify, self.pointer, self.work]
        for step in self.schedule.draw.sample(steps, 4):
            step()
        self.final()

    def final(self):
        reader = self.machine(self.clean)
        try:
            found = content(reader)
            assert reader.verify("models/m") == ()
        except ArtifactMissing:
            found = None
        assert found in self.possible
        self.outcomes["in the end: " + ("an artifact" if found else "nothing")] += 1
        last = {"last.txt": b"last"}
        publish(self.machine(self.clean, overwrite=True), "models/m", last, "f-last")
        assert content(self.machine(self.clean)) == last


@pytest.mark.parametrize("seeds", [SAMPLE, *(pytest.param(some, marks=FULL) for some in ALL)])
def test_schedules_of_faults(s3_endpoint, s3_root, tmp_path, monkeypatch, seeds):
    """Under every seeded schedule what is published is whole or absent, and what is fetched is right or an error."""
    quick(monkeypatch)
    if only := os.environ.get("S3_FAULT_SEED"):
        seeds = [int(only)]
    outcomes, requests, began, failed = Counter(), 0, time.monotonic(), {}
    clean = space_at(s3_endpoint)
    with proxied(s3_endpoint) as (proxy, through):
        for seed in seeds:
            schedule = Schedule(seed)
            proxy.reset(schedule.plan, seed=seed, checks_md5=schedule.checks_md5)
            options = {"requests_at_once": schedule.at_once, "small_files": schedule.small_files}
            faulty = space_at(through, read_timeout_seconds=0.4, **options)
            run = Run(schedule, f"{s3_root}/{seed}", clean, faulty, tmp_path / str(seed))
            try:
                run.go()
            except Exception:  # noqa: BLE001 - the other seeds are worth knowing, too
                failed[seed] = traceback.format_exc()
                print(f"seed {seed} failed (S3_FAULT_SEED={seed} runs it alone):\n{failed[seed]}")
            outcomes += run.outcomes
            if os.environ.get("S3_FAULT_TRACE"):
                print("seed", seed, dict(run.outcomes), flush=True)
            requests += proxy.count
            shutil.rmtree(run.directory)
    print(f"{len(seeds)} schedules, {requests} requests through the proxy, {time.monotonic() - began:.0f} s")
    print(f"faults: {dict(sorted(proxy.done.items()))}")
    print(f"outcomes: {dict(sorted(outcomes.items()))}")
    assert not failed, f"seeds that failed: {sorted(failed)}"
    if len(seeds) > 1:
        assert set(FAULTS) | {"expired"} <= set(proxy.done)
