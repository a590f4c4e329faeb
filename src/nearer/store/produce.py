"""The frame that every job runs in: skip what is done, refuse what must not be overwritten, build, publish."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nearer.errors import ArtifactCorrupt, InputError, Interrupted
from nearer.progress import Progress
from nearer.store.manifest import InputEntry, Manifest, Outcome
from nearer.store.protocol import Store, WorkArea


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a job says about what it built: measures, how it ended, and where it ran (recorded, not hashed)."""

    metrics: Mapping[str, Any] = field(default_factory=dict)
    outcome: Outcome = field(default_factory=Outcome)
    environment: Mapping[str, str] = field(default_factory=dict)


def produce(
    store: Store,
    progress: Progress,
    *,
    kind: str,
    name: str,
    address: str,
    fingerprint: str,
    inputs: Mapping[str, InputEntry],
    settings: Mapping[str, Any],
    build: Callable[[Path, WorkArea], Built],
) -> Manifest:
    """Make the artifact at the address, unless the same one is there already.

    Args:
        store: where it goes.
        progress: told what happens.
        kind: of the artifact.
        name: the job's name for it.
        address: where it will stand.
        fingerprint: of everything that changes the result.
        inputs: address and fingerprint of each input.
        settings: the section that makes it, as plain values; recorded.
        build: writes the artifact's files into the directory; the work area survives a kill.

    Returns:
        The manifest that stands there, with its full address; its outcome's code is the exit code.

    Raises:
        ArtifactExists: another artifact is there, and the store does not overwrite. Nothing was built.
        InputError: the address holds files that are not nearer's, or must not be written to. Nothing was built.
        Interrupted: another process does the same work, or an input was replaced while the work ran.
    """
    full = store.resolve(address)
    ours = Manifest(kind=kind, name=name, fingerprint=fingerprint, inputs=inputs, settings=settings)
    if done := _done(store, progress, address, ours):
        with suppress(Interrupted, OSError), store.work(fingerprint) as work:
            work.remove()  # a kill may have come between publishing and this
        return replace(done, address=full)
    with store.work(fingerprint) as work:
        if done := _done(store, progress, address, ours):  # by the process that had the work area before us
            work.remove()
            return replace(done, address=full)
        before = _attempts(store, inputs)
        with store.scratch() as directory:
            built = build(directory, work)
            if replaced := [name for name, attempt in _attempts(store, inputs).items() if before[name] != attempt]:
                raise Interrupted(
                    f"the input {', '.join(replaced)} was replaced while the work ran",
                    where=", ".join(inputs[name].address for name in replaced),
                    rule="an artifact is made from inputs of one generation",
                    way_out="run the same command again",
                )
            ours = replace(ours, metrics=built.metrics, outcome=built.outcome, environment=built.environment)
            published = store.publish(address, directory, ours)
        work.remove()
    progress.say(f"{kind} written", address=address, fingerprint=fingerprint[:12])
    return replace(published, address=full)


def _done(store: Store, progress: Progress, address: str, ours: Manifest) -> Manifest | None:
    there = store.admit(address, ours)
    if there is None:
        return None
    if store.overwrite and (problems := store.verify(address)):
        progress.warn(f"{address} is this artifact, but not whole: made again", problems=list(problems[:3]))
        return None
    progress.say(f"already done: {ours.name}", address=address, fingerprint=there.fingerprint[:12])
    return there


def _attempts(store: Store, inputs: Mapping[str, InputEntry]) -> dict[str, str]:
    """The publishing attempt of each input that is an artifact of this store; "" for raw files and hub models."""
    return {name: _attempt(store, entry) for name, entry in inputs.items()}


def _attempt(store: Store, entry: InputEntry) -> str:
    try:
        there = store.manifest(entry.address)
    except (ArtifactCorrupt, InputError, OSError):
        return ""
    return there.attempt if there else ""
