"""The exit-code table and the words of an error."""

import errno

import pytest

from nearer import errors


def test_every_error_class_has_a_code_of_the_table() -> None:
    """No failure leaves with a number that the table does not explain."""
    known = {line.code for line in errors.EXIT_CODES}
    classes = [
        item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, errors.NearerError)
    ]
    assert len(classes) >= 10
    assert {item.code for item in classes} <= known
    assert len(known) == len(errors.EXIT_CODES)


def test_the_tree_drawn_in_the_docstring_is_the_tree() -> None:
    """Each class of the module stands in its drawing."""
    for item in vars(errors).values():
        if isinstance(item, type) and issubclass(item, errors.NearerError):
            assert item.__name__ in (errors.__doc__ or "")


def test_an_error_shows_what_where_rule_and_way_out() -> None:
    """In this order, one line each, parts that are missing left out."""
    error = errors.InputError("val_split is 1.5", where="a.yaml:3", rule="less than 1", way_out="use 0.1")
    assert str(error) == "val_split is 1.5\n  where:   a.yaml:3\n  rule:    less than 1\n  way out: use 0.1"
    assert str(errors.InputError("x", rule="y")) == "x\n  rule:    y"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENOENT])
def test_failures_of_the_file_system_are_the_users_to_mend(number: int) -> None:
    """Disk full, no permission, read-only, missing: exit 2 with the path and the way out."""
    told = errors.from_os_error(OSError(number, "said the system", "/some/where"))
    assert told is not None
    assert told.code == 2
    assert "/some/where" in str(told)
    assert "way out" in str(told)


def test_other_system_errors_stay_faults() -> None:
    """What nearer cannot explain is not called the user's."""
    assert errors.from_os_error(OSError(errno.EDEADLK, "deadlock")) is None
