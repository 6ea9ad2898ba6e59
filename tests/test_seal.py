"""What is sealed opens with its own key and for its own purpose alone."""

import pytest

from console.seal import Broken, Seal, derive


def test_what_is_sealed_opens_again_and_never_looks_the_same() -> None:
    seal = Seal(derive("secret", "tests")[0])
    first, second = seal.close(b"content", "row"), seal.close(b"content", "row")
    assert seal.open(first, "row") == seal.open(second, "row") == b"content"
    assert first != second and b"content" not in first + second


@pytest.mark.parametrize(
    ("secret", "purpose", "salt"),
    [("Secret", "tests", ""), ("secret", "test", ""), ("secret", "tests", "salt")],
)
def test_another_secret_purpose_or_salt_opens_nothing(secret: str, purpose: str, salt: str) -> None:
    sealed = Seal(derive("secret", "tests")[0]).close(b"content", "row")
    with pytest.raises(Broken):
        Seal(derive(secret, purpose, salt=salt)[0]).open(sealed, "row")


def test_what_was_sealed_as_something_else_or_changed_does_not_open() -> None:
    seal = Seal(derive("secret", "tests")[0])
    sealed = seal.close(b"content", "row")
    altered = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for changed, about in ((sealed, "other"), (altered, "row"), (b"", "row")):
        with pytest.raises(Broken):
            seal.open(changed, about)


def test_several_keys_of_one_secret_differ() -> None:
    first, second = derive("secret", "tests", keys=2)
    assert len(first) == len(second) == 32 and first != second
