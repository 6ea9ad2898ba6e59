"""Reads what a person or script sent into typed fields, or says of each field what to write.

The one bridge from pydantic to our own refusals; what a field may hold is said by its type.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from console.errors import Invalid

NAME_MAX_LENGTH = 100
TEXT_MAX_LENGTH = 1_000
EMAIL_MAX_LENGTH = 254
COMPOSED_FROM_AT_MOST = 4
FIELDS_SHOWN_MAX = 20
# Control, format (bidi and zero-width among them), surrogate, private, unassigned, line breaks.
EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(?:\.[^@\s.]+)*")
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

    @classmethod
    def read(cls, data: Mapping[str, Any] | Any) -> Self:
        """The fields in `data`. Raises Invalid with one message for each field at fault."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise Invalid(cls._explain(error.errors(include_url=False))) from None

    @classmethod
    def _explain(cls, errors: Iterable[ErrorDetails]) -> dict[str, str]:
        fields: dict[str, str] = {}
        for error in errors:
            if len(fields) == FIELDS_SHOWN_MAX:
                break
            name = ".".join(str(part) for part in error["loc"]) or "body"
            if error["type"] == "extra_forbidden":
                words = f"is not a field; the fields are {', '.join(cls.model_fields)}"
            elif error["type"] == "value_error":
                words = str(error["ctx"]["error"])
            else:
                words = WORDS.get(error["type"], error["msg"])
            fields.setdefault(name, words)
        return fields


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
    email = _composed(text, EMAIL_MAX_LENGTH).lower()
    if len(email) > EMAIL_MAX_LENGTH:
        raise ValueError(f"at most {EMAIL_MAX_LENGTH} characters are allowed")
    refuse_hidden(email)
    if not EMAIL.fullmatch(email):
        raise ValueError("must be an e-mail address such as ada@example.com")
    return email


def sort_form(text: str) -> str:
    """The form by which names are searched and sorted: compatibility-folded, without case."""
    return unicodedata.normalize("NFKC", text).casefold()


Name = Annotated[str, AfterValidator(clean_name)]
Text = Annotated[str, AfterValidator(clean_text)]
Email = Annotated[str, AfterValidator(clean_email)]
