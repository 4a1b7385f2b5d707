"""Prints bytes as text that a shell can compare."""

import client


def visible(file):
    """Prints FILE with \\r, \\n and other control characters escaped."""
    with open(file, "rb") as stream:
        print(repr(stream.read())[2:-1])


client.run(visible)
