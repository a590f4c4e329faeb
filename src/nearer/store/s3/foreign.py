"""A user's own objects as local files. Nobody wrote their sha256 down: it is learnt once, and kept by their listing."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from nearer.errors import ArtifactMissing, InputError, OutOfReach
from nearer.store.cache import FileCache, name_of
from nearer.store.manifest import FileEntry
from nearer.store.s3 import tags
from nearer.store.s3.space import S3Space
from nearer.store.s3.verified import TRIES, bring
from nearer.store.settle import for_each
from nearer.store.space import AREA, Changed, Stat


class ForeignObjects:
    """Objects that nearer did not write.

    Args:
        space: the primitives.
        files: where they are kept on this machine.
    """

    def __init__(self, space: S3Space, files: FileCache) -> None:
        self.space = space
        self.files = files

    def path(self, full: str, address: str) -> Path:
        """An object as a file, a prefix as a folder.

        Args:
            full: the full address.
            address: as the user wrote it.

        Raises:
            ArtifactMissing: nothing is there.
            InputError: it changes while it is read.
            OutOfReach: other bytes come each time.
        """
        for _ in range(TRIES):
            with suppress(Changed):
                return self._path(full, address)
        raise InputError(
            f"{address} changes while it is read",
            where=full,
            rule="input that stays as it is while the work runs",
            way_out="wait until it is written, then run the same command again",
        )

    def _path(self, full: str, address: str) -> Path:
        listing = {name: stat for name, stat in self.space.list(full).items() if AREA not in name.split("/")}
        if not listing:
            raise ArtifactMissing(
                f"{address} does not exist",
                where=full,
                rule="an object, or a prefix that holds objects",
                way_out="correct the address; s3://… is literal, a plain name is under `artifacts`",
            )
        name = name_of(json.dumps([full, _plain(listing)]))
        entries = self._entries(full, listing, self.files.directory / "raw" / f"{name}.json")

        def fetch(entry: FileEntry, target: Path) -> None:
            rest = "" if "" in listing else entry.path
            if bring(self.space, _key(full, rest), entry, listing[rest], target):
                raise Changed(full)

        top = self.files.artifact(name, entries, "", fetch)
        return top / entries[0].path if "" in listing else top

    def _entries(self, full: str, listing: Mapping[str, Stat], known: Path) -> list[FileEntry]:
        """Names and sha256: what has neither is fetched once to learn them."""
        if known.exists():
            return [FileEntry(**entry) for entry in json.loads(known.read_text(encoding="utf-8"))]

        def one(name: str) -> FileEntry:
            stat = listing[name]
            temporary = self.files.temporary()
            try:
                sha256 = self._believed(_key(full, name), temporary, stat)
                entry = FileEntry(path=name or full.rpartition("/")[2], size=stat.size, sha256=sha256)
                self.files.add(temporary, entry)
            finally:
                temporary.unlink(missing_ok=True)
            return entry

        self.files.make_room(sum(stat.size for stat in listing.values()))
        entries = for_each(self.space, one, sorted(listing))
        known.parent.mkdir(parents=True, exist_ok=True)
        temporary = known.with_name(f"{known.name}.{secrets.token_hex(4)}")
        temporary.write_text(json.dumps([asdict(entry) for entry in entries], ensure_ascii=False), encoding="utf-8")
        temporary.replace(known)
        return entries

    def _believed(self, key: str, target: Path, stat: Stat) -> str:
        """Bring an object and give its sha256: its ETag tells that the bytes are right, or a second time."""
        seen: set[str] = set()
        bucket = key.removeprefix("s3://").partition("/")[0]
        for _ in range(TRIES + 1):
            target.unlink(missing_ok=True)
            sha256 = self.space.download(key, target, stat)
            if sha256 in seen or tags.agrees(target, stat.tag, part=self.space.transfer.part_bytes(bucket, stat.size)):
                return sha256
            seen.add(sha256)
        raise OutOfReach(
            "other bytes come each time",
            where=key,
            rule="the same bytes twice, or those of the ETag",
            way_out="look for a broken proxy or network card; then run the same command again",
        )


def _key(full: str, name: str) -> str:
    return f"{full}/{name}" if name else full


def _plain(listing: Mapping[str, Stat]) -> list[list[object]]:
    return [[name, stat.size, stat.tag or stat.modified] for name, stat in sorted(listing.items())]
