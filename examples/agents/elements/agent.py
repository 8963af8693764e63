#!/usr/bin/env python3
"""Chemical elements and the mass of formulas: one request on stdin, the answer on stdout.

The request is a name, a symbol or a number ("Iron", "Fe", "26"), or "mass H2O", or {"element": ..} or {"formula": ..}.
"""
import csv
import json
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def elements():
    with open(os.path.join(HERE, "elements.csv"), newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            row["number"], row["atomic_mass"] = int(row["number"]), float(row["atomic_mass"])
            yield row


def element(word):
    for row in elements():
        if word == row["symbol"] or word == str(row["number"]) or word.casefold() == row["name"].casefold():
            return row
    return None


def mass(formula):
    by_symbol = {row["symbol"]: row["atomic_mass"] for row in elements()}
    parts = re.findall(r"([A-Z][a-z]?)(\d*)", formula)
    if not parts or "".join(symbol + count for symbol, count in parts) != formula:
        sys.exit(f"{formula!r} is no formula such as H2O")
    unknown = [symbol for symbol, _ in parts if symbol not in by_symbol]
    if unknown:
        sys.exit(f"{unknown[0]} is not among the elements known here")
    total = sum(by_symbol[symbol] * int(count or 1) for symbol, count in parts)
    return {"formula": formula, "molar_mass": round(total, 3)}


def answer(request):
    try:
        request = json.loads(request)
    except ValueError:
        pass
    if isinstance(request, dict):
        if "formula" in request:
            return mass(str(request["formula"]))
        request = request.get("element", "")
    words = str(request).split()
    if len(words) >= 2 and words[0].casefold() == "mass":
        return mass(words[1])
    for word in words:
        found = element(word.strip("?.,"))
        if found:
            return found
    sys.exit(f"no element known in {' '.join(words)!r}")


if __name__ == "__main__":
    print(json.dumps(answer(sys.stdin.read())))
