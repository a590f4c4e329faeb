"""What a store on a local file system does beyond the contract: links, locks, permissions, limits."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from store_work import content, job, publish, write

from nearer.errors import ArtifactCorrupt, ArtifactExists, InputError, Interrupted, from_os_error
from nearer.store import Manifest, open_store
from nearer.store.local import LocalStore

OLD = {"model.bin": b"old " * 100, "sub/config.json": b"{}", "only-old.txt": b"o", "name/inside.txt": b"a directory"}
NEW = {"model.bin": b"new!" * 100, "sub/config.json": b"[]", "only-new.txt": b"n", "name": b"a file"}


@pytest.fixture
def make(tmp_path):
    """A function that opens the store of this test, with or without overwriting."""
    return lambda *, overwrite=False: LocalStore(str(tmp_path / "root"), overwrite=overwrite)


@pytest.fixture
def store(make):
    return make()


def tree(directory):
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in Path(directory).rglob("*")
        if path.is_file()
    }


def test_files_inside_are_plain_files(store):
    """No symbolic link leads out of an artifact: `cp -r` and `aws s3 sync` of it are whole."""
    publish(store, "m", OLD, "f1")
    assert not any(path.is_symlink() for path in store.open("m").path.rglob("*"))


def test_symbolic_links_to_files_are_published_as_their_content(store, tmp_path):
    """A hub cache links its files; the artifact holds the bytes."""
    (tmp_path / "blob").write_bytes(b"blob")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "model.bin").symlink_to(tmp_path / "blob")
    store.publish("m", tmp_path / "snapshot", Manifest(kind="embedder", name="m", fingerprint="f1"))
    (tmp_path / "blob").write_bytes(b"changed")
    assert content(store, "m") == {"model.bin": b"blob"}


def test_a_copied_artifact_is_one(make, tmp_path):
    """`cp -r` of an artifact to another address or another root is the same artifact there."""
    publish(make(), "m", OLD, "f1")
    shutil.copytree(make().resolve("m"), tmp_path / "elsewhere")
    shutil.copytree(make().resolve("m"), make().resolve("n"))
    assert content(make(), str(tmp_path / "elsewhere")) == content(make(), "n") == OLD
    publish(make(overwrite=True), "n", NEW, "f2")
    assert content(make(), "n") == NEW


def test_roots_with_one_literal_address_share_its_claims(tmp_path):
    """Publishers with different roots meet at a literal address, in an area beside it."""
    first, second = (LocalStore(str(tmp_path / name)) for name in ("a", "b"))
    address = str(tmp_path / "out" / "m")
    publish(first, address, OLD, "f1")
    with pytest.raises(ArtifactExists):
        publish(second, address, NEW, "f2")
    assert (tmp_path / "out" / ".nearer" / "claims").is_dir()
    assert content(second, address) == OLD


def test_two_names_of_one_directory_are_one_address(make, tmp_path):
    """A symbolic link to the root does not lead around the claims."""
    publish(make(), "m", OLD, "f1")
    (tmp_path / "alias").symlink_to(tmp_path / "root")
    other = LocalStore(str(tmp_path / "alias"), overwrite=True)
    publish(other, "m", NEW, "f2")
    claims = [name for name in tree(tmp_path / "root" / ".nearer") if name.startswith("claims/")]
    assert sorted(name.rpartition("/")[2] for name in claims) == ["00000001.json", "00000002.json"]


def test_a_file_at_the_address_is_never_overwritten(make):
    """A plain file where the artifact should stand is refused."""
    store = make(overwrite=True)
    Path(store.root).mkdir()
    Path(store.resolve("m")).write_bytes(b"mine")
    with pytest.raises(InputError, match="is not an artifact"):
        publish(store, "m", NEW, "f2")
    assert Path(store.resolve("m")).read_bytes() == b"mine"


def test_an_empty_directory_may_become_an_artifact(store):
    """A mounted or prepared empty directory is a free place."""
    Path(store.resolve("m"), "sub").mkdir(parents=True)
    publish(store, "m", OLD, "f1")
    assert content(store, "m") == OLD


def test_bytes_changed_in_place_are_found_with_size_and_time_kept(store):
    """The memory of what was hashed does not hide a change that kept size and modification time."""
    publish(store, "m", OLD, "f1")
    path = store.open("m").path / "model.bin"
    before = path.stat()
    with path.open("r+b") as stream:
        stream.write(b"X")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ArtifactCorrupt):
        store.open("m")


def test_links_that_leave_the_directory_are_refused(store, tmp_path):
    """A file that was replaced by a link to elsewhere is not read, even with the right bytes."""
    publish(store, "m", OLD, "f1")
    path = store.open("m").path / "model.bin"
    shutil.move(path, tmp_path / "outside.bin")
    path.symlink_to(tmp_path / "outside.bin")
    with pytest.raises(ArtifactCorrupt, match="symbolic link"):
        store.open("m")


def _hold_work(root, entered, leave):
    with LocalStore(root).work("abc"):
        entered.set()
        leave.wait(20)


def test_a_work_area_has_one_live_owner(tmp_path):
    """Another live process makes `work` say so (exit 75); a killed one does not."""
    spawn = multiprocessing.get_context("fork")
    entered, leave = spawn.Event(), spawn.Event()
    process = spawn.Process(target=_hold_work, args=(str(tmp_path), entered, leave))
    process.start()
    assert entered.wait(20)
    store = open_store(str(tmp_path))
    with pytest.raises(Interrupted, match=rf"process {process.pid} on ") as caught, store.work("abc"):
        pass
    assert caught.value.code == 75
    process.kill()
    process.join()
    with store.work("abc") as work:
        assert work.path.is_dir()


def test_gc_takes_what_is_dead_and_leaves_what_lives(make):
    """Scratch of live processes, unfinished work and artifacts stay; old work, old caches, finished work go."""
    store = make()
    publish(store, "m", OLD, "f1")
    area = Path(store.root, ".nearer")
    write(area, {"scratch/20200101T000000Z-dead/x": b"12345", "staging/20200101T000000Z-dead/y": b"123"})
    write(area, {"work/f1/step-1": b"1", "work/f2/step-1": b"12", "cache/vectors/s": b"1234"})
    write(area, {"work/f3/step-1": b"1", "cache/old/s": b"123456"})
    for name in ("work/f3/step-1", "cache/old/s", "scratch/20200101T000000Z-dead/x", "staging/20200101T000000Z-dead/y"):
        os.utime(area / name, (0, 0))
    with store.scratch() as live:
        write(live, {"a": b"1"})
        expected = {
            "cache/old": 6,
            "scratch/20200101T000000Z-dead": 5,
            "staging/20200101T000000Z-dead": 3,
            "work/f1": 1,
            "work/f3": 1,
        }
        listed = store.gc(remove=False)
        assert {item.key.removeprefix(f"{area}/"): item.size for item in listed} == expected
        assert [item.size for item in listed] == sorted(expected.values(), reverse=True)
        assert (area / "cache/old/s").exists()
        assert store.gc(remove=True) == listed
        assert (live / "a").exists()
    assert store.gc(remove=False) == ()
    assert {name for name in tree(area) if "claims" not in name} == {"work/f2/step-1", "cache/vectors/s"}
    assert content(store, "m") == OLD


def _as_nobody(root, results):
    if os.geteuid() == 0:
        os.setuid(65534)
    outcomes = []
    for address, overwrite in (("n", False), ("m", True)):
        try:
            job(LocalStore(root, overwrite=overwrite), "f22", NEW, address=address)
        except OSError as error:
            outcomes.append((type(error).__name__, from_os_error(error).code))
    readable = content(LocalStore(root), "m") == OLD
    results.put((outcomes, readable))


def test_no_permission_is_told_and_reading_still_works():
    """Who may not write gets a PermissionError with words (exit 2), changes nothing, and can read all the same."""
    top = Path(tempfile.mkdtemp())  # pytest's own directories are closed to other users
    try:
        top.chmod(0o755)
        store = LocalStore(str(top / "root"))
        job(store, "f1", OLD, address="m")
        before = tree(top)
        for path in (top, *top.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        context = multiprocessing.get_context("fork")
        results = context.Queue()
        process = context.Process(target=_as_nobody, args=(str(top / "root"), results))
        process.start()
        assert results.get(timeout=20) == ([("PermissionError", 2)] * 2, True)
        process.join()
        assert tree(top) == before
    finally:
        for path in (top, *top.rglob("*")):
            path.chmod(0o755)
        shutil.rmtree(top)


def _with_small_files_only(root, results):
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        job(LocalStore(root, overwrite=True), "f22", {"big.bin": b"x" * 10_000})
    except OSError as error:
        results.put((error.errno, from_os_error(error).code))


def test_a_real_limit_of_the_operating_system_leaves_everything_whole(tmp_path):
    """A build that meets the file size limit ends in exit 2 and leaves artifact and area as they were."""
    store = LocalStore(str(tmp_path))
    job(store, "f1", OLD)
    before = tree(tmp_path)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    process = context.Process(target=_with_small_files_only, args=(str(tmp_path), results))
    process.start()
    assert results.get(timeout=20) == (errno.EFBIG, 2)
    process.join()
    assert tree(tmp_path) == before
