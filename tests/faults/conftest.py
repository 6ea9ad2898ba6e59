"""What the fault tests share: their mark, and how long they take."""

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# `make test-faults`: rounds, sizes and times of the table in README.md; else a few of each.
IS_LONG = os.environ.get("FAULTS") == "long"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.fault)
