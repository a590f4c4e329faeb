"""How an artifact comes to stand at an address, whole or not at all, over a handful of primitives.

The steps of a publisher:

1. Everything is uploaded to `<area>/staging/<attempt>/`, its manifest last.
2. One conditional create of `<area>/claims/<address>/<generation>.json` decides which attempt has the address. The
   highest generation counts. A generation is claimed only when the one before is settled and its staging is gone.
3. Strays at the address are removed, the winner's files copied to it, its manifest last.
4. The staging is removed, its manifest first. The claim stays for good.

An address is *pending* while its highest claim's staging manifest is there and the address does not have that
attempt's manifest. Whoever finds it pending, reader or publisher, carries out steps 3 and 4 (rolls forward); they are
idempotent, and every copy, that of the manifest included, fails once its source in the staging is gone. So a
process that was paused for a year inside step 3 and then goes on cannot write over a later generation. Where the space
has locks (`alone`) step 3 is exclusive as well. Where it has none, one window is left: a stray that was looked up for
generation n and is deleted while n + 1 writes a file of the same name. A delete that is conditional on the stray's tag
closes it, but for a file that n + 1 has with the stray's very bytes; readers find a missing file by their manifest.

What readers see: before step 2 the old artifact; from then on the new one, after rolling forward, or `Interrupted`
("being replaced") if another process is at it. A claim whose staging is gone while its manifest is not at the
address says nothing: somebody removed the artifact by hand, or copied another one there.
"""

from __future__ import annotations

import json
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from nearer.errors import InputError, Interrupted, OutOfReach
from nearer.process import STOP
from nearer.store.admit import admit
from nearer.store.manifest import MANIFEST, FileEntry, Manifest, file_sha256
from nearer.store.place import Claim, Place, State, look
from nearer.store.settle import drop, for_each, settle
from nearer.store.space import AREA, Space

_HASHED_ASIDE_BYTES: Final = 16 << 20


def new_attempt() -> str:
    """A name that no other attempt has and that tells its age."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(6)}"


def publish(
    space: Space, place: Place, directory: Path, manifest: Manifest, *, overwrite: bool, attempt: str = ""
) -> Manifest:
    """Make the directory's files the artifact at the address; see the module's text and `Store.publish`."""
    attempt = attempt or new_attempt()
    staging = place.staging(attempt)
    done = admit(space, place, manifest, overwrite=overwrite)[1]
    if done and not overwrite:
        return done
    claimed, failed = False, False
    with space.alone(f"{place.area}/locks/{attempt}"):
        try:
            stamped = manifest.stamped(files=_upload(space, directory, staging), attempt=attempt)
            space.put(f"{staging}/{MANIFEST}", stamped.to_json().encode())
            while not claimed:
                state, done = admit(space, place, manifest, overwrite=overwrite)
                if _is_ours(state, attempt):
                    return stamped  # the create succeeded, but its answer was lost and the retry found our own claim
                if done and not overwrite:
                    return done
                claimed = _claim(space, place, stamped, after=state.claim)
            state = settle(space, place)
        except (Interrupted, OutOfReach):
            failed = True
            raise
        finally:
            # An error of the create does not say that it had no effect. A decided attempt must keep its staging, and
            # so does one that the next one can take up.
            if not claimed and not (failed and space.resumes) and not _is_ours(look(space, place), attempt):
                drop(space, staging)
    if _is_ours(state, attempt) and (state.manifest is None or state.manifest.attempt != attempt):
        raise Interrupted(
            f"the staging of {place.address} was removed before it was copied",
            where=staging,
            rule=f"{AREA}/ is the store's own, nobody else removes files there",
            way_out="run the same command again",
        )
    return stamped


def _is_ours(state: State, attempt: str) -> bool:
    return state.claim is not None and state.claim.attempt == attempt


def _claim(space: Space, place: Place, stamped: Manifest, *, after: Claim | None) -> bool:
    if after:
        # Step 2's condition: whoever is still paused in the generation before finds nothing left to copy, and nothing
        # half copied that it could complete.
        drop(space, place.staging(after.attempt))
        space.abandon(place.address)
    claim = Claim(
        generation=after.generation + 1 if after else 1,
        attempt=stamped.attempt,
        fingerprint=stamped.fingerprint,
        address=place.name,
    )
    data = json.dumps(asdict(claim), ensure_ascii=False, indent=2) + "\n"
    return space.create(f"{place.claims}/{claim.generation:08d}.json", data.encode())


def _upload(space: Space, directory: Path, staging: str) -> tuple[FileEntry, ...]:
    """Upload the directory's files to the staging, hashed on the way.

    Raises:
        InputError: something in it is no plain file.
        Interrupted: SIGTERM.
    """
    names = _names(directory)
    remains = space.remains(staging.rpartition("/")[0])

    def one(name: str) -> FileEntry:
        STOP.check()
        path = directory / name
        size = path.stat().st_size
        # A small file is hashed beside the other files' uploads, a big one beside its own.
        sha256 = hashing.submit(file_sha256, path) if size > _HASHED_ASIDE_BYTES else None
        space.upload(path, f"{staging}/{name}", remains.get(name, ()))
        return FileEntry(path=name, size=size, sha256=sha256.result() if sha256 else file_sha256(path))

    hashing = ThreadPoolExecutor(1, thread_name_prefix="nearer-sha256")
    try:
        return tuple(for_each(space, one, names))
    finally:
        hashing.shutdown(cancel_futures=True)


def _names(directory: Path) -> list[str]:
    """The paths of the directory's files, sorted.

    Raises:
        InputError: a link to a directory, a name that is not UTF-8, something that is no file, or a file with the
            manifest's name.
    """
    found = []
    for folder, folders, names in os.walk(directory):
        for name in [*names, *(name for name in folders if Path(folder, name).is_symlink())]:
            path = Path(folder, name)
            relative = path.relative_to(directory).as_posix()
            if not path.is_file() or relative == MANIFEST or not _is_utf8(relative):
                raise InputError(
                    f"{relative!r} cannot be part of an artifact",
                    where=str(directory),
                    rule=f"plain files with UTF-8 names, none of them {MANIFEST}",
                )
            found.append(relative)
    return sorted(found)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
