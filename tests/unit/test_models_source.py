"""Where a model comes from: artifact, plain directory, hub."""

import hashlib
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nearer.errors import InputError
from nearer.models.source import find_model, model_state
from nearer.store import Manifest, Store, open_store

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"pickled weights",
    "onnx/model.onnx": b"graph",
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "artifacts"))


def plain_model(directory: Path) -> Path:
    directory.mkdir(parents=True)
    (directory / "config.json").write_text('{"model_type": "bert"}')
    return directory


def publish(store: Store, address: str, kind: str) -> None:
    with store.scratch() as directory:
        (directory / "config.json").write_text('{"model_type": "bert"}')
        store.publish(address, directory, Manifest(kind=kind, name="test", fingerprint="f" * 64))


def test_an_artifact_comes_first(store: Store) -> None:
    """An artifact is found by its name under the root, with its own fingerprint."""
    publish(store, "models/tuned", "embedder")
    source = find_model("models/tuned", store=store)
    assert (source.origin, source.fingerprint, source.revision) == ("artifact", "f" * 64, "f" * 64)
    assert source.manifest is not None
    assert source.config() == {"model_type": "bert"}


def test_a_dataset_is_no_model(store: Store) -> None:
    """An artifact of another kind is refused by its kind, not searched for on the hub."""
    publish(store, "datasets/help", "dataset")
    with pytest.raises(InputError, match="is a dataset, not a model"):
        find_model("datasets/help", store=store)


@pytest.mark.parametrize("name", ["models/plain", "{root}/models/plain"])
def test_a_plain_directory_is_found_by_content(store: Store, name: str) -> None:
    """A directory with a config is a model; its fingerprint changes with its content and not with its name."""
    directory = plain_model(Path(store.root) / "models" / "plain")
    first = find_model(name.format(root=store.root), store=store)
    (directory / "config.json").write_text('{"model_type": "gpt_neox"}')
    second = find_model(name.format(root=store.root), store=store)
    assert first.origin == "directory"
    assert first.path == directory
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize("name", ["./nothing", "/nowhere/at/all", "a/b/c", "un known/model"])
def test_what_cannot_be_a_hub_id_is_never_asked_for(store: Store, name: str) -> None:
    """A literal path, and a name that no hub repository can have, end at once in words."""
    with pytest.raises(InputError, match="does not exist"):
        find_model(name, store=store)
    assert model_state(name, store=store) == "missing"


def test_an_empty_directory_is_named_as_such(store: Store, tmp_path: Path) -> None:
    """A directory that is there and holds no model is told apart from one that is missing."""
    with pytest.raises(InputError, match="is a directory without a model"):
        find_model(str(tmp_path), store=store)


def test_the_plan_touches_no_network(store: Store) -> None:
    """States are told without resolving anything."""
    plain_model(Path(store.root) / "here")
    assert model_state("here", store=store) == "there"
    assert model_state("EleutherAI/polyglot-ko-1.3b", store=store) == "hub id, resolved when it runs"
    assert model_state("bert-base-multilingual-cased", store=store) == "hub id, resolved when it runs"


def test_the_module_is_light() -> None:
    """`--dry-run` imports it, so it imports nothing heavy."""
    code = (
        "import sys, nearer.models.source, nearer.train.run;"
        "print([m for m in ('torch','transformers','numpy','huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Hub(BaseHTTPRequestHandler):
    """As much of a model hub as the client asks for."""

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        name = path.removeprefix("/api/models/")
        if path.startswith("/api/models/team/model/tree/"):
            listing = [
                {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for file, content in FILES.items()
            ]
            return self.reply(200, json.dumps(listing).encode(), body=body)
        if name in {"team/model", "team/model/revision/main", f"team/model/revision/{COMMIT}"}:
            siblings = [{"rfilename": file} for file in FILES]
            return self.reply(200, json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode(), body=body)
        if path.startswith("/team/model/resolve/"):
            content = FILES[path.removeprefix("/team/model/resolve/").partition("/")[2]]
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
            return self.reply(200, content, body=body, headers=headers)
        if name == "team/broken":
            return self.reply(503, b"", body=body)
        if name == "team/gated":
            return self.reply(403, b"", body=body, headers={"X-Error-Code": "GatedRepo"})
        return self.reply(404, b"", body=body, headers={"X-Error-Code": "RepoNotFound"})

    def reply(self, status: int, content: bytes, *, body: bool, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


ASK = """
import json, sys
from nearer.errors import NearerError
from nearer.models.source import find_model
from nearer.store import open_store
store = open_store(sys.argv[1])
answers = {}
for name in sys.argv[2:]:
    try:
        found = find_model(name, store=store)
        files = sorted(str(f.relative_to(found.path)) for f in found.path.rglob("*") if f.is_file())
        answers[name] = [found.origin, found.fingerprint, found.revision, files]
    except NearerError as error:
        answers[name] = [error.code, str(error)]
print(json.dumps(answers))
"""


def ask(tmp_path: Path, *names: str, **environment: str) -> dict[str, list]:
    """Look for models in a fresh process: the hub client reads its environment when it is imported."""
    base = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(tmp_path / "artifacts"), *names],
        capture_output=True,
        text=True,
        check=False,
        env={**base, **environment, "PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_hub_model_is_resolved_to_its_commit(tmp_path: Path) -> None:
    """The commit is the fingerprint, pickled weights stay away beside safetensors, and the cache serves later."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        names = ("team/model", "team/missing", "team/gated", "team/broken")
        answers = ask(tmp_path, *names, HF_ENDPOINT=endpoint)
        server.shutdown()
    assert answers["team/model"] == ["hub", COMMIT, COMMIT, ["config.json", "model.safetensors"]]
    code, words = answers["team/missing"]
    assert code == 2
    assert f"{tmp_path}/artifacts/team/missing" in words
    assert "hub id team/missing" in words
    assert answers["team/gated"][0] == 2
    assert "HF_TOKEN" in answers["team/gated"][1]
    assert answers["team/broken"][0] == 69
    later = ask(tmp_path, "team/model", HF_ENDPOINT=endpoint)  # nobody answers there any more
    assert later["team/model"][:3] == ["hub", COMMIT, COMMIT]


def test_without_a_network_the_hub_is_out_of_reach(tmp_path: Path) -> None:
    """No answer is 69, which a Job retries; offline mode without a cached model is 2, which it does not."""
    answers = ask(tmp_path, "team/model", HF_ENDPOINT="http://127.0.0.1:9")
    assert answers["team/model"][0] == 69
    offline = ask(tmp_path, "team/model", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert offline["team/model"][0] == 2
    assert "HF_HUB_OFFLINE" in offline["team/model"][1]
