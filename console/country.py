"""An address's country, looked up offline: the registries' data, or an .mmdb file."""

from ipaddress import ip_address
from pathlib import Path

import iptocc
import maxminddb

PRIVATE = "Private network"
UNKNOWN = "Unknown"

_database: maxminddb.Reader | None = None


def use_database(path: Path | None) -> None:
    """Reads countries from this .mmdb file from now on; None for the built-in data."""
    global _database
    _database = maxminddb.open_database(path) if path else None


def of(address: str | None) -> str | None:
    """The ISO 3166 code of the (unwrapped) address's country; None for private or unknown ones."""
    if address is None or not ip_address(address).is_global:
        return None
    if _database is None:
        return iptocc.country_code(address)
    return _code_in(_database.get(address))


def _code_in(record: object) -> str | None:
    """The code in an .mmdb record: nested as MaxMind writes it, or flat."""
    if not isinstance(record, dict):
        return None
    country = record.get("country")
    code = country.get("iso_code") if isinstance(country, dict) else record.get("country_code")
    return code if isinstance(code, str) else None


def is_private(address: str | None) -> bool:
    return address is not None and not ip_address(address).is_global
