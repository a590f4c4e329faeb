import weakref

from nearer import process


class Circle:
    """Refers to itself, as models and trainers do."""

    def __init__(self) -> None:
        self.itself = self


def test_released_memory_includes_what_refers_to_itself() -> None:
    """An unused object that only a circle keeps alive is gone after the release."""
    there = weakref.ref(Circle())
    process.release_memory()
    assert there() is None


def test_memory_is_released_without_glibc(monkeypatch) -> None:
    """Where the C library cannot trim its heap, the collector still runs."""
    monkeypatch.setattr(process.ctypes, "CDLL", lambda _name: object())
    there = weakref.ref(Circle())
    process.release_memory()
    assert there() is None


def test_waiting_threads_sleep_unless_the_user_says_otherwise(monkeypatch) -> None:
    """OMP_WAIT_POLICY is set where it is not, and left alone where it is."""
    environ: dict[str, str] = {}
    monkeypatch.setattr(process.os, "environ", environ)
    process.share_cores()
    assert environ == {"OMP_WAIT_POLICY": "PASSIVE"}
    environ["OMP_WAIT_POLICY"] = "ACTIVE"
    process.share_cores()
    assert environ == {"OMP_WAIT_POLICY": "ACTIVE"}
