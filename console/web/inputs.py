"""What people type into a field, as the domain takes it. What it may be is the field's own rule."""

import re
from typing import Any

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")  # that a form offers
SEPARATORS = re.compile(r"[\s,;]+")
DIGITS_MAX = 18


def items(text: str) -> list[str]:
    """What stands between spaces, lines, commas and semicolons."""
    return [item for item in SEPARATORS.split(text) if item]


def number(text: str) -> Any:
    """The number typed, or the text itself, which the field's own rule then refuses."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX else text
