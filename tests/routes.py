"""Every address that the application answers, for tests that ask all of them the same question."""

from collections.abc import Iterator, Mapping

from flask import Flask

# Of an argument that a test gives no value: nothing has this id, and whole numbers are read.
NOTHING = "0"


def routes(app: Flask, values: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Endpoint, method and path of each, with these values for the arguments in paths.

    Ways out come last: what asks them all stays signed in until then.
    """
    found = []
    for rule in app.url_map.iter_rules():
        arguments = {name: values.get(name, NOTHING) for name in rule.arguments}
        built = rule.build(arguments, append_unknown=False)
        assert built is not None, f"{rule} cannot be built from {arguments}"
        for method in rule.methods or ():
            found.append((rule.endpoint, method, built[1]))
    return iter(sorted(found, key=lambda one: (one[0] == "access.log_out", one[2], one[1])))
