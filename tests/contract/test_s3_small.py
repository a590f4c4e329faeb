"""Small files past boto3: the same bytes, and whatever goes wrong is boto3's to mend."""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fault_proxy import Handler, proxied
from s3_machine import around_requests, forked, quick, self_signed, space_at, was_killed

from nearer.errors import OutOfReach
from nearer.store.s3.wire import split
from nearer.store.space import Changed

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
    """Upload and download files of these names; gives what came back, by name."""
    folder.mkdir()
    (folder / "source").write_bytes(DATA)
    listing, found = {}, {}
    for name in names:
        space.upload(folder / "source", f"{root}/{name}")
    listing = space.list(root)
    for number, name in enumerate(names):
        digest = space.download(f"{root}/{name}", folder / str(number), listing[name])
        found[name] = (folder / str(number)).read_bytes()
        assert digest == hashlib.sha256(found[name]).hexdigest()
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


def test_an_empty_file_and_a_big_one_are_files_as_well(fast, s3_root, tmp_path):
    """Those that the short cut is not for."""
    for name, size in (("empty", 0), ("big", (5 << 20) + 1)):
        (tmp_path / name).write_bytes(b"x" * size)
        fast[0].upload(tmp_path / name, f"{s3_root}/{name}")
        fast[0].download(f"{s3_root}/{name}", tmp_path / f"{name}-back", fast[0].list(s3_root)[name])
        assert (tmp_path / f"{name}-back").stat().st_size == size


def test_a_file_that_changed_since_it_was_listed_is_not_read(fast, s3_root, tmp_path):
    """The ETag of the listing holds on the short cut as well."""
    (tmp_path / "file").write_bytes(b"one")
    fast[0].upload(tmp_path / "file", f"{s3_root}/file")
    stat = fast[0].list(s3_root)["file"]
    (tmp_path / "file").write_bytes(b"two")
    fast[0].upload(tmp_path / "file", f"{s3_root}/file")
    with pytest.raises(Changed):
        fast[0].download(f"{s3_root}/file", tmp_path / "back", stat)


@pytest.mark.parametrize("fault", ["503", "reset-before", "reset-after", "truncate", "wrong-body"])
def test_what_fails_on_the_short_cut_boto3_does(s3_endpoint, s3_root, tmp_path, monkeypatch, fault):
    """Every other file request is spoilt, and each file comes and goes right."""
    quick(monkeypatch)
    with proxied(s3_endpoint, checks_md5=False) as (proxy, through):
        proxy.reset(lambda number, method: fault if method in {"GET", "PUT"} and number % 2 == 0 else None)
        space = space_at(through, small_files="auto", attempts=8)
        found = there_and_back(space, s3_root, tmp_path / "files", NAMES[:3])
        assert proxy.done[fault] >= 3
    assert found == dict.fromkeys(NAMES[:3], DATA)


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
    (tmp_path / "file").write_bytes(DATA)
    with proxied(s3_endpoint, stall_seconds=5) as (proxy, through):
        proxy.reset(lambda number, _method: "late" if number == 1 else None)
        space = space_at(through, small_files="auto", read_timeout_seconds=0.5)
        begun = time.monotonic()
        with around_requests() as requests:
            for number in range(3):
                space.upload(tmp_path / "file", f"{s3_root}/{number}")
        assert len(of_files(requests)) == 3
        assert time.monotonic() - begun < 4
    assert len(space_at(s3_endpoint).list(s3_root)) == 3


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
    (tmp_path / "back").mkdir()
    with around_requests() as requests, ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda name: fast[0].upload(tmp_path / name, f"{s3_root}/{name}"), files))
        listing = fast[0].list(s3_root)
        list(
            pool.map(lambda name: fast[0].download(f"{s3_root}/{name}", tmp_path / "back" / name, listing[name]), files)
        )
    assert of_files(requests) == []
    assert {path.name: path.read_bytes() for path in Path(tmp_path, "back").iterdir()} == files
