"""An address's country without a network: the built-in data, or an .mmdb file."""

from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from config import ConfigError
from console import country

TEXT, UINT16, UINT32, MAP = 2, 5, 6, 7  # types in the .mmdb format


@pytest.fixture(autouse=True)
def _built_in_afterwards() -> Iterator[None]:
    yield
    country.use_database(None)


@pytest.mark.parametrize(
    "address, code", [("8.8.8.8", "US"), ("2001:4860:4860::8888", "US"), ("81.2.69.142", "GB")]
)
def test_a_public_address_has_a_country(address: str, code: str) -> None:
    assert country.of(address) == code
    assert not country.is_private(address)


@pytest.mark.parametrize(
    "address",
    ["10.0.0.5", "172.16.0.1", "192.168.1.1", "127.0.0.1", "169.254.1.1", "100.64.0.1", "0.0.0.0",
     "::1", "fe80::1", "fc00::1"],
)  # fmt: skip
def test_a_private_address_has_none(address: str) -> None:
    assert country.of(address) is None
    assert country.is_private(address)


def test_an_unknown_address_has_none_and_is_not_private() -> None:
    assert country.of(None) is None
    assert not country.is_private(None)


RECORDS: dict[str, tuple[Any, str | None]] = {
    "as MaxMind writes it": ({"country": {"iso_code": "SE", "geoname_id": "1"}}, "SE"),
    "flat": ({"country_code": "SE"}, "SE"),
    "another shape": ({"asn": "AS1"}, None),
    "a country without a code": ({"country": {"name": "Sweden"}}, None),
    "a code that is no text": ({"country_code": {"a": "b"}}, None),
    "no map at all": ("SE", None),
}


@pytest.mark.parametrize("record, code", RECORDS.values(), ids=RECORDS.keys())
def test_a_file_takes_the_place_of_the_built_in_data(
    tmp_path: Path, record: Any, code: str | None
) -> None:
    country.use_database(mmdb(tmp_path, "81.2.69.0/24", record))
    assert country.of("81.2.69.142") == code
    assert country.of("8.8.8.8") is None
    country.use_database(None)
    assert country.of("81.2.69.142") == "GB"


def test_a_private_address_is_private_whatever_the_file_says(tmp_path: Path) -> None:
    country.use_database(mmdb(tmp_path, "10.0.0.0/8", {"country_code": "SE"}))
    assert country.of("10.0.0.5") is None


def test_an_ipv6_address_in_a_file_of_ipv4_alone_is_unknown(tmp_path: Path) -> None:
    country.use_database(mmdb(tmp_path, "81.2.69.0/24", {"country_code": "SE"}))
    assert country.of("2001:4860:4860::8888") is None


@pytest.mark.parametrize("content", [b"", b"no database", b"\xab\xcd\xefMaxMind.com"])
def test_a_file_of_another_format_stops_the_start(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "country.mmdb"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"LATCHKEY_GEOIP_DATABASE='{path}' makes no sense"):
        country.use_database(path)


def mmdb(tmp_path: Path, network: str, record: Any) -> Path:
    """A MaxMind DB (format 2.0, IPv4) in which one network has a record."""
    where = IPv4Network(network)
    nodes = where.prefixlen
    tree = b""
    for depth in range(nodes):
        found = nodes + 16 if depth == nodes - 1 else depth + 1
        bit = int(where.network_address) >> (31 - depth) & 1
        tree += b"".join((found if side == bit else nodes).to_bytes(3, "big") for side in (0, 1))
    facts = {
        "database_type": encoded("Test"),
        "node_count": bytes([UINT32 << 5 | 4]) + nodes.to_bytes(4, "big"),
        "record_size": number(24),
        "ip_version": number(4),
        "binary_format_major_version": number(2),
        "binary_format_minor_version": number(0),
        "build_epoch": bytes([1, 2, 1]),  # a 64-bit 1
        "languages": bytes([0, 4]),  # an empty list
        "description": encoded({}),
    }
    metadata = bytes([MAP << 5 | len(facts)])
    metadata += b"".join(encoded(name) + value for name, value in facts.items())
    path = tmp_path / "country.mmdb"
    path.write_bytes(tree + bytes(16) + encoded(record) + b"\xab\xcd\xefMaxMind.com" + metadata)
    return path


def encoded(value: Any) -> bytes:
    """Text or a map of texts in the format's data section; sizes up to 28."""
    if isinstance(value, str):
        return bytes([TEXT << 5 | len(value)]) + value.encode()
    pairs = b"".join(encoded(name) + encoded(inner) for name, inner in value.items())
    return bytes([MAP << 5 | len(value)]) + pairs


def number(value: int) -> bytes:
    return bytes([UINT16 << 5 | 2]) + value.to_bytes(2, "big")
