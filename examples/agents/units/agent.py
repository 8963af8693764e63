#!/usr/bin/env python3
"""Conversion of units: one request on stdin, the answer on stdout.

The request is "10 miles in km" or {"value": 10, "from": "mile", "to": "km"}.
"""
import json
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))

with open(os.path.join(HERE, "units.json"), encoding="utf-8") as table:
    UNITS = json.load(table)


def unit(name):
    """The kind of a unit, its name in the table and its factor."""
    name = name.casefold()
    for kind, table in UNITS.items():
        for known in (name, name.removesuffix("s"), name.removesuffix("es")):
            if known in table:
                return kind, known, table[known]
    sys.exit(f"{name!r} is no unit known here")


def convert(value, source, target):
    kind, source, factor = unit(source)
    other, target, divisor = unit(target)
    if kind != other:
        sys.exit(f"{source} is a unit of {kind}, {target} of {other}")
    return {"value": float(f"{value * factor / divisor:.6g}"), "unit": target, "from": {"value": value, "unit": source}}


def answer(request):
    try:
        request = json.loads(request)
    except ValueError:
        pass
    if isinstance(request, dict):
        try:
            return convert(float(request["value"]), str(request["from"]), str(request["to"]))
        except (KeyError, TypeError, ValueError):
            sys.exit('wanted: {"value": 10, "from": "mile", "to": "km"}')
    found = re.search(r"([-+]?\d+(?:\.\d+)?)\s*([a-z]+)\s+(?:in|to|into)\s+([a-z]+)", str(request).strip(), re.IGNORECASE)
    if not found:
        sys.exit("wanted: 10 miles in km")
    return convert(float(found[1]), found[2], found[3])


if __name__ == "__main__":
    print(json.dumps(answer(sys.stdin.read())))
