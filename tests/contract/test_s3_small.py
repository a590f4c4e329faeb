"""Small files past boto3: the same bytes, and whatever goes wrong is boto3's to mend."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fault_proxy import Handler, proxied
from s3_machine import around_requests, forked, machine, quick, self_signed, space_at, was_killed
from store_work import files_below, publish

from nearer.errors import OutOfReach
from nearer.store.s3.wire import split

NAMES = [
    "plain.bin",
    "한국어 문서.json",
    "a+b=c&d.txt",
    "100%~.txt",
    "#1?.txt",
    "..a..b",
    "x/y//z.txt",
    "'\"*$!@().txt",
]
DATA = b"\0\xff bytes " * 1000


@pytest.fixture
def fast(s3_endpoint):
    """The primitives with the short cut; those of boto3 alone; both at the server itself."""
    return space_at(s3_endpoint, small_files="auto", requests_at_once=4), space_at(s3_endpoint)


def there_and_back(space, root, folder, names=NAMES):
    """Upload files of these names and download them, as far as the short cut brings them; gives what came, by name."""
    folder.mkdir()
    (folder / "source").write_bytes(DATA)
    for name in names:
        space.upload(folder / "source", f"{root}/{name}")
    listing, found = space.list(root), {}
    wanted = {f"{root}/{name}": (folder / str(number), listing[name]) for number, name in enumerate(names)}
    for key, sha256 in space.download_small(wanted):
        found[key.removeprefix(f"{root}/")] = wanted[key][0].read_bytes()
        assert sha256 == hashlib.sha256(DATA).hexdigest()
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["source", *(str(names.index(name)) for name in found)]
    )
    return found


def of_files(requests):
    """Those that move an object's bytes."""
    return [each for each in requests if each.method in {"GET", "PUT"} and "list-type" not in each.query]


def test_whatever_the_name_the_bytes_are_the_same(fast, s3_root, tmp_path):
    """What went one way is read the other way, and none of it is a request of boto3."""
    short, plain = fast
    with around_requests() as requests:
        assert there_and_back(short, s3_root, tmp_path / "short") == dict.fromkeys(NAMES, DATA)
    assert of_files(requests) == []
    listing = plain.list(s3_root)
    assert sorted(listing) == sorted(NAMES)
    for number, name in enumerate(NAMES):
        plain.download(f"{s3_root}/{name}", tmp_path / str(number), listing[name])
        assert (tmp_path / str(number)).read_bytes() == DATA


def test_an_empty_file_and_a_big_one_are_left_to_boto3(fast, s3_root, tmp_path):
    """Those that the short cut is not for."""
    for name, size in (("empty", 0), ("big", (1 << 20) + 1), ("edge", 1 << 20)):
        (tmp_path / name).write_bytes(b"x" * size)
        fast[0].upload(tmp_path / name, f"{s3_root}/{name}")
    listing = fast[0].list(s3_root)
    wanted = {f"{s3_root}/{name}": (tmp_path / f"{name}-back", stat) for name, stat in listing.items()}
    assert [key.rpartition("/")[2] for key, _ in fast[0].download_small(wanted)] == ["edge"]
    assert {name: stat.size for name, stat in listing.items()} == {"empty": 0, "big": (1 << 20) + 1, "edge": 1 << 20}


def test_a_file_that_changed_since_it_was_listed_does_not_come(fast, s3_root, tmp_path):
    """The ETag of the listing holds on the short cut as well."""
    listings = []
    for data in (b"one", b"two"):
        (tmp_path / "file").write_bytes(data)
        fast[0].upload(tmp_path / "file", f"{s3_root}/file")
        listings.append(fast[0].list(s3_root)["file"])
    old, new = ({f"{s3_root}/file": (tmp_path / "back", stat)} for stat in listings)
    assert list(fast[0].download_small(old)) == []
    assert not (tmp_path / "back").exists()
    assert len(list(fast[0].download_small(new))) == 1


@pytest.mark.parametrize(
    "fault", ["500", "503", "reset-before", "reset-after", "truncate", "wrong-answer", "wrong-body"]
)
def test_what_fails_on_the_short_cut_boto3_does(s3_endpoint, s3_root, tmp_path, monkeypatch, fault):
    """Every other request of a file is spoilt, and the artifact goes and comes right."""
    quick(monkeypatch)
    files = {f"file-{number}.bin": DATA + bytes([number]) for number in range(8)}
    with proxied(s3_endpoint, checks_md5=False) as (proxy, through):
        space = space_at(through, small_files="auto", attempts=8)
        proxy.reset(lambda number, method: fault if method == "PUT" and number % 2 == 0 else None)
        publish(machine(s3_root, space, tmp_path / "a"), "m", files)
        proxy.reset(lambda number, method: fault if method == "GET" and number % 2 == 0 else None)
        found = files_below(machine(s3_root, space_at(through, small_files="auto"), tmp_path / "b").open("m").path)
    assert proxy.done[fault] >= 5
    assert found == files


def test_a_wire_on_which_it_keeps_failing_is_left_to_boto3(s3_endpoint, s3_root, tmp_path, monkeypatch):
    """After three failures one after the other no file is tried twice."""
    quick(monkeypatch)
    (tmp_path / "file").write_bytes(DATA)
    with proxied(s3_endpoint) as (proxy, through), around_requests() as requests:
        proxy.reset(lambda number, _method: "reset-before" if number in {1, 3, 5} else None)
        space = space_at(through, small_files="auto")
        for number in range(5):
            space.upload(tmp_path / "file", f"{s3_root}/{number}")
        assert proxy.count == 3 + 5
    assert len(of_files(requests)) == 5


def test_a_store_that_stands_still_is_waited_for_once(s3_endpoint, s3_root, tmp_path, monkeypatch):
    """The short cut ends with the read timeout, and is not tried again."""
    quick(monkeypatch)
    files = {f"file-{number}.bin": DATA + bytes([number]) for number in range(4)}
    publish(machine(s3_root, space_at(s3_endpoint), tmp_path / "a"), "m", files)
    with proxied(s3_endpoint, stall_seconds=5) as (proxy, through):
        proxy.reset(lambda number, _method: "late" if number == 1 else None)
        space = space_at(through, small_files="auto", read_timeout_seconds=0.5)
        begun = time.monotonic()
        with around_requests() as requests:
            for number in range(3):
                (tmp_path / "file").write_bytes(DATA)
                space.upload(tmp_path / "file", f"{s3_root}/{number}")
        assert len(of_files(requests)) == 3
        stalled = []

        def plan(_number, method):
            if method == "GET" and len(stalled) < 4:
                stalled.append(1)
                return "late"
            return None

        listing = space_at(s3_endpoint).list(f"{s3_root}/m")
        proxy.reset(plan)
        space = space_at(through, small_files="auto", read_timeout_seconds=0.5)
        wanted = {f"{s3_root}/m/{name}": (tmp_path / name, listing[name]) for name in files}
        assert list(space.download_small(wanted)) == []
        assert not [name for name in files if (tmp_path / name).exists()]
        assert time.monotonic() - begun < 4


def test_a_proxy_of_the_environment_is_not_passed_by(s3_endpoint, s3_root, tmp_path, monkeypatch):
    """Where a proxy is set that does not answer, nothing goes to the store directly."""
    quick(monkeypatch)
    (tmp_path / "file").write_bytes(DATA)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(OutOfReach):
        space_at(s3_endpoint, small_files="auto").upload(tmp_path / "file", f"{s3_root}/file")
    monkeypatch.delenv("HTTP_PROXY")
    assert "file" not in space_at(s3_endpoint).list(s3_root)


def test_over_tls_the_ca_bundle_decides(s3_endpoint, s3_root, tmp_path, monkeypatch):
    """A certificate of the user's own is trusted where the settings name it, and by the short cut as well."""
    quick(monkeypatch)
    certificate = self_signed(tmp_path)
    with proxied(s3_endpoint, certificate=certificate) as (_, through):
        space = space_at(through, small_files="auto", ca_bundle=str(certificate[0]))
        with around_requests() as requests:
            assert there_and_back(space, s3_root, tmp_path / "tls", NAMES[:2]) == dict.fromkeys(NAMES[:2], DATA)
        assert of_files(requests) == []
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate[0]))
        with around_requests() as requests:
            found = there_and_back(space_at(through, small_files="auto"), s3_root, tmp_path / "env", NAMES[:2])
        assert found == dict.fromkeys(NAMES[:2], DATA)
        assert of_files(requests) == []


def test_what_every_write_carries_it_carries(s3_endpoint, s3_root, tmp_path, monkeypatch):
    """The session token and the encryption that the options name; bytes are told by their MD5, not signed."""
    seen = []
    (tmp_path / "file").write_bytes(DATA)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token")
    with proxied(s3_endpoint) as (proxy, through):
        monkeypatch.setattr(Handler, "_forward", _noting(seen, Handler._forward))
        with around_requests() as requests:
            space_at(through, small_files="auto", encryption="AES256").upload(tmp_path / "file", f"{s3_root}/file")
        assert of_files(requests) == []
        assert proxy.count == 1
    [headers] = seen
    assert headers["x-amz-security-token"] == "a-token"
    assert headers["x-amz-server-side-encryption"] == "AES256"
    assert headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert headers["content-md5"]
    bucket, prefix = split(s3_root)
    head = space_at(s3_endpoint).wire.call("HeadObject", bucket, f"{prefix}/file")
    assert head["ServerSideEncryption"] == "AES256"


def _noting(seen, original):
    def forward(self, body):
        seen.append({name.lower(): value for name, value in self.headers.items()})
        return original(self, body)

    return forward


def test_keys_that_the_options_name_are_boto3s_affair(s3_endpoint, s3_root, tmp_path):
    """Under a KMS key the ETag is no MD5."""
    (tmp_path / "file").write_bytes(DATA)
    space = space_at(s3_endpoint, small_files="auto", encryption="aws:kms", kms_key_id="key-1")
    with around_requests() as requests:
        space.upload(tmp_path / "file", f"{s3_root}/file")
    assert len(of_files(requests)) == 1


def test_a_forked_process_does_without(fast, s3_root, tmp_path):
    """Its threads are not there; a child of a process that used it must not wait for them for ever."""
    (tmp_path / "file").write_bytes(DATA)
    fast[0].upload(tmp_path / "file", f"{s3_root}/parent")
    assert not was_killed(forked(lambda: fast[0].upload(tmp_path / "file", f"{s3_root}/child")))
    assert sorted(fast[1].list(s3_root)) == ["child", "parent"]


def test_many_at_once_from_many_threads(fast, s3_root, tmp_path):
    """One client for all of them, and nothing is mixed up."""
    files = {f"{number}.bin": os.urandom(1 + 997 * number) for number in range(60)}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with around_requests() as requests, ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda name: fast[0].upload(tmp_path / name, f"{s3_root}/{name}"), files))
        listing = fast[0].list(s3_root)

        def back(folder):
            folder.mkdir()
            wanted = {f"{s3_root}/{name}": (folder / name, listing[name]) for name in files}
            return len(list(fast[0].download_small(wanted)))

        assert list(pool.map(back, [tmp_path / "one", tmp_path / "two"])) == [60, 60]
    assert of_files(requests) == []
    assert files_below(tmp_path / "one") == files_below(tmp_path / "two") == files


def test_who_stops_reading_leaves_nothing_behind(fast, s3_root, tmp_path):
    """An error in between, such as a full disk, ends what is under way."""
    for number in range(40):
        (tmp_path / "file").write_bytes(DATA + bytes([number]))
        fast[0].upload(tmp_path / "file", f"{s3_root}/{number}")
    (tmp_path / "back").mkdir()
    listing = fast[0].list(s3_root)
    coming = fast[0].download_small(
        {f"{s3_root}/{name}": (tmp_path / "back" / name, stat) for name, stat in listing.items()}
    )
    first = next(coming)[0].rpartition("/")[2]
    coming.close()
    assert [path.name for path in (tmp_path / "back").iterdir()] == [first]


def test_a_process_does_not_wait_for_a_store_that_stands_still(s3_endpoint, s3_root, tmp_path):
    """What is under way when a process ends does not keep it."""
    (tmp_path / "file").write_bytes(DATA)
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent.parent / "assets")!r})
from pathlib import Path
from s3_machine import space_at
space = space_at(sys.argv[1], small_files="auto", read_timeout_seconds=0.3, attempts=1)
try:
    space.upload(Path(sys.argv[2]), sys.argv[3])
except BaseException as error:
    print(type(error).__name__)
"""
    with proxied(s3_endpoint, stall_seconds=20) as (proxy, through):
        proxy.reset(lambda _number, _method: "late")
        command = [sys.executable, "-c", code, through, str(tmp_path / "file"), f"{s3_root}/file"]
        begun = time.monotonic()
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert result.stdout.strip() == "OutOfReach"
        assert time.monotonic() - begun < 15


def test_what_nobody_uses_any_more_leaves_no_threads(s3_endpoint, s3_root, tmp_path):
    """A process that opens many stores, one after the other, does not grow."""
    (tmp_path / "file").write_bytes(DATA)

    def threads():
        return int(Path("/proc/self/status").read_text(encoding="ascii").partition("Threads:")[2].split()[0])

    before = threads()
    for number in range(6):
        space = space_at(s3_endpoint, small_files="auto")
        space.upload(tmp_path / "file", f"{s3_root}/{number}")
        del space
        deadline = time.monotonic() + 10
        while threads() > before and time.monotonic() < deadline:
            time.sleep(0.01)
    assert threads() <= before
