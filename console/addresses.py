"""IP addresses: how they are written, which list covers one, and whose address a request carries.

IPv4 addresses mapped into IPv6 (`::ffff:10.0.0.5`) are unwrapped everywhere, so that a list
means the same whichever way the server listens.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

ALLOWLIST_MAX = 50
REMEMBERED_LENGTH = 100  # of a header: longer ones are rare, and would fill the memory
MAPPED = IPv6Network("::ffff:0:0/96")


def parse_address(text: str) -> Address:
    """One IPv4 or IPv6 address, unwrapped. Raises ValueError; zone ids (`%eth0`) are refused."""
    address = ip_address(text.strip())
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise ValueError(f"{text} carries a zone id")
        return address.ipv4_mapped or address
    return address


@lru_cache(maxsize=10_000)
def counted_as(text: str) -> str:
    """The address by which somebody is counted: of IPv6 the first of its /64, which is one's own
    whole. Text that is no address as it is."""
    try:
        address = parse_address(text)
    except ValueError:
        return text
    if isinstance(address, IPv6Address):
        return str(ip_network(f"{address}/64", strict=False).network_address)
    return str(address)


def parse_network(text: str) -> Network:
    """An address or CIDR. Raises ValueError with what to write instead."""
    text = text.strip()
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"{_shown(text)} is not an IP address or a network such as 10.0.0.0/24"
        ) from None
    if "%" in text:
        raise ValueError(f"{_shown(text)}: leave out the zone id")
    host, _, length = text.partition("/")
    if length and ip_address(host) != network.network_address:
        raise ValueError(
            f"{text} has bits set beyond the network: write {network}, or {host} for one address"
        )
    if isinstance(network, IPv6Network) and network.subnet_of(MAPPED):
        first = network.network_address.ipv4_mapped
        return IPv4Network((int(first or 0), network.prefixlen - 96))
    return network


def _shown(text: str) -> str:
    """What was typed, short and on one line."""
    return repr(text[:60])


def canonical(network: Network) -> str:
    """`10.0.0.5` for a single address, `10.0.0.0/24` for a network."""
    return str(network.network_address if network.num_addresses == 1 else network)


def parse_allowlist(items: Iterable[str]) -> list[str]:
    """Canonical entries, without repeats, in the given order. Raises ValueError."""
    entries = list(dict.fromkeys(canonical(parse_network(item)) for item in items))
    if len(entries) > ALLOWLIST_MAX:
        raise ValueError(
            f"{len(entries)} different entries; at most {ALLOWLIST_MAX} are allowed: "
            "join neighbours into networks such as 10.0.0.0/24"
        )
    return entries


def count(networks: Iterable[str]) -> int:
    """How many different addresses stored networks hold together."""
    parsed = [ip_network(network) for network in networks]
    v4 = collapse_addresses([one for one in parsed if isinstance(one, IPv4Network)])
    v6 = collapse_addresses([one for one in parsed if isinstance(one, IPv6Network)])
    return sum(one.num_addresses for one in v4) + sum(one.num_addresses for one in v6)


def covered(address: str | None, networks: Iterable[str]) -> bool:
    """Whether the address lies in one of the networks; an unknown address never does."""
    if address is None:
        return False
    known = parse_address(address)
    return lies_in(known, map(_stored_network, networks))


@lru_cache(maxsize=10_000)
def _stored_network(text: str) -> Network:
    return ip_network(text)


@lru_cache(maxsize=1_000)
def is_one_of(peer: str, networks: Sequence[Network]) -> bool:
    """Whether the peer of a connection is one of these; a Unix socket, without address, is not."""
    try:
        return lies_in(parse_address(peer), networks)
    except ValueError:
        return False


def lies_in(address: Address, networks: Iterable[Network]) -> bool:
    """Whether one of the networks holds the address; one of the other IP version never does."""
    return any(address in network for network in networks)


def client_address(peer: str | None, forwarded_for: str, trusted: Sequence[Network]) -> str | None:
    """The client's address: the peer, or what trusted proxies say of it (X-Forwarded-For).

    Walks from the right, past addresses of trusted proxies, to the first other one. What a
    stranger wrote further left is never reached. Where a trusted proxy names something that is
    no address, the client's is not known (None): the proxy's own must not open an allowlist.
    """
    if len(forwarded_for) > REMEMBERED_LENGTH:
        return _walk(peer, forwarded_for, trusted)
    return _walked(peer, forwarded_for, trusted)


def _walk(peer: str | None, forwarded_for: str, trusted: Sequence[Network]) -> str | None:
    try:
        client = parse_address(peer or "")
        hops = forwarded_for.split(",") if forwarded_for.strip() else []
        while hops and lies_in(client, trusted):
            client = parse_address(_without_port(hops.pop()))
    except ValueError:
        return None
    return str(client)


_walked = lru_cache(maxsize=10_000)(_walk)


def _without_port(hop: str) -> str:
    """`203.0.113.5:4711` and `[2001:db8::1]:443` without their ports and brackets."""
    hop = hop.strip()
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    if hop.count(":") == 1:
        return hop.partition(":")[0]
    return hop
