"""Reads what a person or script sent into typed fields, or says of each field what to write.

The one bridge from pydantic to our own refusals; what a field may hold is said by its type.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from console import addresses, clock
from console.errors import Invalid

T = TypeVar("T")

NAME_MAX_LENGTH = 100
TEXT_MAX_LENGTH = 1_000
EMAIL_MAX_LENGTH = 254
COMPOSED_FROM_AT_MOST = 4
FIELDS_SHOWN_MAX = 20
EDITION_LENGTH = 16
# Control, format (bidi and zero-width among them), surrogate, private, unassigned, line breaks.
# Without what only stands in addresses in quotes, or for what could not be read.
NOT_IN_EMAIL = r"@\s<>\"(),:;\\\[\]\ufffd"
EMAIL = re.compile(rf"[^{NOT_IN_EMAIL}]+@[^.{NOT_IN_EMAIL}]+(?:\.[^.{NOT_IN_EMAIL}]+)*")
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

WORDS = {
    "missing": "is required",
    "string_type": "must be a string",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}


class Fields(BaseModel):
    """A set of named fields; unknown ones are refused by name."""

    model_config = ConfigDict(extra="forbid", strict=True)

    shown_max: ClassVar[int] = FIELDS_SHOWN_MAX

    @classmethod
    def read(cls, data: Mapping[str, Any] | Any) -> Self:
        """The fields in `data`. Raises Invalid with one message for each field at fault."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise Invalid(explain(error, cls.model_fields, cls.shown_max)) from None

    def sent(self, field: str) -> bool:
        return field in self.model_fields_set

    def only(self, kind: type["Fields"]) -> dict[str, Any]:
        """Those of the fields sent that are of this kind, too."""
        return self.model_dump(include=set(kind.model_fields), exclude_unset=True)


def read_list(adapter: TypeAdapter[T], data: Any) -> T:
    """The list in `data`, by its type. Raises Invalid, naming element and field: `3.status`."""
    try:
        return adapter.validate_python(data)
    except ValidationError as error:
        raise Invalid(explain(error)) from None


def explain(
    error: ValidationError, known: Iterable[str] = (), most: int = FIELDS_SHOWN_MAX
) -> dict[str, str]:
    """A sentence for each field at fault; `known` are the fields at the top."""
    fields: dict[str, str] = {}
    for one in error.errors(include_url=False):
        if len(fields) == most:
            break
        name = ".".join(str(part) for part in one["loc"]) or "body"
        if one["type"] == "extra_forbidden":
            only = f"; the fields are {', '.join(known)}" if len(one["loc"]) == 1 and known else ""
            words = f"is not a field{only}"
        elif one["type"] == "value_error":
            words = str(one["ctx"]["error"])
        elif one["type"] == "too_long":
            words = f"at most {one['ctx']['max_length']} are allowed"
        else:
            words = WORDS.get(one["type"], one["msg"])
        fields.setdefault(name, words)
    return fields


def edition(facts: object) -> str:
    """What these facts (JSON) are, in 16 hexadecimal digits that are others once one of them is:
    a form carries it along, and whoever saves second is told."""
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:EDITION_LENGTH]


def _composed(text: str, most: int) -> str:
    """NFC, without white space around it. To compose takes a time that grows with the square of the
    length, so text that is much too long is refused as it comes. Raises ValueError."""
    if len(text) > COMPOSED_FROM_AT_MOST * most:
        raise ValueError(f"has {len(text)} characters; at most {most} are allowed")
    return unicodedata.normalize("NFC", text).strip()


def clean_name(text: str) -> str:
    """A name on one line: NFC, 1–100 characters, none of them hidden. Raises ValueError."""
    name = _composed(text, NAME_MAX_LENGTH)
    if not name:
        raise ValueError("must not be empty")
    if len(name) > NAME_MAX_LENGTH:
        raise ValueError(f"has {len(name)} characters; at most {NAME_MAX_LENGTH} are allowed")
    refuse_hidden(name)
    return name


def clean_text(text: str) -> str:
    """Free text of several lines: at most 1,000 characters. Raises ValueError."""
    text = _composed(text, TEXT_MAX_LENGTH).replace("\r\n", "\n")
    if len(text) > TEXT_MAX_LENGTH:
        raise ValueError(f"has {len(text)} characters; at most {TEXT_MAX_LENGTH} are allowed")
    refuse_hidden(text.replace("\n", "").replace("\t", ""))
    return text


def refuse_hidden(text: str) -> None:
    """Raises ValueError for characters that do not show or that reorder the text around them."""
    for character in text:
        if unicodedata.category(character) in HIDDEN:
            raise ValueError(
                f"must not contain U+{ord(character):04X}: "
                "control, format and bidirectional characters are not allowed"
            )


def clean_email(text: str) -> str:
    """An e-mail address, lower case. Raises ValueError when it cannot be one."""
    composed = _composed(text, EMAIL_MAX_LENGTH)
    _refuse_alike(text.strip() + composed)
    email = composed.lower()
    if len(email) > EMAIL_MAX_LENGTH:
        raise ValueError(f"at most {EMAIL_MAX_LENGTH} characters are allowed")
    refuse_hidden(email)
    if not EMAIL.fullmatch(email):
        raise ValueError("must be an e-mail address such as ada@example.com")
    return email


def _refuse_alike(text: str) -> None:
    """Raises ValueError for characters that would become ASCII, and so an address somebody else's:
    the Kelvin sign is a k in small letters."""
    for character in text:
        forms = character.lower() + unicodedata.normalize("NFKC", character)
        if not character.isascii() and any(form.isascii() for form in forms):
            raise ValueError(
                f"must not contain U+{ord(character):04X}: write the plain letter or sign instead"
            )


def sort_form(text: str) -> str:
    """The form by which names are searched and sorted: compatibility-folded, without case."""
    return unicodedata.normalize("NFKC", text).casefold()


def _instant(text: str) -> str:
    clock.parse(text)
    return text


def _duration(text: str) -> str:
    clock.after(0, text)
    return text


@lru_cache(maxsize=10_000)
def _address(text: str) -> str:
    try:
        return str(addresses.parse_address(text))
    except ValueError:
        raise ValueError("must be an IPv4 or IPv6 address") from None


class OneOf:
    """In a type: these words alone. `Annotated[str, OneOf("live", "test")]`"""

    def __init__(self, *allowed: str) -> None:
        self.allowed = allowed

    def check(self, text: str) -> str:
        if text not in self.allowed:
            some = " or ".join(self.allowed)
            every = f"one of {', '.join(self.allowed)}"
            raise ValueError(f"must be {some if len(self.allowed) < 3 else every}")
        return text

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.allowed)}


class Whole:
    """In a type: whole numbers from `least` to `most`. `Annotated[int, Whole(1, 200)]`"""

    def __init__(self, least: int, most: int, example: int | None = None) -> None:
        self.least = least
        self.most = most
        self.example = example

    def check(self, number: int) -> int:
        if not self.least <= number <= self.most:
            raise ValueError(f"must be a whole number from {self.least} to {self.most}")
        return number

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        whole = core_schema.no_info_before_validator_function(_without_point, handler(source))
        return core_schema.no_info_after_validator_function(self.check, whole)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        shape = {"type": "integer", "minimum": self.least, "maximum": self.most}
        return shape if self.example is None else {**shape, "examples": [self.example]}


class UpTo:
    """In a type: text of at most so many characters. `Annotated[str, UpTo(20, "GET")]`"""

    def __init__(self, most: int, example: str | None = None) -> None:
        self.most = most
        self.example = example

    def check(self, text: str) -> str:
        if len(text) > self.most:
            raise ValueError(f"must have at most {self.most:,} characters")
        if "\0" in text:
            raise ValueError("must not contain U+0000: no database stores it")
        return text

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        shape = {"type": "string", "maxLength": self.most}
        return shape if self.example is None else {**shape, "examples": [self.example]}


def _without_point(number: Any) -> Any:
    """In JSON 200.0 is a whole number, too."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def text_schema(*examples: str, **keywords: Any) -> WithJsonSchema:
    """What the API's description says of a string (JSON Schema 2020-12)."""
    return WithJsonSchema({"type": "string", **keywords, "examples": list(examples)})


# `name`, `text` and `ip-network` are formats of our own: what they stand for no pattern could say.
Name = Annotated[
    str,
    AfterValidator(clean_name),
    text_schema("CI pipeline", format="name", minLength=1, maxLength=NAME_MAX_LENGTH),
]
Text = Annotated[
    str,
    AfterValidator(clean_text),
    text_schema("Deploys from GitHub", format="text", maxLength=TEXT_MAX_LENGTH),
]
Email = Annotated[
    str,
    AfterValidator(clean_email),
    text_schema("grace@example.com", format="email", maxLength=EMAIL_MAX_LENGTH),
]
Instant = Annotated[
    str, AfterValidator(_instant), text_schema("2027-11-20T10:30:00Z", format="date-time")
]
Duration = Annotated[
    str,
    AfterValidator(_duration),
    text_schema(
        "90d", pattern=f"^{clock.DURATION.pattern}$", description=f"A{clock.DURATION_HELP[1:]}"
    ),
]
Address = Annotated[
    str,
    AfterValidator(_address),
    WithJsonSchema({
        "anyOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}],
        "examples": ["203.0.113.7"],
    }),
]  # fmt: skip
