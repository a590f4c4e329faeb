"""Many pods: each makes its share of the calls and publishes the replies; one of them makes the dataset of all."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nearer import process
from nearer.errors import ArtifactCorrupt, ArtifactMissing, InputError, Interrupted
from nearer.progress import Progress
from nearer.store import Built, InputEntry, Manifest, Store, WorkArea, produce

REPLIES: Final = "llm_replies.jsonl"
"""In a dataset, and in a shard: every reply that it is made of, by the key of its call. No later run asks for them."""

_WAIT_SECONDS: Final = 2.0


@dataclass(frozen=True, kw_only=True)
class Shard:
    """This pod's share: number `index` of `count`."""

    index: int = 0
    count: int = 1

    def address(self, dataset: str, index: int) -> str:
        """Where the replies of a share are published, beside the dataset."""
        return f"{dataset.rstrip('/')}.shards/{index}-of-{self.count}"


def find_shard(*, shard: int | None, shards: int | None, environment: Mapping[str, str] | None = None) -> Shard:
    """The share of this pod: as the settings say, else as an Indexed Job does.

    Args:
        shard: number from 0; None: JOB_COMPLETION_INDEX, else NODE_RANK, else 0.
        shards: how many; None: NNODES in an Indexed Job, else 1.
        environment: for tests; default `os.environ`.

    Raises:
        InputError: a number that is none of theirs.
    """
    found = os.environ if environment is None else environment
    given = found.get("JOB_COMPLETION_INDEX") or found.get("NODE_RANK") or ""
    count = shards if shards is not None else int(found.get("NNODES", "1") or 1) if given.isdigit() else 1
    index = shard if shard is not None else int(given) if given.isdigit() else 0
    if index >= count:
        raise InputError(
            f"this is shard {index} of {count}",
            where="generate.llm.shard",
            rule=f"a number from 0 to {count - 1}",
            way_out="set generate.llm.shards and generate.llm.shard, or leave both to an Indexed Job",
        )
    return Shard(index=index, count=count)


def ledger_area(dataset: str, shard: Shard) -> str:
    """The name of the work area of the ledger: the dataset's for good, whatever its settings and documents become."""
    name = f"llm-{hashlib.sha256(dataset.encode()).hexdigest()[:32]}"
    return name if shard.count == 1 else f"{name}-{shard.index}-of-{shard.count}"


def earlier_replies(store: Store, dataset: str, shard: Shard) -> list[Path]:
    """Files of replies that earlier runs published at this address."""
    addresses = [dataset, *([shard.address(dataset, shard.index)] if shard.count > 1 else [])]
    found = []
    for address in addresses:
        try:
            path = store.open(address).path / REPLIES
        except (ArtifactMissing, ArtifactCorrupt, Interrupted):
            continue
        if path.is_file():
            found.append(path)
    return found


def run_shard(
    store: Store,
    progress: Progress,
    *,
    shard: Shard,
    address: str,
    fingerprint: str,
    inputs: Mapping[str, InputEntry],
    settings: Mapping[str, Any],
    ask: Callable[[Path, WorkArea], Built],
    make: Callable[[Sequence[Path]], Manifest],
    wait_seconds: float = _WAIT_SECONDS,
) -> Manifest:
    """Publish this share; make the dataset if no share is missing any more.

    Whoever publishes last finds all of them. When two do, one makes the dataset, and the others wait until it stands,
    ready to take over: the one that makes it may be evicted.

    Returns:
        The dataset's manifest, or the share's where others are still at theirs.
    """
    ours = Manifest(kind="dataset", name="generate", fingerprint=fingerprint, inputs=inputs, settings=settings)
    if store.admit(address, ours):
        return make(())
    share = produce(
        store,
        progress,
        kind="llm-replies",
        name=f"generate {shard.index} of {shard.count}",
        address=shard.address(address, shard.index),
        fingerprint=_of_shard(fingerprint, shard.index, shard.count),
        inputs=inputs,
        settings=settings,
        build=ask,
    )
    addresses = [shard.address(address, index) for index in range(shard.count)]
    missing = [
        index
        for index, each in enumerate(addresses)
        if (there := store.manifest(each)) is None or there.fingerprint != _of_shard(fingerprint, index, shard.count)
    ]
    if missing:
        progress.say("this share is done; the last pod makes the dataset", shares_left=len(missing))
        return share
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(store.work(f"merge-{fingerprint[:48]}"))
                break
            except Interrupted:
                process.STOP.check()
                if store.admit(address, ours):
                    break
                time.sleep(wait_seconds)
        return make([store.open(each, kind="llm-replies").path / REPLIES for each in addresses])


def _of_shard(fingerprint: str, index: int, count: int) -> str:
    return hashlib.sha256(f"{fingerprint} {index} of {count}".encode()).hexdigest()
