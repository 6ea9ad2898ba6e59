"""An address's country, looked up offline: the registries' data, or an .mmdb file."""

from ipaddress import ip_address
from pathlib import Path

import iptocc
import maxminddb
from iso3166 import countries

from config import ConfigError

# Where ISO 3166's own name is not the one in everyday use.
SHORT_NAMES = {
    "BO": "Bolivia", "CD": "DR Congo", "FM": "Micronesia", "GB": "United Kingdom", "IR": "Iran",
    "KP": "North Korea", "KR": "South Korea", "LA": "Laos", "MD": "Moldova", "PS": "Palestine",
    "TW": "Taiwan", "TZ": "Tanzania", "US": "United States", "VE": "Venezuela",
    "VG": "British Virgin Islands", "VI": "U.S. Virgin Islands",
}  # fmt: skip
PRIVATE = "Private network"
UNKNOWN = "Unknown"

_database: maxminddb.Reader | None = None


def use_database(path: Path | None) -> None:
    """Reads countries from this .mmdb file from now on; None for the built-in data.

    Raises ConfigError for a file that is not one.
    """
    global _database
    try:
        _database = maxminddb.open_database(path) if path else None
    except (maxminddb.InvalidDatabaseError, OSError, ValueError):
        raise ConfigError(
            f"LATCHKEY_GEOIP_DATABASE={str(path)!r} makes no sense: "
            "a file in the format .mmdb that can be read is allowed"
        ) from None


def of(address: str | None) -> str | None:
    """The ISO 3166 code of the (unwrapped) address's country; None for private or unknown ones."""
    if address is None or not ip_address(address).is_global:
        return None
    if _database is None:
        return iptocc.country_code(address)
    try:
        return _code_in(_database.get(address))
    except (ValueError, maxminddb.InvalidDatabaseError):
        return None  # an IPv6 address in a file of IPv4 alone; no reason to refuse a request


def _code_in(record: object) -> str | None:
    """The code in an .mmdb record: nested as MaxMind writes it, or flat."""
    if not isinstance(record, dict):
        return None
    country = record.get("country")
    code = country.get("iso_code") if isinstance(country, dict) else record.get("country_code")
    return code if isinstance(code, str) else None


def is_private(address: str | None) -> bool:
    return address is not None and not ip_address(address).is_global


def words_for(code: str | None, address: str | None) -> str:
    """For people: the country's name, or `Private network` or `Unknown` where there is none."""
    if code is None:
        return PRIVATE if is_private(address) else UNKNOWN
    known = countries.get(code, None)
    return SHORT_NAMES.get(code) or (known.name if known else code)
