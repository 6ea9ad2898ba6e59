"""What a permission looks like, what meets what, and which of them are Latchkey's own."""

import pytest

from console import permissions
from console.permissions import ADMIN, CONSOLE

MET = {
    "itself": ("tasks:read", "tasks:read", True),
    "another action": ("tasks:write", "tasks:read", False),
    "another subject": ("users:read", "tasks:read", False),
    "all actions of the subject": ("tasks:*", "tasks:read", True),
    "all actions of another subject": ("users:*", "tasks:read", False),
    "a subject that only begins alike": ("task:*", "tasks:read", False),
    "*": ("*", "tasks:read", True),
    "*:*": ("*:*", "tasks:read", True),
    "admin:*": ("admin:*", "tasks:read", True),
    "one admin permission is no admin:*": ("admin:read", "tasks:read", False),
    "case counts": ("Tasks:Read", "tasks:read", False),
    "a wildcard asked for and held": ("tasks:*", "tasks:*", True),
    "a wildcard is more than one action": ("tasks:read", "tasks:*", False),
    "all is more than one subject": ("tasks:*", "*", False),
    "all is more than one subject, longer": ("tasks:*", "*:*", False),
    "* meets *:*": ("*", "*:*", True),
    "*:* meets *": ("*:*", "*", True),
    "* meets admin:*": ("*", "admin:*", True),
    "admin:* is more than one subject": ("tasks:*", "admin:*", False),
    "three parts, itself": ("shop:orders:read", "shop:orders:read", True),
    "three parts, by the first": ("shop:*", "shop:orders:read", True),
    "three parts, by the second": ("shop:orders:*", "shop:orders:read", True),
    "three parts, by another second": ("shop:users:*", "shop:orders:read", False),
    "the longer is more than the shorter": ("shop:orders:*", "shop:orders", False),
    "keys:manage reads": ("keys:manage", "keys:read", True),
    "keys:manage writes": ("keys:manage", "keys:write", True),
    "keys:manage does not verify": ("keys:manage", "keys:verify", False),
    "keys:* verifies": ("keys:*", "keys:verify", True),
    "keys:* manages": ("keys:*", "keys:manage", True),
    "keys:write does not read": ("keys:write", "keys:read", False),
    "keys:read does not manage": ("keys:read", "keys:manage", False),
    "keys:write does not manage": ("keys:write", "keys:manage", False),
}


@pytest.mark.parametrize("held, required, expected", MET.values(), ids=MET.keys())
def test_a_held_permission_meets_a_required_one(held: str, required: str, expected: bool) -> None:
    assert permissions.met([held], required) is expected
    assert permissions.met(["other:thing", held], required) is expected


def test_nothing_held_meets_nothing() -> None:
    assert not permissions.met([], "tasks:read")


def test_reading_and_writing_together_are_managing() -> None:
    assert permissions.met(["keys:read", "keys:write"], "keys:manage")


def test_all_required_ones_must_be_met_and_the_missing_are_named_in_order() -> None:
    required = ["users:write", "tasks:read", "billing:read"]
    assert permissions.missing(["tasks:*"], required) == ("users:write", "billing:read")
    assert permissions.missing(["tasks:read", "users:*", "billing:read"], required) == ()
    assert permissions.missing([], []) == ()


OWN = {
    "a team's own words": (["tasks:read", "tasks:*", "key:read", "keyss:*"], ()),
    "one": (["keys:read", "tasks:read"], ("keys:read",)),
    "keys:manage is three": (["keys:manage"], ("keys:read", "keys:write", "keys:manage")),
    "keys:*": (["keys:*"], ("keys:read", "keys:write", "keys:manage", "keys:verify")),
    "audit:*": (["audit:*"], ("audit:read",)),
    "*": (["*"], CONSOLE),
    "*:*": (["*:*"], CONSOLE),
    "admin:*": ([ADMIN], CONSOLE),
    "none": ([], ()),
}


@pytest.mark.parametrize("held, own", OWN.values(), ids=OWN.keys())
def test_wildcards_are_unfolded_into_latchkeys_own(held: list[str], own: tuple[str, ...]) -> None:
    assert set(permissions.console_permissions(held)) == set(own)


@pytest.mark.parametrize(
    "text",
    ["tasks:read", "tasks:*", "*", "*:*", "admin:*", "a:b", "a:b:c", "a:b:*", "v1.2/tasks:read-all",
     "Tasks:READ", "t_1:r_2", "1:2", "a" * 98 + ":b"],
)  # fmt: skip
def test_a_permission_may_be(text: str) -> None:
    assert permissions.parse([f" {text} "]) == [text]


@pytest.mark.parametrize(
    "text",
    ["", " ", "tasks", "tasks:", ":read", "*:read", "tasks:*:read", "tasks:**", "tasks:r*", "**",
     "a b:c", "a:b c", "a,b:c", "a::b", "a:b:", "tasks:read\nadmin:*", "t\u00e4sks:read",
     "tasks:\u202eread", "tasks:read\0", "-a:b", "a" * 99 + ":b", "\ud800:read"],
)  # fmt: skip
def test_another_is_refused_by_name_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"must look like tasks:read, tasks:\* or \*") as refusal:
        permissions.parse(["tasks:read", text])
    assert str(refusal.value).startswith(repr(text.strip()[:60]))


def test_repeats_do_not_count_and_the_order_is_kept() -> None:
    assert permissions.parse(["b:x", "a:x", " b:x ", "a:x"]) == ["b:x", "a:x"]


def test_a_hundred_are_allowed() -> None:
    hundred = [f"tasks:{n}" for n in range(100)]
    assert permissions.parse(hundred * 2) == hundred
    with pytest.raises(ValueError, match="at most 100 are allowed"):
        permissions.parse([*hundred, "tasks:more"])
