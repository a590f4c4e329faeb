"""The image, built by `make image` and run as a cluster would run it: read-only, without rights, without a network.

It takes podman (with runc or crun) and, unless NEARER_TEST_BASE_IMAGE names a base, debootstrap and the right to use it.
pip's own settings on this machine reach the build as secrets; the folders they name, as volumes.
"""

import configparser
import json
import os
import re
import secrets
import shutil
import ssl
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.full, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nearer-tests"
"""What is made or downloaded for tests only, once a machine."""
SUITE = "bookworm"
BASE = f"localhost/nearer-test-base:{SUITE}"
IMAGE = "localhost/nearer-test:cpu"
CANARY = f"nearer-canary-{secrets.token_hex(16)}"
"""Stands in each secret of the build, and must not be found in the image."""

RESTRICTED = (
    "--read-only",
    "--read-only-tmpfs=false",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--network=none",
    "--tmpfs=/tmp:rw,mode=1777",
)
USERS = ["10001:10001", "12345:0"]
"""The chart's, and one that no image knows, in the root group."""
COMMANDS = {
    "generate": "datasets/smoke",
    "train embedding": "models/smoke-embedding",
    "train reranker": "models/smoke-reranker",
    "eval": "reports/smoke",
    "export-onnx": "models/smoke-reranker-onnx",
    "reindex": "indexes/smoke",
}
# Containers inside containers: no systemd for cgroups, and limits that may not be raised.
CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run podman; a failure is the test's, unless `check=False`."""
    if not shutil.which("podman"):
        pytest.skip("podman is not installed")
    if "CONTAINERS_CONF" not in os.environ and shutil.which("runc") and not Path("/run/systemd/system").exists():
        conf = tmp_path_factory.mktemp("podman") / "containers.conf"
        conf.write_text(CONTAINERS_CONF)
        os.environ["CONTAINERS_CONF"] = str(conf)

    here = tmp_path_factory.mktemp("here")  # conmon leaves a file in the current directory after a memory kill

    def call(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(["podman", *arguments], capture_output=True, text=True, check=False, cwd=here)
        assert not check or done.returncode == 0, f"podman {arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    return call


@pytest.fixture(scope="module")
def base(podman: Callable[..., Any]) -> str:
    """The base to build on: what NEARER_TEST_BASE_IMAGE names, else a minimal Debian made here, once."""
    if named := os.environ.get("NEARER_TEST_BASE_IMAGE"):
        return named
    if podman("image", "exists", BASE, check=False).returncode == 0:
        return BASE
    archive = CACHE / f"base-{SUITE}.tar"
    if not archive.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            system, packed = Path(work) / "system", Path(work) / "base.tar"
            command = ["debootstrap", "--variant=minbase", "--include=ca-certificates,python3,python3-venv", SUITE]
            done = subprocess.run([*command, str(system)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr
            shutil.rmtree(system / "var/cache/apt/archives")
            subprocess.run(["tar", "-C", str(system), "-cf", str(packed), "."], check=True)
            packed.rename(archive)
    podman("import", "--quiet", str(archive), BASE)
    return BASE


def pip_settings(directory: Path) -> list[str]:
    """Options of the builder: pip's settings on this machine and its certificates as secrets, its folders as volumes."""
    told = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    known = dict(line.split("=", 1) for line in told.stdout.splitlines())
    values = {name.removeprefix("global."): value.strip("'") for name, value in known.items() if name[:7] == "global."}
    conf = configparser.ConfigParser(interpolation=None)
    conf["global"] = {name: value.replace("\\n", "\n") for name, value in values.items()}
    with (directory / "pip.conf").open("w") as file:
        conf.write(file)
        file.write(f"# {CANARY}\n")
    authorities = Path(os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile or "")
    (directory / "ca.crt").write_bytes(authorities.read_bytes() + f"# {CANARY}\n".encode())
    options = [f"--secret=id=pipconf,src={directory / 'pip.conf'}", f"--secret=id=ca,src={directory / 'ca.crt'}"]
    words = [word for value in values.values() for word in re.split(r"\s+|\\n", value) if word != values.get("cert")]
    # An index's links lead to the folder beside it.
    folders = {Path(word.removeprefix("file://")).parent for word in words if word.startswith("file:///")}
    folders |= {Path(word) for word in words if word.startswith("/") and Path(word).exists()}
    return options + [f"--volume={each}:{each}:ro" for each in sorted(folders)]


@pytest.fixture(scope="module")
def image(podman: Callable[..., Any], base: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `make image` builds from the checkout; or the image that NEARER_TEST_IMAGE names, as it is."""
    if named := os.environ.get("NEARER_TEST_IMAGE"):
        return named
    options = pip_settings(tmp_path_factory.mktemp("secrets"))
    if not Path("/run/systemd/system").exists():
        options.append("--isolation=chroot")
    local = "find-links" in (Path(options[0].split("src=")[1])).read_text()
    command = ["make", "image", f"IMAGE={IMAGE}", f"BASE_IMAGE={base}", "BUILDER=podman"]
    command += [f"IMAGE_FLAGS={' '.join(options)}"] + (["TORCH_INDEX="] if local else [])
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    layers = done.stdout[done.stdout.rindex("SIZE") :]
    print(layers)
    return IMAGE


@dataclass
class Container:
    """Runs nearer in the image as one user, with three places to write to: /tmp, /work and /cache."""

    podman: Callable[..., subprocess.CompletedProcess[str]]
    image: str
    user: str
    directory: Path
    options: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("work", "cache"):
            (self.directory / name).mkdir()
            uid, gid = map(int, self.user.split(":"))
            os.chown(self.directory / name, uid, gid)
        # The job file itself is for `pipeline` alone.
        settings = yaml.safe_load((ROOT / "jobs/smoke.yaml").read_text(encoding="utf-8"))["settings"]
        (self.directory / "settings.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")

    def arguments(self, *arguments: str, name: str | None = None, entrypoint: str | None = None) -> list[str]:
        own = [f"--name={name}"] if name else ["--rm"]
        own += [f"--entrypoint={entrypoint}"] if entrypoint else []
        volumes = [
            f"--volume={self.directory}/work:/work",
            f"--volume={self.directory}/cache:/cache",
            f"--volume={self.directory}/settings.yaml:/etc/nearer/settings.yaml:ro",
        ]
        return ["run", *own, f"--user={self.user}", *RESTRICTED, *volumes, *self.options, self.image, *arguments]

    def run(self, *arguments: str, entrypoint: str | None = None) -> subprocess.CompletedProcess[str]:
        return self.podman(*self.arguments(*arguments, entrypoint=entrypoint), check=False)

    def nearer(self, command: str, *settings: str) -> subprocess.CompletedProcess[str]:
        return self.run(*job(command, *settings))


def job(command: str, *settings: str) -> list[str]:
    """The arguments that the chart gives, with a local root."""
    changes = [word for each in ("artifacts=/work/out", *settings) for word in ("--set", each)]
    return [*command.split(), "-c", "/etc/nearer/settings.yaml", *changes]


@pytest.fixture
def container(podman: Callable[..., Any], image: str, tmp_path: Path) -> Callable[..., Container]:
    """A container's description, with folders of its own."""

    def make(user: str = USERS[0], *options: str) -> Container:
        directory = tmp_path / secrets.token_hex(4)
        directory.mkdir()
        return Container(podman=podman, image=image, user=user, directory=directory, options=list(options))

    return make


@pytest.fixture
def named(podman: Callable[..., Any]) -> Iterator[str]:
    """The name of a container that outlives its process, to be asked how it ended."""
    name = f"nearer-test-{secrets.token_hex(6)}"
    yield name
    podman("rm", "--force", "--ignore", name)


@pytest.mark.parametrize("user", USERS)
def test_every_command_runs_under_any_user(container: Callable[..., Container], user: str) -> None:
    """The five commands on the smoke job, each to its artifact, and again for nothing."""
    box = container(user)
    for command, address in COMMANDS.items():
        done = box.nearer(command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        assert list((box.directory / "work/out" / address).rglob("manifest.json")), command
    print(f"{user}: {len(COMMANDS)} command lines")


def test_the_pipeline_runs_where_the_platform_gives_the_user(container: Callable[..., Container]) -> None:
    """A uid as OpenShift gives them; the second time everything is there."""
    box = container("1000660000:0")
    for _ in range(2):
        done = box.nearer("pipeline")
        assert done.returncode == 0, done.stderr


def test_it_is_the_wheel_that_runs(container: Callable[..., Container]) -> None:
    """Version, user, consistent packages; the chart is there; nothing of a checkout is."""
    box = container("12345:0")
    assert box.run("--version").stdout.split()[-1] == "0.1.0"
    assert box.run("-u", entrypoint="id").stdout.strip() == "12345"
    checked = box.run("check", entrypoint="pip")
    assert (checked.returncode, checked.stdout.strip()) == (0, "No broken requirements found.")
    where = """
import getpass, json, pathlib, nearer
from importlib.metadata import distribution
from nearer.cluster.chart import chart_directory
from torch._inductor.runtime.cache_dir_utils import cache_dir
files = distribution("nearer").files
print(json.dumps({
    "user": getpass.getuser(), "home": str(pathlib.Path.home()), "package": nearer.__file__, "inductor": cache_dir(),
    "chart": str(chart_directory()), "editable": distribution("nearer").read_text("direct_url.json"),
    "compiled": sum(file.suffix == ".pyc" for file in files), "sources": sum(file.suffix == ".py" for file in files)}))
"""
    told = json.loads(box.run("-c", where, entrypoint="python").stdout)
    packages = "/opt/nearer/venv/lib/python3.11/site-packages/nearer"
    assert told["user"] == "nearer"
    assert (told["home"], told["inductor"]) == ("/cache", "/cache/inductor")
    assert (told["package"], told["chart"]) == (f"{packages}/__init__.py", f"{packages}/cluster/chart")
    assert '"dir_info"' not in (told["editable"] or "")
    assert told["compiled"] == told["sources"] > 50


def test_it_has_no_compiler_and_nothing_can_be_written(container: Callable[..., Container]) -> None:
    """Neither gcc nor cc; the root and the smoke data are read-only also for the user's own process."""
    box = container()
    script = """
import pathlib, shutil
print([name for name in ("gcc", "g++", "cc", "c++", "make", "git") if shutil.which(name)])
for place in ("/opt/nearer/smoke", "/opt/nearer/venv", "/usr", "/var/tmp", "/run", "/etc"):
    try:
        pathlib.Path(place, "x").write_text("")
    except OSError as error:
        continue
    print("written to", place)
"""
    done = box.run("-c", script, entrypoint="python")
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def start_training(box: Container, name: str, *settings: str) -> subprocess.Popen[str]:
    """A training in a container that is told to go on for long."""
    arguments = box.arguments(*job("train embedding", *settings), name=name)
    return subprocess.Popen(["podman", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_a_stopped_training_goes_on(
    container: Callable[..., Container], podman: Callable[..., Any], named: str
) -> None:
    """SIGTERM to the container during training: a checkpoint and code 75; the same command goes on from it and ends."""
    box = container()
    assert box.nearer("generate").returncode == 0
    settings = ("train.embedding.epochs=60", "train.embedding.checkpoint_steps=1")
    with start_training(box, named, *settings) as training:
        work = box.directory / "work/out/.nearer/work"
        # A line comes at each validation; the training has more than a hundred steps.
        assert training.stderr
        seen = []
        for line in training.stderr:
            seen.append(line)
            if list(work.glob("*/step-*")):
                break
        podman("kill", "--signal=TERM", named)
        seen += list(training.stderr)
    assert training.returncode == 75, "".join(seen)
    assert "stopped by SIGTERM" in seen[-2] + seen[-1]
    steps = sorted(int(path.name.removeprefix("step-")) for path in work.glob("*/step-*"))
    assert steps
    again = box.nearer("train embedding", *settings)
    assert again.returncode == 0, again.stderr
    (going_on,) = [line for line in again.stderr.splitlines() if "going on from a checkpoint" in line]
    assert json.loads(going_on)["step"] == steps[-1]
    print(f"stopped after step {steps[-1]} of {json.loads(going_on)['of']}")


def test_a_run_over_its_memory_is_told(
    container: Callable[..., Container], podman: Callable[..., Any], named: str
) -> None:
    """The kernel ends it: 137, as the chart's failure policy and `submit` expect, and not a code of tini's own."""
    box = container(USERS[0], "--memory=200m", "--memory-swap=200m")
    done = podman(*box.arguments(*job("pipeline"), name=named), check=False)
    assert done.returncode == 137, done.stderr


def test_no_secret_stays_in_a_layer(podman: Callable[..., Any], image: str, base: str, tmp_path: Path) -> None:
    """Neither pip's settings nor the certificates of the build, under any name, in any layer, nor in the configuration."""
    podman("save", "--quiet", "--format=docker-dir", f"--output={tmp_path / 'image'}", image)
    blobs = [path for path in (tmp_path / "image").rglob("*") if path.is_file()]
    known = set(json.loads(podman("inspect", base).stdout)[0]["RootFS"]["Layers"])
    layers = json.loads(podman("inspect", image).stdout)[0]["RootFS"]["Layers"]
    assert len(known.intersection(layers)) == len(known)
    files = 0
    for blob in blobs:
        if not tarfile.is_tarfile(blob):
            assert CANARY.encode() not in blob.read_bytes(), blob
            continue
        with tarfile.open(blob) as layer:
            for member in layer:
                if not member.isfile():
                    continue
                files += 1
                assert not member.name.endswith(("pip.conf", ".netrc", ".env")), member.name
                content = layer.extractfile(member)
                assert content
                # Secrets are text, and short beside weights and libraries.
                if member.size < 1 << 24:
                    assert CANARY.encode() not in content.read(), member.name
    print(f"{files} files in {len(layers)} layers")
    assert files > 10_000


def test_the_labels_say_what_it_is(podman: Callable[..., Any], image: str, base: str) -> None:
    """OCI's names; numeric user, so that `runAsNonRoot` can be checked; the entrypoint."""
    config = json.loads(podman("inspect", image).stdout)[0]["Config"]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert (labels["title"], labels["version"], labels["base.name"]) == ("nearer", "0.1.0", base)
    assert labels["licenses"] == "Apache-2.0"
    assert re.fullmatch("[0-9a-f]{40}", labels["revision"])
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["tini", "--", "nearer"]
    assert (config["WorkingDir"], config["StopSignal"]) == ("/work", "SIGTERM")
