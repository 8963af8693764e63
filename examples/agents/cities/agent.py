#!/usr/bin/env python3
"""Facts about cities: one request on stdin, the answer on stdout. Run it with `pilotctl serve --exec`.

The request is words ("Berlin", "distance Berlin Tokyo") or {"city": ..} or {"from": .., "to": ..}.
"""
import csv
import json
import math
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def cities():
    with open(os.path.join(HERE, "cities.csv"), newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            row["latitude"], row["longitude"] = float(row["latitude"]), float(row["longitude"])
            row["population"] = int(row["population"])
            yield row


def named(text):
    """Cities whose name occurs in the text, in the order in which they occur."""
    text = f" {text.casefold()} "
    found = [(text.find(row["city"].casefold()), row) for row in cities()]
    return [row for at, row in sorted(found, key=lambda entry: entry[0]) if at >= 0]


def kilometres(a, b):
    """Along the surface, by the haversine formula."""
    phi, psi = math.radians(a["latitude"]), math.radians(b["latitude"])
    half = math.sin((psi - phi) / 2) ** 2
    half += math.cos(phi) * math.cos(psi) * math.sin(math.radians(b["longitude"] - a["longitude"]) / 2) ** 2
    return round(2 * 6371 * math.asin(math.sqrt(half)))


def answer(request):
    try:
        request = json.loads(request)
    except ValueError:
        pass
    if isinstance(request, dict):
        text = " ".join(str(request.get(field, "")) for field in ("city", "from", "to"))
    else:
        text = str(request)
    found = named(text)
    if not found:
        sys.exit(f"no city known in {text.strip()!r}; {sum(1 for _ in cities())} are, such as Berlin")
    if len(found) >= 2:
        a, b = found[0], found[1]
        return {"from": a["city"], "to": b["city"], "kilometres": kilometres(a, b)}
    return found[0]


if __name__ == "__main__":
    print(json.dumps(answer(sys.stdin.read())))
