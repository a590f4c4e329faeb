"""Finishing a publication that was decided: steps 3 and 4 of `nearer.store.publish`, by whoever comes by."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from nearer.errors import ArtifactCorrupt, Interrupted
from nearer.process import STOP
from nearer.store.manifest import MANIFEST
from nearer.store.place import Place, State, look
from nearer.store.space import AREA, Space

T = TypeVar("T")
PATIENCE_SECONDS = 30.0  # a guess: hard links take milliseconds, copies to another disk may take longer than this
_POLL_SECONDS = 0.05
_TRIES = 3


def settle(space: Space, place: Place) -> State:
    """Roll a pending address forward, then say what is there.

    Raises:
        Interrupted: another process is at it, and did not finish within `PATIENCE_SECONDS`.
        ArtifactCorrupt: the winner's staging was tampered with.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (state := look(space, place)).staged:
        STOP.check()
        with space.alone(f"{place.claims}/lock") as mine:
            if mine:
                _roll_forward(space, place)
                continue
        if time.monotonic() > deadline:
            raise being_replaced(place, "another process is copying the new artifact to it")
        time.sleep(_POLL_SECONDS)
    return state


def drop(space: Space, staging: str) -> None:
    """Remove a staging, its manifest first: from then on nobody may take it for complete."""
    space.delete(f"{staging}/{MANIFEST}")
    space.clear(staging)


def for_each(space: Space, work: Callable[[str], T], names: Iterable[str]) -> list[T]:
    """The work's results in the order of the names, as many at once as the space can use; the first error ends it."""
    if space.workers == 1:
        return [work(name) for name in names]
    with ThreadPoolExecutor(space.workers) as pool:
        futures = [pool.submit(work, name) for name in names]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def being_replaced(place: Place, why: str) -> Interrupted:
    """What a reader is told who can see neither the old artifact any more nor the new one yet."""
    return Interrupted(
        f"{place.address} is being replaced",
        where=place.address,
        rule=why,
        way_out="run the same command again in a moment",
    )


def _roll_forward(space: Space, place: Place) -> None:
    """Steps 3 and 4. Ends quietly when somebody else carried them out meanwhile."""
    state = look(space, place)
    if not state.claim or not state.staged:
        return
    staging = place.staging(state.claim.attempt)
    wanted = {entry.path: entry.size for entry in state.staged.files}
    there = space.list(place.address)
    for stray, stat in there.items():
        if stray not in wanted and stray != MANIFEST:
            if space.read(f"{staging}/{MANIFEST}") is None:
                return
            space.delete(f"{place.address}/{stray}", stat.tag)
    copies = space.list(staging)

    def copy(name: str) -> None:
        # An interrupted copy is gone on with: what has the tag of its source has its bytes.
        if name not in there or name not in copies or not there[name].tag or there[name].tag != copies[name].tag:
            space.copy(f"{staging}/{name}", f"{place.address}/{name}", wanted[name])

    def copy_all() -> None:
        for_each(space, copy, sorted(wanted))
        space.copy(f"{staging}/{MANIFEST}", f"{place.address}/{MANIFEST}")

    if not _persistently(space, place, staging, copy_all):
        return
    drop(space, staging)
    space.abandon(place.address)  # copies that a killed process had begun


def _persistently(space: Space, place: Place, staging: str, copy_all: Callable[[], None]) -> bool:
    """Copy; False: somebody else finished that, and the staging is gone."""
    for _ in range(_TRIES):
        try:
            copy_all()
        except FileNotFoundError as error:
            if space.read(f"{staging}/{MANIFEST}") is None:
                return False
            if str(error.filename).removeprefix(f"{staging}/") in space.list(staging):
                continue  # somebody who prepared to claim this generation as well ended what was being copied
            raise ArtifactCorrupt(
                f"{place.address} cannot be finished: {error.filename} is gone",
                where=staging,
                rule=f"{AREA}/ is the store's own, nobody else removes files there",
                way_out=f"remove {staging} and what is at {place.address}, then run the same command again",
            ) from error
        return True
    raise being_replaced(place, "others keep ending the copy of the new artifact")
