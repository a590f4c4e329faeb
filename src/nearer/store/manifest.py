"""The manifest that makes a directory an artifact, and the fingerprint that names what made it."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import nearer
from nearer.errors import ArtifactCorrupt

MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file of an artifact."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class InputEntry:
    """What an artifact was made from."""

    address: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How the work ended: the exit code that the command gives, also when it finds the work done already."""

    code: int = 0
    reason: str = "done"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an artifact is, what made it, and the sha256 of each of its files. Written last.

    `address` is where the job that returned this manifest put or found the artifact. It is not written and does not
    count in a comparison: an artifact does not change by being moved.
    """

    kind: str
    name: str
    fingerprint: str
    inputs: Mapping[str, InputEntry] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[FileEntry, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    outcome: Outcome = field(default_factory=Outcome)
    environment: Mapping[str, str] = field(default_factory=dict)
    created_at: str = ""
    nearer_version: str = ""
    attempt: str = ""
    address: str = field(default="", compare=False)

    def stamped(self, *, files: tuple[FileEntry, ...], attempt: str) -> Manifest:
        """The manifest as it is written: with its files, the attempt, the time and the environment."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return replace(
            self,
            files=files,
            attempt=attempt,
            created_at=now,
            nearer_version=nearer.__version__,
            environment={**environment(), **self.environment},
        )

    def to_json(self) -> str:
        """Indented JSON, keys in the order of the fields."""
        fields = asdict(self)
        del fields["address"]
        return json.dumps(fields, ensure_ascii=False, indent=2, default=_plain) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str) -> Manifest:
        """Read a manifest.

        Raises:
            ArtifactCorrupt: not JSON, not a manifest, or one that names files outside its directory.
        """
        try:
            raw = json.loads(text)
            manifest = cls(
                **{
                    **raw,
                    "files": tuple(FileEntry(**entry) for entry in raw["files"]),
                    "inputs": {name: InputEntry(**entry) for name, entry in raw["inputs"].items()},
                    "outcome": Outcome(**raw["outcome"]),
                    "address": "",
                }
            )
            manifest._check()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactCorrupt(
                f"not a manifest that this version reads: {error}",
                where=where,
                rule="a manifest.json written by nearer",
                way_out="make the artifact again (--overwrite), or use the version of nearer that wrote it",
            ) from error
        return manifest

    def _check(self) -> None:
        for name in ("kind", "name", "fingerprint", "attempt", "created_at"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name} is not a text")
        for entry in self.files:
            if not isinstance(entry.size, int) or not isinstance(entry.sha256, str):
                raise TypeError(f"size or sha256 of {entry.path!r} is of a wrong type")
            if entry.path == MANIFEST or not is_inside(entry.path):
                raise ValueError(f"the file {entry.path!r} is not one of the directory's own")


def is_inside(path: str) -> bool:
    """Whether a relative path with `/` names something below its directory, in its plainest form."""
    return "\0" not in path and not path.startswith("/") and not {"", ".", ".."} & set(path.split("/"))


def fingerprint(
    *, job: str, format_version: int, fields: Mapping[str, Any], inputs: Mapping[str, InputEntry], seed: int
) -> str:
    """64 hex digits that change when, and only when, something that changes the result changes.

    Args:
        job: the job's name.
        format_version: the job's FORMAT integer, bumped by hand when its code changes its results.
        fields: the section's result-changing fields.
        inputs: fingerprints of what goes in; addresses do not count.
        seed: the document's seed.
    """
    what = {
        "job": job,
        "format": format_version,
        "fields": fields,
        "inputs": {name: entry.fingerprint for name, entry in inputs.items()},
        "seed": seed,
    }
    canonical = json.dumps(what, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, hex."""
    with path.open("rb", buffering=0) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def raw_fingerprint(path: Path) -> str:
    """Of a user's own file or folder, by content: names inside and sha256 of each file, hidden files left out.

    A folder without files has the fingerprint of an empty list. `manifest.json` does not count.
    """
    if path.is_file():
        return file_sha256(path)
    names = sorted(
        str(file.relative_to(path))
        for file in path.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    listing = [(name, file_sha256(path / name)) for name in names if name != MANIFEST]
    return hashlib.sha256(json.dumps(listing, ensure_ascii=False).encode()).hexdigest()


@functools.cache
def environment() -> Mapping[str, str]:
    """Versions and place, recorded and never hashed."""
    versions = {}
    for package in ("torch", "transformers", "sentence-transformers", "numpy", "onnxruntime", "kiwipiepy"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {"python": sys.version.split()[0], **versions, **_git_revision()}


def _git_revision() -> dict[str, str]:
    if revision := os.environ.get("NEARER_GIT_REVISION"):
        return {"git_revision": revision}
    try:
        package = Path(nearer.__file__).resolve().parent
        found = subprocess.run(
            ["git", "rev-parse", "--show-toplevel", "HEAD"],  # noqa: S607
            cwd=package,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    top, revision = found.stdout.splitlines()
    # Installed into a virtual environment inside somebody's checkout, the revision would be that checkout's.
    return {"git_revision": revision} if Path(top, "src", "nearer") == package else {}


def _plain(value: Any) -> Any:
    """Numpy's scalars, without importing numpy; anything else by its text."""
    return value.item() if hasattr(value, "item") else str(value)
