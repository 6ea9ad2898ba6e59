"""What an allowlist may hold and what it covers, and whose address a forwarded request carries."""

from ipaddress import ip_network

import pytest

from console import addresses

CANONICAL = {
    "10.0.0.5": "10.0.0.5",
    " 10.0.0.5 ": "10.0.0.5",
    "10.0.0.5/32": "10.0.0.5",
    "10.0.0.0/24": "10.0.0.0/24",
    "10.0.0.0/255.255.255.0": "10.0.0.0/24",
    "0.0.0.0/0": "0.0.0.0/0",
    "::/0": "::/0",
    "2001:DB8::1": "2001:db8::1",
    "2001:0db8:0000::0001/128": "2001:db8::1",
    "2001:db8::/32": "2001:db8::/32",
    "::ffff:10.0.0.5": "10.0.0.5",
    "::ffff:a00:5/128": "10.0.0.5",
    "::ffff:10.0.0.0/120": "10.0.0.0/24",
    "::ffff:0:0/96": "0.0.0.0/0",
}


@pytest.mark.parametrize("text, entry", CANONICAL.items())
def test_an_entry_is_stored_in_its_one_form(text: str, entry: str) -> None:
    assert addresses.parse_allowlist([text]) == [entry]


@pytest.mark.parametrize(
    "text",
    ["", " ", "localhost", "10.0.0", "10.0.0.256", "01.2.3.4", "10.0.0.5:443", "10.0.0.0/33",
     "10.0.0.0/", "10.0.0.0/-1", "/24", "10.0.0.0 /24", "10.0.0.1-10.0.0.9", "10.0.0.*", "2001:db8",
     "2001:db8::/129", "[::1]", "::1::", "\u0661.2.3.4", "1" * 10_000],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="is not an IP address or a network such as") as refusal:
        addresses.parse_allowlist([text])
    assert len(str(refusal.value)) < 200


HOST_BITS = {
    "10.0.0.5/24": "10.0.0.0/24",
    "192.168.1.1/16": "192.168.0.0/16",
    "10.0.0.5/255.0.0.0": "10.0.0.0/8",
    "2001:db8::5/64": "2001:db8::/64",
}


@pytest.mark.parametrize("text, network", HOST_BITS.items())
def test_host_bits_are_refused_and_the_network_offered(text: str, network: str) -> None:
    host = text.partition("/")[0]
    with pytest.raises(ValueError, match=f"write {network}, or {host} for one address"):
        addresses.parse_allowlist([text])
    assert addresses.parse_allowlist([network, host])


@pytest.mark.parametrize("text", ["fe80::1%eth0", "fe80::1%eth0/64", "fe80::%eth0/64"])
def test_a_zone_id_is_refused_as_such(text: str) -> None:
    with pytest.raises(ValueError, match="leave out the zone id"):
        addresses.parse_allowlist([text])


def test_fifty_entries_are_allowed_and_repeats_do_not_count() -> None:
    fifty = [f"10.0.0.{n}" for n in range(50)]
    mapped = [f"::ffff:{address}" for address in fifty]
    assert addresses.parse_allowlist([*fifty, *mapped, *fifty]) == fifty
    with pytest.raises(ValueError, match="51 different entries; at most 50 are allowed"):
        addresses.parse_allowlist([*fifty, "10.0.0.50"])


def test_the_given_order_is_kept() -> None:
    assert addresses.parse_allowlist(["10.0.0.9", "10.0.0.1"]) == ["10.0.0.9", "10.0.0.1"]


COVERED = {
    "the address itself": ("10.0.0.5", "10.0.0.5", True),
    "its neighbour": ("10.0.0.6", "10.0.0.5", False),
    "first of a network": ("10.0.0.0", "10.0.0.0/24", True),
    "last of a network": ("10.0.0.255", "10.0.0.0/24", True),
    "one past it": ("10.0.1.0", "10.0.0.0/24", False),
    "mapped": ("::ffff:10.0.0.5", "10.0.0.0/24", True),
    "v6": ("2001:db8::9", "2001:db8::/64", True),
    "v6, another network": ("2001:db8:0:1::9", "2001:db8::/64", False),
    "all of v6 holds no v4": ("10.0.0.5", "::/0", False),
    "all of v4 holds no v6": ("2001:db8::9", "0.0.0.0/0", False),
    "unknown": (None, "0.0.0.0/0", False),
}


@pytest.mark.parametrize("address, network, expected", COVERED.values(), ids=COVERED.keys())
def test_a_list_covers_what_lies_inside_it(
    address: str | None, network: str, expected: bool
) -> None:
    assert addresses.covered(address, ["192.0.2.1", network]) is expected


def test_an_empty_list_covers_nothing() -> None:
    assert not addresses.covered("10.0.0.5", [])


# Whom the installation trusts: a proxy on this machine, and a tier of them in 10.1.0.0/16.
TRUSTED = tuple(ip_network(text) for text in ("127.0.0.1/32", "::1/128", "10.1.0.0/16"))
LOCAL, CLIENT, SPOOFED = "127.0.0.1", "203.0.113.9", "198.51.100.66"

FORWARDED = {
    # the peer decides whether the header is looked at
    "no header": (LOCAL, "", LOCAL),
    "header of spaces": (LOCAL, "  ", LOCAL),
    "one hop": (LOCAL, CLIENT, CLIENT),
    "peer not trusted": (CLIENT, SPOOFED, CLIENT),
    "peer not trusted, claims a proxy": (CLIENT, "127.0.0.1", CLIENT),
    "peer not trusted, no header": (CLIENT, "", CLIENT),
    "peer next to a trusted one": ("127.0.0.2", CLIENT, "127.0.0.2"),
    "peer trusted by network": ("10.1.255.255", CLIENT, CLIENT),
    "peer trusted over v6": ("::1", CLIENT, CLIENT),
    "peer mapped": ("::ffff:127.0.0.1", CLIENT, CLIENT),
    "peer mapped, not trusted": ("::ffff:203.0.113.9", SPOOFED, CLIENT),
    "no peer": (None, CLIENT, None),
    "empty peer": ("", CLIENT, None),
    "peer is a socket": ("unix:", CLIENT, None),
    # spoofed and prepended
    "client wrote one before": (LOCAL, f"{SPOOFED}, {CLIENT}", CLIENT),
    "client wrote many before": (LOCAL, f"1.1.1.1, 2.2.2.2, {SPOOFED}, {CLIENT}", CLIENT),
    "client wrote a trusted proxy": (LOCAL, f"10.1.0.1, {CLIENT}", CLIENT),
    "client wrote loopback": (LOCAL, f"127.0.0.1, {CLIENT}", CLIENT),
    "client wrote junk": (LOCAL, f"<script>, {CLIENT}", CLIENT),
    "client wrote commas": (LOCAL, f",,,, {CLIENT}", CLIENT),
    "client wrote its own address": (LOCAL, f"{CLIENT}, {CLIENT}", CLIENT),
    "two headers joined": (LOCAL, f"{SPOOFED},{CLIENT}", CLIENT),
    # several trusted hops
    "two proxies": (LOCAL, f"{CLIENT}, 10.1.0.2", CLIENT),
    "three proxies": (LOCAL, f"{CLIENT}, 10.1.0.3, 10.1.0.2", CLIENT),
    "two proxies and a spoofed hop": (LOCAL, f"{SPOOFED}, {CLIENT}, 10.1.0.2", CLIENT),
    "a stranger between two proxies": (LOCAL, f"10.1.0.3, {CLIENT}, 10.1.0.2", CLIENT),
    "trusted all the way": (LOCAL, "10.1.0.3, 10.1.0.2", "10.1.0.3"),
    "proxy mapped": (LOCAL, f"{CLIENT}, ::ffff:10.1.0.2", CLIENT),
    "50 proxies": (LOCAL, ", ".join([CLIENT, *(f"10.1.0.{n}" for n in range(50))]), CLIENT),
    "50 spoofed hops": (LOCAL, ", ".join([SPOOFED] * 50 + [CLIENT]), CLIENT),
    # how a hop may be written
    "spaces": (LOCAL, f"  {CLIENT}  ", CLIENT),
    "tab": (LOCAL, f"{SPOOFED},\t{CLIENT}", CLIENT),
    "port": (LOCAL, f"{CLIENT}:4711", CLIENT),
    "proxy with a port": (LOCAL, f"{CLIENT}:4711, 10.1.0.2:80", CLIENT),
    "v6": (LOCAL, "2001:db8::9", "2001:db8::9"),
    "v6 in capitals": (LOCAL, "2001:DB8:0::9", "2001:db8::9"),
    "v6 in brackets": (LOCAL, "[2001:db8::9]", "2001:db8::9"),
    "v6 in brackets with a port": (LOCAL, "[2001:db8::9]:443", "2001:db8::9"),
    "mapped": (LOCAL, "::ffff:203.0.113.9", CLIENT),
    "mapped in hex": (LOCAL, "::ffff:cb00:7109", CLIENT),
    "mapped in brackets with a port": (LOCAL, "[::ffff:203.0.113.9]:443", CLIENT),
    # a trusted proxy that names no address leaves the client unknown
    "unknown": (LOCAL, "unknown", None),
    "a socket": (LOCAL, "unix:", None),
    "a name": (LOCAL, "client.example.com", None),
    "junk behind a proxy": (LOCAL, f"{SPOOFED}, junk, 10.1.0.2", None),
    "an empty hop at the end": (LOCAL, f"{SPOOFED}, ", None),
    "an empty hop behind a proxy": (LOCAL, f"{SPOOFED}, , 10.1.0.2", None),
    "zone id": (LOCAL, "fe80::1%eth0", None),
    "leading zero": (LOCAL, "203.0.113.09", None),
    "decimal address": (LOCAL, "3405803785", None),
    "full-width digits": (LOCAL, "\uff12\uff10\uff13.0.113.9", None),
    "empty brackets": (LOCAL, "[]", None),
    "very long": (LOCAL, "9" * 100_000, None),
}


@pytest.mark.parametrize("peer, header, client", FORWARDED.values(), ids=FORWARDED.keys())
def test_the_client_is_the_first_address_from_the_right_that_is_no_trusted_proxys(
    peer: str | None, header: str, client: str | None
) -> None:
    assert addresses.client_address(peer, header, TRUSTED) == client


def test_the_header_means_nothing_where_nobody_is_trusted() -> None:
    assert addresses.client_address(LOCAL, CLIENT, ()) == LOCAL


@pytest.mark.parametrize("text", ["", "10.0.0.0/8", "fe80::1%eth0", "localhost", "10.0.0.5:80"])
def test_one_address_is_one_address(text: str) -> None:
    with pytest.raises(ValueError):
        addresses.parse_address(text)
