"""Checks the pages and makes the source of the site: make.py PILOTCTL sources | collect DIR | rendered DIR."""

import shutil
import sys
from pathlib import Path

import check
import pages
import reference


def main(pilotctl, action, *where):
    if action == "rendered":
        return check.rendered(Path(where[0]))
    made = reference.pages(pilotctl)
    problems = check.sources(made)
    if action == "collect" and not problems:
        into = Path(where[0])
        pages.collect(into / "src", made)
        for name in ("book.toml", "pilot.css"):
            shutil.copyfile(pages.ROOT / pages.HERE / name, into / name)
    return problems


if __name__ == "__main__":
    try:
        problems = main(*sys.argv[1:])
    except (pages.Problems, reference.Incomplete) as found:
        problems = str(found).splitlines()
    for line in problems:
        print(f"error: {line}", file=sys.stderr)
    sys.exit(1 if problems else 0)
