"""The string that a client presents: its shapes, its checksum, and what is kept of it."""

import hashlib
import re

import pytest

from console import secret
from console.secret import ALPHABET, BASE62, HEX32

# GitHub's published example of the same checksum, over the body alone.
GITHUB_BODY, GITHUB_CHECKSUM = "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ", "0mLq17"

HEADS = ("lk_live_", "lk_test_", "vctl_", "vsp_sk_", "a_", "sixteencharacter_test_")


def base62(head: str) -> str:
    """The same secret every time."""
    return head + GITHUB_BODY + secret.checksum(head + GITHUB_BODY)


def test_the_checksum_is_crc32_in_base62_as_github_publishes_it() -> None:
    assert secret.checksum(GITHUB_BODY) == GITHUB_CHECKSUM


def test_the_checksum_is_padded_to_six_digits() -> None:
    assert secret.checksum("") == "000000"


def test_the_checksum_covers_the_prefix_too() -> None:
    assert secret.checksum("lk_live_" + GITHUB_BODY) != GITHUB_CHECKSUM
    assert not secret.is_well_formed("lk_live_" + GITHUB_BODY + GITHUB_CHECKSUM)


def test_live_turned_into_test_is_malformed() -> None:
    live = base62("lk_live_")
    assert secret.is_well_formed(live)
    assert not secret.is_well_formed(live.replace("_live_", "_test_"))


SHAPES = {
    "default, live": (("lk", "live", BASE62), r"lk_live_[0-9A-Za-z]{36}"),
    "default, test": (("lk", "test", BASE62), r"lk_test_[0-9A-Za-z]{36}"),
    "vp_live": (("vp", "live", BASE62), r"vp_live_[0-9A-Za-z]{36}"),
    "sk_live": (("sk", "live", BASE62), r"sk_live_[0-9A-Za-z]{36}"),
    "sk_test": (("sk", "test", BASE62), r"sk_test_[0-9A-Za-z]{36}"),
    "vctl, no environment": (("vctl", None, BASE62), r"vctl_[0-9A-Za-z]{36}"),
    "vsp_sk, no environment": (("vsp_sk", None, BASE62), r"vsp_sk_[0-9A-Za-z]{36}"),
    "vc, hex32": (("vc", None, HEX32), r"vc_[0-9a-f]{32}"),
    "hex32 never shows the environment": (("vc", "live", HEX32), r"vc_[0-9a-f]{32}"),
    "longest prefix with environment": (("a" * 16, "test", BASE62), r"a{16}_test_[0-9A-Za-z]{36}"),
    "longest prefix without": (("abcd_efgh_ijkl_mnopq", None, BASE62), r"\w{20}_[0-9A-Za-z]{36}"),
}


@pytest.mark.parametrize("parts, pattern", SHAPES.values(), ids=SHAPES.keys())
def test_a_minted_secret_has_its_projects_shape(
    parts: tuple[str, str | None, str], pattern: str
) -> None:
    text = secret.mint(*parts)
    assert re.fullmatch(pattern, text)
    assert secret.is_well_formed(text)


def test_no_two_minted_secrets_are_alike() -> None:
    assert len({secret.mint("lk", "live") for _ in range(1_000)}) == 1_000


def test_a_minted_body_uses_the_whole_alphabet() -> None:
    bodies = "".join(secret.mint("lk", "live")[8:38] for _ in range(200))
    assert set(bodies) == set(ALPHABET)


@pytest.mark.parametrize("head", HEADS)
def test_every_change_of_one_character_is_malformed(head: str) -> None:
    text = base62(head)
    assert secret.is_well_formed(text)
    for at, character in enumerate(text):
        for other in set(ALPHABET + "_- .") - {character}:
            assert not secret.is_well_formed(text[:at] + other + text[at + 1 :])


@pytest.mark.parametrize("head", HEADS)
def test_a_character_lost_doubled_or_swapped_is_malformed(head: str) -> None:
    text = base62(head)
    for at in range(len(text)):
        assert not secret.is_well_formed(text[:at] + text[at + 1 :])
        assert not secret.is_well_formed(text[:at] + text[at] + text[at:])
        swapped = text[:at] + text[at : at + 2][::-1] + text[at + 2 :]
        assert swapped == text or not secret.is_well_formed(swapped)


MALFORMED = {
    "empty": "",
    "prefix alone": "lk_live_",
    "no prefix": GITHUB_BODY + GITHUB_CHECKSUM,
    "underscore first": "_" + GITHUB_BODY + GITHUB_CHECKSUM,
    "capital prefix": base62("LK_live_"),
    "digit first": base62("1k_live_"),
    "prefix too long": base62("abcdefghijklmnopqrstuvwxyz_live_"),
    "space before": " " + base62("lk_live_"),
    "newline after": base62("lk_live_") + "\n",
    "two of them": base62("lk_live_") * 2,
    "hex32 a digit short": "vc_" + "a" * 31,
    "hex32 a digit long": "vc_" + "a" * 33,
    "hex32 in capitals": "vc_" + "A" * 32,
    "hex32 with a g": "vc_" + "a" * 31 + "g",
    "Arabic digits": "vc_" + "\u0663" * 32,
    "half a surrogate pair": "vc_" + "\ud800" * 32,
    "very long": "a" * 1_000_000,
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED.keys())
def test_anything_of_another_shape_is_malformed(text: str) -> None:
    assert not secret.is_well_formed(text)


def test_the_digest_is_sha_256_of_the_whole_secret() -> None:
    text = base62("lk_live_")
    assert secret.digest(text) == hashlib.sha256(text.encode()).hexdigest()
    assert secret.digest(text[:-1]) != secret.digest(text)


def test_twelve_characters_are_kept_for_recognition() -> None:
    assert secret.visible_prefix(base62("lk_live_")) == "lk_live_zQWB"


def test_ids_are_random_and_say_what_they_name() -> None:
    ids = {secret.random_id("key") for _ in range(1_000)}
    assert len(ids) == 1_000
    assert all(re.fullmatch(r"key_[0-9A-Za-z]{20}", one) for one in ids)


@pytest.mark.parametrize("environment", ["live", None])
@pytest.mark.parametrize("key_format", secret.FORMATS)
def test_a_secret_in_a_text_is_masked_and_nothing_else(
    environment: str | None, key_format: str
) -> None:
    text = secret.mint("sk", environment if key_format == secret.BASE62 else None, key_format)
    assert secret.masked(f"/hook/{text}/{text}.json") == f"/hook/{text[:12]}…/{text[:12]}….json"
    for other in (f"/v1/{text[:-1]}", "/v1/tasks", "sk_live_" + "0" * 36):
        assert secret.masked(other) == other
