"""Who sends requests in the demo: clients with their addresses, calls and daily rhythm.

Decides when which client asks for what; whether it may is for the check to say.
"""

import math
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from console import clock
from console.demo.story import (
    BRIEFLY,
    CLUSTER,
    GATEWAY,
    HOME,
    IN_GRACE,
    OFFICE,
    SHOP,
    WAREHOUSE,
)  # fmt: skip
from console.models import LIVE

# --- rhythms ------------------------------------------------------------------------------------


class Rhythm(NamedTuple):
    """How a day (by UTC hour) and a week (from Monday) are shared out."""

    hours: tuple[float, ...]
    days: tuple[float, ...] = (1, 1, 1, 1, 1, 1, 1)

    def weight(self, instant: int) -> float:
        """How much more than on average happens in the hour that begins then."""
        moment = clock.to_datetime(instant)
        by_hour = self.hours[moment.hour] * 24 / sum(self.hours)
        return by_hour * self.weight_of_day(instant)

    def weight_of_day(self, instant: int) -> float:
        return self.days[clock.to_datetime(instant).weekday()] * 7 / sum(self.days)


STEADY = Rhythm((1,) * 24)
SHOPPERS = Rhythm(
    (4, 2, 2, 1, 1, 2, 5, 9, 12, 14, 15, 15, 16, 14, 13, 13, 14, 16, 20, 24, 25, 20, 13, 7),
    (10, 9, 9, 10, 11, 14, 15),
)
WORK = Rhythm(
    (0, 0, 0, 0, 0, 1, 4, 10, 14, 15, 14, 10, 12, 15, 14, 11, 6, 3, 1, 1, 0, 0, 0, 0),
    (10, 11, 11, 10, 8, 1, 1),
)
NIGHTLY = Rhythm((2, 12, 9, 1) + (0,) * 20)

# --- calls --------------------------------------------------------------------------------------


class Call(NamedTuple):
    """A request: `#` in its path is some number. `often` is its weight among its client's calls."""

    method: str
    path: str
    permission: str = ""
    often: int = 1


BROWSE = (
    Call("GET", "/v1/products", "products:read", 5),
    Call("GET", "/v1/products/#", "products:read", 9),
    Call("GET", "/v1/products/#/reviews", "products:read", 2),
    Call("GET", "/v1/categories/#", "products:read", 2),
)
CART = (
    Call("POST", "/v1/carts", "carts:write", 2),
    Call("PUT", "/v1/carts/#/items", "carts:write", 4),
    Call("GET", "/v1/carts/#", "carts:read", 3),
    Call("DELETE", "/v1/carts/#/items/#", "carts:write"),
)
ORDER = (Call("POST", "/v1/orders", "orders:write"),)
LOOK_UP = (Call("GET", "/v1/orders", "orders:read"), Call("GET", "/v1/orders/#", "orders:read", 3))
PAY = (
    Call("POST", "/v1/payments", "payments:write", 3),
    Call("POST", "/v1/payments/#/capture", "payments:write", 3),
    Call("PATCH", "/v1/orders/#", "orders:write", 2),
)
STOCK = (
    Call("GET", "/v1/inventory/#", "inventory:read", 2),
    Call("PUT", "/v1/inventory/#", "inventory:write"),
)
SHIP = (
    Call("POST", "/v1/shipments", "shipments:write", 2),
    Call("GET", "/v1/shipments/#", "shipments:read", 3),
)
CUSTOMER = (Call("GET", "/v1/customers/#", "customers:read"),)

# --- clients ------------------------------------------------------------------------------------

PHONES = (
    "84.200.69.80", "213.133.98.98", "80.67.169.12", "212.27.40.240", "194.168.4.100",
    "195.238.2.21", "130.59.31.248", "193.17.47.1", "89.233.43.71", "192.36.148.17",
    "149.154.159.92", "80.80.80.80", "2001:67c:2b0::4", "76.76.2.0",
)  # fmt: skip
CRAWLERS = ("77.88.8.8", "114.114.114.114", "200.160.0.10", "168.126.63.1")


class Client(NamedTuple):
    """One program that presents a key."""

    key: str
    agent: str
    addresses: tuple[str, ...]
    calls: tuple[Call, ...]
    per_day: float
    rhythm: Rhythm = STEADY
    begins: float | None = None  # days ago; with the key where it is not said
    ends: float = 0.0
    keeps_old_secret: bool = False
    asks_of: str | None = None  # another project than the key's
    environment: str | None = None  # that it takes itself to be in
    is_rare: bool = False  # shows a refusal: however little there is of the rest, this is there


CLIENTS = (
    Client("Web shop – production", "storefront-web/9.3.1 (Next.js 15)", ("10.20.4.11",
           "213.133.98.98"), (*BROWSE, *CART, *LOOK_UP), 68, SHOPPERS),
    Client("Mobile app: iOS", "Storefront/7.4.1 (iPhone; iOS 18.5) CFNetwork/1568", PHONES,
           (*BROWSE, *CART, *ORDER, *LOOK_UP), 70, SHOPPERS),
    Client("Mobile app: Android", "Storefront/7.4.0 (Android 15) okhttp/4.12.0", PHONES[3:],
           (*BROWSE, *CART, *ORDER, *LOOK_UP), 58, SHOPPERS),
    Client(IN_GRACE, "checkout-api/4.12.0", CLUSTER, (*CART[1:3], *ORDER, *PAY), 44,
           SHOPPERS),
    Client(IN_GRACE, "checkout-api/4.12.0", CLUSTER, (Call("POST", "/v1/refunds",
           "payments:refund"),), 6, SHOPPERS, begins=2.3, is_rare=True),
    Client(IN_GRACE, "checkout-worker/4.9.2", ("213.133.98.98",), (PAY[0], *ORDER), 40,
           keeps_old_secret=True),
    Client(IN_GRACE, "abandoned-carts/1.4", ("10.20.7.31",), (Call("GET", "/v1/carts",
           "carts:read"),), 12, keeps_old_secret=True),
    Client("Payment callbacks", "payments-relay/2.1", ("192.36.148.17", "193.0.14.129"), PAY, 40,
           SHOPPERS),
    Client("Order mails", "order-mails/1.18 python-httpx/0.28.1", CLUSTER, (*LOOK_UP, *CUSTOMER),
           24, SHOPPERS),
    Client("Inventory sync", "inventory-sync/3.0.4 Go-http-client/2.0", ("10.31.2.9",), STOCK, 30),
    Client("Search indexer", "search-indexer/2.7 python-requests/2.32.4", CLUSTER[2:], BROWSE[:2],
           28, NIGHTLY),
    Client(GATEWAY, "nginx-auth/1.4", CLUSTER, (Call("POST", "/api/v1/verify", "keys:verify"),), 30,
           SHOPPERS),
    Client("Support desk", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
           (OFFICE,), (*LOOK_UP, *CUSTOMER, Call("POST", "/v1/refunds", "payments:refund")), 38,
           WORK),
    Client("Grafana", "Grafana/11.6.0", ("10.20.9.2",), (Call("GET", "/api/v1/usage",
           "analytics:read", 3), Call("GET", "/api/v1/audit-log", "audit:read")), 24),
    Client("Terraform", "Terraform/1.12.1 latchkey-provider/0.3", (OFFICE, "10.20.9.14"),
           (Call("GET", "/api/v1/api-keys", "keys:read"),), 1.5, WORK),
    Client("Break-glass admin", "curl/8.5.0", (OFFICE,), (*LOOK_UP, *CUSTOMER), 3, WORK,
           begins=11.5, ends=10.2, is_rare=True),
    Client("GitHub Actions: deploy", "actions-deploy/2 curl/8.5.0", ("208.67.222.222", "64.6.64.6"),
           (Call("POST", "/v1/releases", "releases:write"), Call("PUT", "/v1/products/#",
           "products:write", 4)), 9, WORK),
    Client("Playwright smoke tests", "Playwright/1.55 (chromium)", ("208.67.222.222",), (*BROWSE,
           *CART), 14),
    Client("Local development", "curl/8.14.1", (HOME,), (*BROWSE, *CART, *ORDER), 26, WORK),
    Client("Local development", "HTTPie/3.2.4", (HOME,), ORDER, 3, WORK, environment=LIVE,
           is_rare=True),
    Client("Staging shop", "storefront-web/9.4.0-rc.2 (Next.js 15)", ("10.40.1.5",), (*BROWSE,
           *CART, *ORDER), 24, WORK),
    Client("Staging shop", "storefront-web/9.4.0-rc.2 (Next.js 15)", ("10.40.1.5",), LOOK_UP, 4,
           WORK, begins=9.5, environment=LIVE, is_rare=True),
    Client("Load test (k6)", "k6/1.1.0", ("10.40.3.3",), BROWSE, 6, WORK, begins=25.0),
    Client("BI loader", "Apache-HttpClient/5.5 (Java/21)", ("10.20.8.8",), (Call("GET",
           "/v1/reports/daily", "reports:read", 3), *LOOK_UP), 14, NIGHTLY),
    Client("BI loader", "Apache-HttpClient/5.5 (Java/21)", ("10.20.8.8",), CUSTOMER, 2, NIGHTLY,
           begins=13.0, is_rare=True),
    Client("Filiale Köln: Kasse", "kasse/5.2", ("195.243.214.4",), (*BROWSE[:2], *ORDER), 22, WORK),
    Client("Boutique Lyon : caisse", "kasse/5.2", ("212.27.40.240",), (*BROWSE[:2], *ORDER), 17,
           WORK),
    Client("Returns portal", "returns/1.6.3", CLUSTER[:2], (*LOOK_UP, SHIP[0]), 15, SHOPPERS),
    Client("Accounting export", "ledger-export/2025.3", ("84.200.69.80",), LOOK_UP, 9, NIGHTLY),
    Client("Loyalty programme", "loyalty/0.1", ("10.20.4.12",), CUSTOMER, 4, WORK, ends=36.0),
    Client("Contractor: data migration", "python-requests/2.31.0", ("193.17.47.1",), CUSTOMER, 30,
           WORK, ends=78.7),
    Client("Black Friday landing page", "landing/1.0", CLUSTER, BROWSE, 45, SHOPPERS, ends=61.3),

    Client("Partner: Northwind", "Northwind-Connector/2.8 (+https://northwind.example)",
           ("213.133.98.98", "2001:4860:4860::8888"), (*BROWSE, STOCK[0], *ORDER), 48),
    Client("Partner: Northwind", "Northwind-Connector/3.0 (+https://northwind.example)",
           ("212.27.40.240",), (*BROWSE[:2], *ORDER), 22, begins=4.5, is_rare=True),
    Client("Partner: Northwind", "PostmanRuntime/7.44.1", ("195.46.39.39",), ORDER, 3, WORK,
           begins=8.2, is_rare=True),
    Client("Partner: Kestrel Logistics", "kestrel-labels/11.4", ("130.59.31.248",), SHIP, 30, WORK),
    Client("Partner: Kestrel Logistics", "kestrel-tracking/8.0", ("130.59.31.248",), SHIP[1:], 14,
           ends=4.6, keeps_old_secret=True, is_rare=True),
    Client("Partner: Bluebird", "Bluebird/1.3 Ruby", ("103.2.57.5",), (*BROWSE[:2],
           Call("GET", "/v1/giftcards/#", "giftcards:read")), 34, SHOPPERS),
    Client("Partner: Halden (trial)", "axios/1.9.0", ("89.233.43.71",), (*BROWSE, STOCK[0]), 24,
           is_rare=True),
    Client("Price comparison feed", "PriceBot/4.1 (+https://pricebot.example)", ("200.160.0.10",),
           BROWSE[:2], 24),
    Client("Newsletter export", "Mailer/6.2 (agency)", ("195.238.2.21",), (*CUSTOMER, BROWSE[0]),
           18, NIGHTLY, is_rare=True),
    Client("Mobile app v5 (old)", "Storefront/5.9.2 (iPhone; iOS 15.8) CFNetwork/1331", PHONES[4:],
           (*BROWSE, CART[2]), 12, SHOPPERS, is_rare=True),
    Client("Analytics prototype", "python-requests/2.32.4", (HOME,), LOOK_UP, 8, WORK, ends=5.0),
    Client("Analytics prototype", "Mozilla/5.0 zgrab/0.x", CRAWLERS, LOOK_UP, 26, begins=3.6,
           ends=1.2, is_rare=True),
    Client(BRIEFLY, "landing-preview/0.3", (OFFICE,), BROWSE, 30, WORK, ends=17.1,
           is_rare=True),

    Client("Handheld scanners", "scanner/3.3 (Android 13)", ("10.31.4.21", "10.31.4.22",
           "10.31.5.7"), (Call("GET", "/v2/stock/#", "stock:read", 3), Call("PUT", "/v2/stock/#",
           "stock:write"), Call("POST", "/v2/picks/#/done", "picks:write", 4)), 70, WORK),
    Client("ERP sync", "SAP-PI/7.5", ("195.243.214.4",), (Call("GET", "/v2/stock", "stock:read"),
           Call("POST", "/v2/stock/bookings", "stock:write")), 24),
    Client("Carrier labels", "labels/2.2", ("10.31.1.4",), (Call("POST", "/v2/shipments",
           "shipments:write"),), 24, WORK),
    Client("Hall B sensors", "esp-http-client/1.0", ("10.31.60.12",), (Call("POST", "/v2/telemetry",
           "telemetry:write"),), 24),
    Client("Voice picking pilot", "voicepick/0.9", ("10.31.7.3",), (Call("POST", "/v2/picks/#/done",
           "picks:write"),), 12, WORK),
    Client("Voice picking pilot", "voicepick/0.9", ("10.31.7.3",), (Call("GET", "/v1/orders/#"),),
           1.5, WORK, asks_of=SHOP, is_rare=True),
    Client("Grafana", "Grafana/11.6.0", ("10.20.9.2",), (Call("GET", "/v2/stock"),), 1.5,
           asks_of=WAREHOUSE, is_rare=True),
    Client("Dock doors (old controller)", "plc-gw/1.1", ("10.31.90.2",), (Call("POST",
           "/v2/docks/#/open", "docks:write"),), 12, WORK, ends=66.3),

    Client("Backup job", "restic/0.18", ("10.20.9.30",), (Call("PUT", "/backups/#",
           "backups:write"),), 12, NIGHTLY),
    Client("Status page", "status/2.0", ("9.9.9.9",), (Call("GET", "/incidents",
           "incidents:read"),), 24),
    Client("Chat bot", "chat-bot/1.2", ("10.20.9.41",), (Call("GET", "/deploys", "deploys:read"),),
           8, WORK),
)  # fmt: skip


class Burst(NamedTuple):
    """So many requests within the minute that begins then: hours ago."""

    key: str
    hours_ago: float
    requests: int


BURSTS = (
    Burst("Price comparison feed", 6.4 * 24, 118),
    Burst("Price comparison feed", 3.1, 131),
    Burst("Load test (k6)", 2.6 * 24, 152),
)

# Without a known key: what they send, from where, hours ago and how many.
NOTHING, GARBAGE, FORGED = "nothing", "garbage", "forged"
ATTEMPTS = (
    (NOTHING, "10.20.4.12", 2.2, 3),
    (GARBAGE, "77.88.8.8", 5.6, 41),
    (FORGED, "114.114.114.114", 19.3, 12),
    (NOTHING, "200.160.0.10", 26.1, 9),
    (GARBAGE, HOME, 50.4, 2),
    (FORGED, "77.88.8.8", 98.7, 27),
)

# --- when ---------------------------------------------------------------------------------------


def instants(client: Client, start: int, end: int, share: float, chance: Random) -> Iterator[int]:
    """When the client asks between the two, in order; after its rhythm, by chance."""
    per_hour = client.per_day * (1 if client.is_rare else share) / 24
    hour = clock.start_of("hour", start)
    while hour < end:
        number = _poisson(per_hour * client.rhythm.weight(hour), chance)
        for instant in sorted(hour + chance.randrange(clock.HOUR) for _ in range(number)):
            if start <= instant < end:
                yield instant
        hour += clock.HOUR


def of_day(client: Client, day: int, growth: float, share: float, chance: Random) -> int:
    """How many requests the client made on a day long ago."""
    per_day = client.per_day * (1 if client.is_rare else share)
    expected = per_day * client.rhythm.weight_of_day(day) * growth
    return max(0, round(chance.gauss(expected, math.sqrt(expected + 0.1))))


def _poisson(mean: float, chance: Random) -> int:
    """How often something happens that happens so often on average (Knuth)."""
    limit, number, product = math.exp(-mean), 0, chance.random()
    while product > limit:
        number += 1
        product *= chance.random()
    return number


def path(call: Call, chance: Random) -> str:
    """The call's path, with some number for each `#`."""
    parts = call.path.split("#")
    filled = parts[0]
    for rest in parts[1:]:
        filled += f"{1000 + int(chance.expovariate(1 / 900))}{rest}"
    return filled


def outcome(call: Call, chance: Random) -> int:
    """What the service answers in the end to a request that was let in."""
    luck = chance.random()
    if is_ours(call):
        return 200
    if luck < 0.004:
        return 503 if luck < 0.001 else 500
    if "#" in call.path and luck < 0.03:
        return 404
    if call.method in ("POST", "PUT") and luck < 0.05:
        return 422 if luck < 0.04 else 409
    return {"POST": 201, "DELETE": 204}.get(call.method, 200)


def latency_ms(call: Call, chance: Random) -> int:
    """How long the service takes: mostly about as long, now and then much longer."""
    usual = 24 if call.method == "GET" else 75
    return max(1, round(chance.lognormvariate(math.log(usual), 0.6)))


def is_ours(call: Call) -> bool:
    """Whether the console's own API is called, which reports no outcome."""
    return call.path.startswith("/api/v1/")
