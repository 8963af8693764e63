"""The pages of the site: which there are, and their Markdown with links that work there.

GitHub shows the same files, so a link is written as GitHub wants it, from file to file. Here, links between pages stay links
between pages, and links to anything else of the project lead to its place on the web.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SUMMARY = DOCS / "SUMMARY.md"
HERE = "docs/site"

# Pages that are not below docs/, and where they are in the site.
OUTSIDE = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
# The line of SUMMARY.md that the pages of the reference stand for.
REFERENCE_MARK = "<!-- reference -->"

LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^()\s]+)\)")
FENCE = re.compile(r"^\s*(`{3,}|~{3,})")
CODE_SPAN = re.compile(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)


class Problems(Exception):
    """What is wrong with the pages, a line each."""


def repository():
    """The project's address, as Cargo.toml or the packages have it."""
    text = (ROOT / "packaging/build-packages").read_text()
    return re.search(r"Homepage: (https://\S+?)'?$", text, re.MULTILINE).group(1)


def sources():
    """Path in the project of each page, with its path in the site."""
    pages = dict(OUTSIDE)
    for path in sorted(DOCS.rglob("*.md")):
        name = path.relative_to(ROOT).as_posix()
        if path != SUMMARY and not name.startswith(f"{HERE}/"):
            pages[name] = path.relative_to(DOCS).as_posix()
    return pages


def without_code(text):
    """The text with zeros in the place of code, as long as before."""
    hidden = ""
    for inside, block in blocks(text):
        hidden += "\0" * len(block) if inside else CODE_SPAN.sub(lambda code: "\0" * len(code.group()), block)
    return hidden


def blocks(text):
    """Fenced code (True) and what is between (False)."""
    lines, fence = [], None
    for line in text.splitlines(keepends=True):
        mark = FENCE.match(line)
        if fence is None and mark:
            yield False, "".join(lines)
            lines, fence = [line], mark.group(1)
        elif fence is not None and line.strip() == fence:
            yield True, "".join([*lines, line])
            lines, fence = [], None
        else:
            lines.append(line)
    yield fence is not None, "".join(lines)


def links(text):
    """Targets of all links and pictures in a page."""
    return [match.group(2) for match in LINK.finditer(without_code(text))]


def relinked(text, change):
    """The page with each target as `change` wants it."""
    parts, at = [], 0
    for match in LINK.finditer(without_code(text)):
        parts += [text[at : match.start(2)], change(match.group(2))]
        at = match.end(2)
    return "".join([*parts, text[at:]])


def is_external(target):
    return re.match(r"[a-z][a-z0-9+.-]*:", target) is not None


def resolve(page, target):
    """Path in the project that a link of a page leads to, and its anchor."""
    path, _, anchor = target.partition("#")
    if not path:
        return page, anchor
    return os.path.normpath(os.path.join(os.path.dirname(page), unquote(path))), anchor


def tracked():
    """Every file and folder that a clone of the project has."""
    out = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    files = set(out.splitlines())
    return files | {parent.as_posix() for file in files for parent in Path(file).parents}


def collect(into, reference):
    """Writes the source of the book: pages, pictures, the reference and the table of contents."""
    shutil.rmtree(into, ignore_errors=True)
    pages, files, missing = sources(), tracked(), []
    address = repository()
    pictures = set()

    for source, place in pages.items():
        def change(target, source=source, place=place):
            if is_external(target) or target.startswith("#"):
                return target
            path, anchor = resolve(source, target)
            tail = f"#{anchor}" if anchor else ""
            if path in pages:
                return os.path.relpath(pages[path], os.path.dirname(place) or ".") + tail
            if path.startswith("docs/reference/"):
                return os.path.relpath(path[len("docs/") :], os.path.dirname(place) or ".") + tail
            if path not in files:
                missing.append(f"{source}: {target} is not there")
                return target
            if path.startswith("docs/images/"):
                pictures.add(path)
                return os.path.relpath(path[len("docs/") :], os.path.dirname(place) or ".")
            kind = "tree" if (ROOT / path).is_dir() else "blob"
            return f"{address}/{kind}/main/{path}{tail}"

        write(into / place, relinked((ROOT / source).read_text(), change))

    if missing:
        raise Problems("\n".join(missing))
    for picture in sorted(pictures):
        copy = into / picture[len("docs/") :]
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / picture, copy)
    for place, text in reference.items():
        write(into / place, text)
    write(into / "SUMMARY.md", contents(reference))


def contents(reference):
    """SUMMARY.md as the site needs it: its own paths, and a line for each page of the reference."""
    pages, lines = sources(), []
    for line in SUMMARY.read_text().splitlines():
        if line.strip() == REFERENCE_MARK:
            lines += [f"- [{title(text)}]({place})" for place, text in reference.items()]
        else:
            lines.append(relinked(line, lambda target: pages.get(resolve("docs/SUMMARY.md", target)[0], target)))
    return "\n".join(lines) + "\n"


def title(text):
    return re.search(r"^# (.+)$", text, re.MULTILINE).group(1)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
