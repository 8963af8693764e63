"""What is wrong with pages and links, told before a reader finds it."""

import os
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pages

# Calls of the tests that play a page.
PLAYED = re.compile(r'\bcheck\w*\(\s*"([^"]+\.md)"')


def anchors(text):
    """The anchors that GitHub gives the headings of a page; mdBook gives the same."""
    found, seen = set(), {}
    for inside, block in pages.blocks(text):
        if inside:
            continue
        for line in block.splitlines():
            heading = re.match(r"#{1,6}\s+(.*?)\s*#*$", line)
            if heading:
                words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.group(1)).replace("`", "")
                slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
                number = seen.get(slug, 0)
                seen[slug] = number + 1
                found.add(f"{slug}-{number}" if number else slug)
    return found


def sources(reference):
    """Problems of the files as GitHub shows them."""
    problems = []
    known, files = pages.sources(), pages.tracked()
    texts = {source: (pages.ROOT / source).read_text() for source in known}
    texts |= {f"docs/{place}": text for place, text in reference.items()}
    headings = {source: anchors(text) for source, text in texts.items()}

    for source, text in texts.items():
        for target in pages.links(text):
            if pages.is_external(target):
                continue
            path, anchor = pages.resolve(source, target)
            if path not in files and path not in texts:
                problems.append(f"{source}: {target} leads nowhere")
            elif path.startswith("docs/reference/") and source in known:
                problems.append(f"{source}: {target} is made for the site only; a file cannot link to it")
            elif anchor and path in headings and anchor not in headings[path]:
                problems.append(f"{source}: {target}: no such heading")

    listed = [pages.resolve("docs/SUMMARY.md", target)[0] for target in pages.links(pages.SUMMARY.read_text())]
    problems += [f"docs/SUMMARY.md: {path} is not there" for path in listed if path not in known]
    problems += [f"docs/SUMMARY.md: {path} is listed twice" for path in set(listed) if listed.count(path) > 1]
    problems += [f"docs/SUMMARY.md: {path} is not listed" for path in known if path not in listed]
    if pages.REFERENCE_MARK not in pages.SUMMARY.read_text().splitlines():
        problems.append(f"docs/SUMMARY.md: no line {pages.REFERENCE_MARK}")
    return problems + unplayed(texts)


def unplayed(texts):
    """Console blocks are promises; a test has to play each page that has some."""
    tests = "".join(path.read_text() for path in sorted(pages.ROOT.glob("crates/pilotctl/tests/**/*.rs")))
    played = set(PLAYED.findall(tests))
    return [
        f"{source}: has console blocks that no test of crates/pilotctl/tests plays"
        for source, text in texts.items()
        if re.search(r"^```console$", text, re.MULTILINE) and source not in played
    ]


class Page(HTMLParser):
    """Ids, and what is referred to, in one page of the rendered site."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.targets = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id" or (name == "name" and tag == "a"):
                self.ids.add(value)
            elif name in ("href", "src") and value and tag != "base":
                self.targets.append((tag, value))


def rendered(site):
    """Problems of the pages as a browser gets them: links, anchors, and anything from another place."""
    found = {path.relative_to(site).as_posix(): Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    problems = []
    # The page for what is not there has links from the root of a server.
    for name, page in found.items():
        if name == "404.html":
            continue
        for tag, target in page.targets:
            if pages.is_external(target):
                if tag != "a":
                    problems.append(f"{name}: {tag} is loaded from {target}")
                continue
            path, _, anchor = target.partition("#")
            path = os.path.normpath(os.path.join(os.path.dirname(name), unquote(path))) if path else name
            if not (site / path).is_file():
                problems.append(f"{name}: {target} leads nowhere")
            elif anchor and path in found and unquote(anchor) not in found[path].ids:
                problems.append(f"{name}: {target}: no such place")
    return problems
