"""Who and what is in the demo: people, projects, keys, and what was done to them when.

A time is so many days ago. Addresses are those of public resolvers and root name servers: each has
a country, and none is a person's. Nobody answers under `.example`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from console.actor import ADMIN_ROLE, MEMBER, VIEWER
from console.limits import ENTERPRISE, FREE, PROFESSIONAL
from console.models import LIVE, TEST
from console.secret import HEX32

OFFICE = "84.200.69.80"
HOME = "80.67.169.12"
CLUSTER = ("10.20.4.11", "10.20.4.12", "10.20.7.31")


def hours(number: float) -> float:
    return number / 24


# --- projects and people ------------------------------------------------------------------------


class DemoProject(NamedTuple):
    slug: str
    fields: Mapping[str, Any]
    days_ago: float
    offered: Mapping[str, str] = {}  # its permissions, and what each is for


class DemoPerson(NamedTuple):
    """Somebody, by the part of their address before the @."""

    who: str
    name: str
    days_ago: float
    roles: Mapping[str, str] = {}
    owner: bool = False
    ip: str = OFFICE
    is_invited: bool = False  # and has not come yet


SHOP, WAREHOUSE, INTERNAL = "storefront", "warehouse", "internal"
DOMAIN = "shop.example"
ADA, MAREK, PRIYA, TOMAS, GRACE, YUKI = "ada", "marek", "priya", "tomas", "grace", "yuki"

OFFERED = {
    "products:read": "See products, prices and reviews",
    "products:write": "Change products and prices",
    "inventory:read": "See what is in stock",
    "inventory:write": "Book stock in and out",
    "carts:read": "See a cart",
    "carts:write": "Fill and empty a cart",
    "orders:read": "See orders",
    "orders:write": "Place and change orders",
    "customers:read": "See customers' names and addresses",
    "customers:write": "Change customers",
    "payments:read": "See payments",
    "payments:write": "Start and capture payments",
    "payments:refund": "Give money back",
    "giftcards:read": "See what is left on a gift card",
    "giftcards:write": "Sell and redeem gift cards",
    "shipments:read": "Follow shipments",
    "shipments:write": "Make labels and announce shipments",
    "reports:read": "Read the daily reports",
    "releases:write": "Announce a release",
}
OFFERED_IN_WAREHOUSE = {
    "stock:read": "See stock by shelf",
    "stock:write": "Book stock",
    "picks:read": "See pick lists",
    "picks:write": "Confirm picks",
    "shipments:write": "Print labels",
    "docks:write": "Open and close dock doors",
    "telemetry:write": "Send readings of sensors",
}

PARTNER = {"name": "partner", "per_minute": 120, "per_hour": 4_000}
PROJECTS = (
    DemoProject(
        SHOP,
        {
            "name": "Storefront API",
            "prefix": "sf",
            "key_limit": 60,
            "plans": [PARTNER],
            "alert_email": "storefront@shop.example",
        },
        338.2,
        OFFERED,
    ),
    DemoProject(
        WAREHOUSE,
        {"name": "Warehouse", "prefix": "wh", "key_limit": 30},
        262.4,
        OFFERED_IN_WAREHOUSE,
    ),
    DemoProject(
        INTERNAL,
        {"name": "Internal tools", "prefix": "it", "key_format": HEX32, "key_limit": 10},
        181.3,
    ),
)
PEOPLE = (
    DemoPerson(ADA, "Ada Lindqvist", 338.4, owner=True),
    DemoPerson(MAREK, "Marek Nowak", 337.5, {SHOP: ADMIN_ROLE, INTERNAL: VIEWER}),
    DemoPerson(PRIYA, "Priya Raman", 262.1, {WAREHOUSE: ADMIN_ROLE, SHOP: MEMBER},
               ip="194.168.4.100"),
    DemoPerson(TOMAS, "Tomás Ortega", 160.6, {SHOP: MEMBER, INTERNAL: ADMIN_ROLE}, ip=HOME),
    DemoPerson(GRACE, "Grace Mwangi", 90.4, {SHOP: VIEWER, WAREHOUSE: VIEWER}, ip="196.25.1.9"),
    DemoPerson(YUKI, "Yuki Tanaka", 2.3, {SHOP: VIEWER}, is_invited=True),
)  # fmt: skip

# --- keys ---------------------------------------------------------------------------------------


class DemoKey(NamedTuple):
    name: str
    project: str
    by: str
    days_ago: float
    permissions: tuple[str, ...]
    description: str = ""
    environment: str = LIVE
    ends_in: float | None = None  # days; below 0 it has ended
    more: Mapping[str, Any] = {}


GATEWAY = "API gateway"  # whose secret is printed
IN_GRACE = "Checkout – production"
BRIEFLY = "Summer sale preview"  # made, used and deleted

KEYS = (
    # The newest come first in the table.
    DemoKey("Gift cards service", SHOP, PRIYA, hours(4), ("giftcards:read", "giftcards:write"),
            "Goes live with the spring campaign."),
    DemoKey("Fraud scoring", SHOP, MAREK, 1.4, ("orders:read", "customers:read"),
            "Waits for the vendor's go-ahead.", more={"plan": PARTNER["name"]}),
    DemoKey("Local development", SHOP, TOMAS, 3.5, ("products:read", "carts:*", "orders:*"),
            environment=TEST),
    DemoKey("GitHub Actions: deploy", SHOP, MAREK, 8.6, ("products:write", "releases:write"),
            "Publishes the catalogue after each release.", ends_in=5.3,
            more={"metadata": {"repository": "storefront/api", "workflow": "deploy.yml"}}),
    DemoKey("Partner: Northwind", SHOP, MAREK, 11.2, ("products:read", "inventory:read",
            "orders:write"),
            "Orders from Northwind's marketplace. Contact: integrations@northwind.example",
            more={"ip_allowlist": ["213.133.98.0/24", "2001:4860:4860::/48"], "plan": PROFESSIONAL,
            "monthly_quota": 20_000, "external_id": "partner-northwind"}),
    DemoKey(BRIEFLY, SHOP, TOMAS, 19.2, ("products:read",)),
    DemoKey("Newsletter export", SHOP, TOMAS, 21.1, ("customers:read", "products:read"),
            "For the agency's campaign only.", ends_in=-4.2),
    DemoKey("Analytics prototype", SHOP, PRIYA, 23.7, ("orders:read", "reports:read")),
    DemoKey("Partner: Halden (trial)", SHOP, MAREK, 26.4, ("products:read", "inventory:read"),
            "Trial until the contract is signed.", ends_in=3.4, more={"plan": FREE,
            "monthly_quota": 250, "external_id": "partner-halden"}),
    DemoKey("Partner: Bluebird", SHOP, MAREK, 28.2, ("products:read", "giftcards:read"),
            more={"plan": FREE, "monthly_quota": 2_500, "external_id": "partner-bluebird"}),
    DemoKey(IN_GRACE, SHOP, MAREK, 33.3, ("carts:read", "carts:write",
            "orders:write", "payments:write"),
            "The checkout in the shop and its worker. Pages #team-checkout when it is refused.",
            more={"metadata": {"team": "checkout", "service": "checkout-api"}}),
    DemoKey("Price comparison feed", SHOP, TOMAS, 36.3, ("products:read",),
            "Reads every price once an hour.", more={"plan": FREE}),
    DemoKey("Playwright smoke tests", SHOP, TOMAS, 38.5, ("products:read", "carts:*"),
            environment=TEST),
    DemoKey("Loyalty programme", SHOP, PRIYA, 45.2, ("customers:read", "customers:write"),
            "On hold until next year."),
    DemoKey("Support desk", SHOP, MAREK, 52.8, ("orders:read", "orders:write", "customers:read"),
            "Refunds and address changes by the support team.",
            more={"ip_allowlist": ["84.200.69.0/24"]}),
    DemoKey("Break-glass admin", SHOP, ADA, 58.1, ("admin:*",),
            "For an emergency. Every use is looked into.", ends_in=32,
            more={"ip_allowlist": ["84.200.69.80"]}),
    DemoKey("Load test (k6)", SHOP, TOMAS, 61.4, ("products:read", "carts:*"), environment=TEST,
            more={"plan": ENTERPRISE, "rate_limit": {"per_minute": 120, "per_hour": 3_000}}),
    DemoKey("BI loader", SHOP, MAREK, 74.5, ("reports:read", "orders:read"),
            "Fills the reports over night."),
    DemoKey("Filiale Köln: Kasse", SHOP, PRIYA, 83.3, ("products:read", "orders:write")),
    DemoKey("Boutique Lyon : caisse", SHOP, PRIYA, 83.4, ("products:read", "orders:write")),
    DemoKey("Returns portal", SHOP, MAREK, 96.6, ("orders:read", "shipments:write"), ends_in=21),
    DemoKey("Contractor: data migration", SHOP, ADA, 121.2, ("customers:*", "orders:*")),
    DemoKey(GATEWAY, SHOP, ADA, 140.5, ("keys:verify", "products:read"),
            "nginx and the services behind it ask with this key whether a client's key is good."),
    DemoKey("Staging shop", SHOP, MAREK, 152.3, ("products:read", "carts:*", "orders:*"),
            environment=TEST),
    DemoKey("Grafana", SHOP, ADA, 163.7, ("analytics:read", "audit:read"),
            "Dashboards for the team."),
    DemoKey("Terraform", SHOP, ADA, 170.2, ("keys:manage",), "Makes the keys of new services.",
            ends_in=58, more={"ip_allowlist": ["84.200.69.80", "10.20.0.0/16"]}),
    DemoKey("Partner: Kestrel Logistics", SHOP, MAREK, 188.4, ("shipments:read", "shipments:write"),
            "Labels and tracking.", more={"plan": PROFESSIONAL, "external_id": "partner-kestrel"}),
    DemoKey("Inventory sync", SHOP, PRIYA, 204.9, ("inventory:read", "inventory:write")),
    DemoKey("Accounting export", SHOP, MAREK, 214.3, ("orders:read", "payments:read"),
            ends_in=150.5),
    DemoKey("Order mails", SHOP, MAREK, 233.6, ("orders:read", "customers:read")),
    DemoKey("Payment callbacks", SHOP, MAREK, 233.7, ("payments:write", "orders:write"),
            more={"ip_allowlist": ["192.36.148.0/24", "193.0.14.0/24"]}),
    DemoKey("Mobile app: Android", SHOP, MAREK, 251.5, ("products:read", "carts:*", "orders:*")),
    DemoKey("Mobile app: iOS", SHOP, MAREK, 251.6, ("products:read", "carts:*", "orders:*")),
    DemoKey("Mobile app v5 (old)", SHOP, MAREK, 320.2, ("products:read", "carts:*")),
    DemoKey("Search indexer", SHOP, MAREK, 329.4, ("products:read",)),
    DemoKey("Black Friday landing page", SHOP, MAREK, 330.5, ("products:read",), ends_in=-61.3),
    DemoKey("Web shop – production", SHOP, MAREK, 336.3, ("products:read", "carts:*",
            "orders:read")),

    DemoKey("Voice picking pilot", WAREHOUSE, PRIYA, 6.4, ("picks:*",), ends_in=24),
    DemoKey("Hall B sensors", WAREHOUSE, PRIYA, 34.2, ("telemetry:write",),
            more={"ip_allowlist": ["10.31.0.0/16"]}),
    DemoKey("Carrier labels", WAREHOUSE, PRIYA, 77.5, ("shipments:write",)),
    DemoKey("Scanner training", WAREHOUSE, PRIYA, 102.4, ("stock:read",), environment=TEST),
    DemoKey("ERP sync", WAREHOUSE, PRIYA, 190.6, ("stock:*", "picks:read"), ends_in=88.2),
    DemoKey("Handheld scanners", WAREHOUSE, PRIYA, 255.3, ("stock:read", "stock:write", "picks:*")),
    DemoKey("Dock doors (old controller)", WAREHOUSE, PRIYA, 258.7, ("docks:write",)),

    DemoKey("Chat bot", INTERNAL, TOMAS, 41.3, ("deploys:read",)),
    DemoKey("Backup job", INTERNAL, ADA, 130.4, ("backups:write",), ends_in=40.5),
    DemoKey("Status page", INTERNAL, TOMAS, 150.3, ("deploys:read", "incidents:read")),
)  # fmt: skip

# --- what was done to them ------------------------------------------------------------------------


class Change(NamedTuple):
    """An operation of keys.py, by its name."""

    days_ago: float
    by: str
    operation: str
    key: str
    fields: Mapping[str, Any] = {}


CHANGES = (
    Change(208.3, MAREK, "edit", "Web shop – production",
           {"permissions": ["products:read", "carts:*", "orders:read", "search:read"]}),
    Change(160.5, MAREK, "rotate", "Mobile app: Android", {"grace_period": "30d"}),
    Change(112.4, MAREK, "edit", "Partner: Kestrel Logistics", {"plan": PROFESSIONAL}),
    Change(78.6, ADA, "revoke", "Contractor: data migration"),
    Change(66.2, PRIYA, "revoke", "Dock doors (old controller)"),
    Change(43.4, PRIYA, "rotate", "ERP sync", {"grace_period": "7d"}),
    Change(24.6, MAREK, "edit", "Mobile app: iOS", {"description": "Version 7 and later."}),
    Change(20.3, MAREK, "edit", "Support desk", {"permissions": ["orders:read", "orders:write",
           "customers:read", "payments:refund"]}),
    Change(16.7, TOMAS, "delete", BRIEFLY),
    Change(13.4, MAREK, "rotate", "Partner: Kestrel Logistics", {"grace_period": "7d"}),
    Change(12.2, MAREK, "revoke", "Mobile app v5 (old)"),
    Change(9.3, MAREK, "revoke", "Accounting export"),
    Change(9.28, MAREK, "restore", "Accounting export"),
    Change(7.5, PRIYA, "edit", "Hall B sensors", {"description": "Temperature and humidity, one "
           "reading every quarter of an hour."}),
    Change(6.1, MAREK, "edit", "Partner: Bluebird", {"monthly_quota": 5_000}),
    Change(3.2, ADA, "revoke", "Analytics prototype"),
    Change(3.18, ADA, "edit", "Analytics prototype", {"description": "Its secret was in a public "
           "repository. Do not enable it again."}),
    Change(2.4, MAREK, "edit", "Partner: Northwind", {"ip_allowlist": ["213.133.98.0/24",
           "2001:4860:4860::/48", "212.27.40.0/24"]}),
    Change(hours(9), MAREK, "rotate", IN_GRACE, {"grace_period": "24h"}),
    Change(hours(2.2), TOMAS, "edit", "Local development", {"description": "Mine. Ask before you "
           "share it."}),
)  # fmt: skip

WEBHOOK: Mapping[str, Any] = {
    "url": f"https://hooks.{DOMAIN}/latchkey",
    "description": "Tells #platform of every key that is revoked or rotated",
    "events": ["key.revoked", "key.rotated", "key.deleted"],
    "enabled": False,
}
WEBHOOK_DAYS_AGO = 14.6


class SignIn(NamedTuple):
    days_ago: float
    who: str
    agent: str


FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
SAFARI = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.5 Safari/605.1.15"
)

SIGN_INS = (
    SignIn(12.3, PRIYA, FIREFOX),
    SignIn(9.5, MAREK, FIREFOX),
    SignIn(3.4, ADA, SAFARI),
    SignIn(2.6, MAREK, FIREFOX),
    SignIn(hours(2.4), TOMAS, FIREFOX),
)
