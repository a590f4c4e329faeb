"""Where a model comes from: an artifact of ours, a plain directory, or a hub id, tried in this order.

Imports nothing heavy, so that `--dry-run` can say what a model name means.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from nearer.address import is_literal, is_s3
from nearer.errors import InputError, OutOfReach
from nearer.store.manifest import Manifest, raw_fingerprint

if TYPE_CHECKING:
    from nearer.store import Store

MODEL_KINDS = ("embedder", "reranker")
_MODEL_FILES = ("modules.json", "config.json")
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?$")
_NEEDED = ["*.json", "*.txt", "*.model", "*.py", "*.jinja", "README.md", "LICENSE*"]
_WEIGHTS = ("*.safetensors", "*.bin")
_UNWANTED = ["onnx/*", "openvino/*", "original/*", "checkpoint-*/*", "runs/*", ".*"]
_WAY_OUT = "name an artifact, a directory that holds config.json or modules.json, or a hub id such as `org/name`"


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A model that was found, and the local directory that holds it.

    `fingerprint` is the manifest's, the content's sha256 (directory), or the commit (hub). `revision` is the same thing
    as people name it: a commit for a hub model, else the fingerprint.
    """

    name: str
    path: Path
    fingerprint: str
    origin: Literal["artifact", "directory", "hub"]
    revision: str
    manifest: Manifest | None = None

    def config(self) -> dict[str, Any]:
        """The checkpoint's config.json; empty if there is none.

        Raises:
            InputError: it is not JSON.
        """
        path = self.path / "config.json"
        if not path.is_file():
            return {}
        try:
            loaded = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"cannot read the model's config: {error}", where=str(path), rule="JSON") from error
        return loaded if isinstance(loaded, dict) else {}


def find_model(name: str, *, store: Store) -> ModelSource:
    """Find a model and bring it onto this machine.

    Raises:
        InputError: it is in none of the places, is no model, or the hub refuses it; names the places that were tried.
        ArtifactCorrupt: an artifact whose bytes are not those of its manifest.
        OutOfReach: the hub does not answer.
    """
    address = store.resolve(name)
    manifest = store.manifest(address)
    if manifest is not None:
        if manifest.kind not in MODEL_KINDS:
            raise InputError(
                f"{name!r} is a {manifest.kind}, not a model",
                where=address,
                rule="an artifact of kind embedder or reranker",
                way_out=_WAY_OUT,
            )
        artifact = store.open(address, kind=manifest.kind)
        return ModelSource(
            name=name,
            path=artifact.path,
            fingerprint=manifest.fingerprint,
            origin="artifact",
            revision=manifest.fingerprint,
            manifest=manifest,
        )
    if _is_plain_model(address, store=store):
        path = store.raw(address)
        fingerprint = raw_fingerprint(path)
        return ModelSource(name=name, path=path, fingerprint=fingerprint, origin="directory", revision=fingerprint)
    if not _looks_like_hub_id(name):
        what = "is a directory without a model" if not is_s3(address) and Path(address).is_dir() else "does not exist"
        raise InputError(
            f"model {name!r} {what}",
            where=address,
            rule="an artifact, or a directory that holds config.json or modules.json",
            way_out=_WAY_OUT,
        )
    return _from_hub(name, address=address)


def model_state(name: str, *, store: Store) -> Literal["there", "hub id, resolved when it runs", "missing"]:
    """What `find_model` would find, without touching the network."""
    address = store.resolve(name)
    if store.manifest(address) is not None or _is_plain_model(address, store=store):
        return "there"
    return "hub id, resolved when it runs" if _looks_like_hub_id(name) else "missing"


def known_config(name: str, *, store: Store) -> dict[str, Any] | None:
    """The config.json of what `find_model` would find, without moving a model and without touching the network.

    Of a hub id: what the local cache holds, else what is known here of the settings' default models.

    Returns:
        None where it cannot be known yet, or is no JSON.
    """
    address = store.resolve(name)
    if is_s3(address):
        text = store.read_text(f"{address}/config.json")
    else:
        path = Path(address) / "config.json"
        text = path.read_text(encoding="utf-8") if path.is_file() else None
    if text is None and _looks_like_hub_id(name):
        text = _cached_config(name)
        if text is None:
            return _DEFAULT_MODELS.get(name)
    try:
        found = json.loads(text) if text is not None else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _cached_config(name: str) -> str | None:
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub") / f"models--{name.replace('/', '--')}"
    reference = cache / "refs" / "main"
    if not reference.is_file():
        return None
    path = cache / "snapshots" / reference.read_text(encoding="utf-8").strip() / "config.json"
    return path.read_text(encoding="utf-8") if path.is_file() else None


_DEFAULT_MODELS: Final[dict[str, dict[str, Any]]] = {
    "EleutherAI/polyglot-ko-1.3b": {
        "model_type": "gpt_neox",
        "vocab_size": 30080,
        "hidden_size": 2048,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 8192,
        "max_position_embeddings": 2048,
        "use_parallel_residual": True,
    },
    "bert-base-multilingual-cased": {
        "model_type": "bert",
        "vocab_size": 119547,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
    },
}
"""Of the configs of the settings' default models what their size depends on: a dry run shall say what they need."""


def model_fingerprint(name: str, *, store: Store) -> str | None:
    """The fingerprint that `find_model` would give, without moving a model.

    None for a hub id, nothing, or a plain directory in S3.
    """
    address = store.resolve(name)
    manifest = store.manifest(address)
    if manifest is not None:
        return manifest.fingerprint
    if is_s3(address):
        return None
    return raw_fingerprint(Path(address)) if model_state(name, store=store) == "there" else None


def _is_plain_model(address: str, *, store: Store) -> bool:
    if is_s3(address):
        return any(store.read_text(f"{address}/{file}") is not None for file in _MODEL_FILES)
    return _is_model_directory(Path(address))


def _is_model_directory(path: Path) -> bool:
    return any((path / file).is_file() for file in _MODEL_FILES)


def _looks_like_hub_id(name: str) -> bool:
    return not is_literal(name) and _HUB_ID.match(name) is not None and ".." not in name and "--" not in name


def _from_hub(name: str, *, address: str) -> ModelSource:
    """Resolve the commit first, then fetch only what is needed, safetensors before pickled weights."""
    from huggingface_hub import HfApi, constants, errors, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    tried = f"tried the artifact or directory {address}, then the hub id {name} at {constants.ENDPOINT}"
    network: tuple[type[Exception], ...] = (errors.HfHubHTTPError.__bases__[0], OSError)  # the HTTP client's root
    try:
        try:
            info = HfApi().model_info(name)
        except errors.RepositoryNotFoundError:
            raise
        except network as error:
            cached = _cached(name)
            if cached is None:
                raise
            if isinstance(error, errors.HfHubHTTPError) and error.response.status_code < 500:
                raise
            return cached
        files = [sibling.rfilename for sibling in info.siblings or []]
        safe, pickled = _WEIGHTS
        weights = safe if any(Path(file).match(safe) for file in files) else pickled
        # Of the default branch and not of `info.sha`: only that leaves the name behind by which the cache is found.
        path = snapshot_download(
            name,
            allow_patterns=[*_NEEDED, weights],
            ignore_patterns=_UNWANTED,
        )
    except errors.GatedRepoError as error:
        raise InputError(
            f"hub model {name!r} is gated",
            where=tried,
            rule="an account that has accepted its terms",
            way_out=f"accept them at {constants.ENDPOINT}/{name} and set HF_TOKEN",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"model {name!r} was not found",
            where=tried,
            rule="an artifact, a model directory or a hub id",
            way_out=f"{_WAY_OUT}; for a private one set HF_TOKEN",
        ) from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        if not constants.HF_HUB_OFFLINE:
            raise _out_of_reach(name, tried, error) from error
        raise InputError(
            f"hub model {name!r} is not in the local cache, and HF_HUB_OFFLINE is set",
            where=tried,
            rule="offline, a model must have been fetched before",
            way_out="unset HF_HUB_OFFLINE once, or name a directory that holds the model",
        ) from error
    except network as error:
        raise _out_of_reach(name, tried, error) from error
    commit = Path(path).name
    return ModelSource(name=name, path=Path(path), fingerprint=commit, origin="hub", revision=commit)


def _cached(name: str) -> ModelSource | None:
    """The newest snapshot in the local cache, if its config and weights are there."""
    from huggingface_hub import errors, snapshot_download

    for weights in _WEIGHTS:
        try:
            found = snapshot_download(
                name, allow_patterns=[*_NEEDED, weights], ignore_patterns=_UNWANTED, local_files_only=True
            )
        except errors.LocalEntryNotFoundError:
            continue
        path = Path(found)
        if _is_model_directory(path) and any(path.rglob(weights)):
            return ModelSource(name=name, path=path, fingerprint=path.name, origin="hub", revision=path.name)
    return None


def _out_of_reach(name: str, tried: str, error: Exception) -> OutOfReach:
    return OutOfReach(
        f"the hub does not answer for {name!r}: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
        where=tried,
        rule="a network connection, or the model in the local cache",
        way_out="check HF_ENDPOINT, proxy and HF_TOKEN; or name a directory that holds the model",
    )
