"""The reference, made from what the program says of itself: `context --json`, `--help`, and the metrics it serves.

Nothing of it is written by hand, and whatever the program has and these pages lack is an error.
"""

import json
import os
import re
import subprocess
import tempfile
import urllib.request

# Pages of commands in their order: file, title, first words of the commands. A command that stands nowhere is on `more`.
GROUPS = [
    ("machine", "This machine", "demo daemon init config status info doctor health top version"),
    ("peers", "Finding peers, being found", "find lookup search peers set-hostname clear-hostname set-public set-private "
     "set-tags clear-tags"),
    ("trust", "Trust and rules", "handshake pending approve reject trust trusted untrust policy"),
    ("messages", "Messages and requests", "send-message outbox inbox reply serve hook mailbox"),
    ("files", "Files", "send-file received"),
    ("events", "Events", "subscribe publish events set-webhook clear-webhook"),
    ("tasks", "Tasks", "task enable-tasks disable-tasks"),
    ("streams", "Streams and datagrams", "connect send recv listen dgram broadcast connections disconnect"),
    ("services", "Services under Pilot", "forward proxy gateway"),
    ("mcp", "Assistants (MCP)", "mcp"),
    ("paths", "Paths and speed", "ping why netcheck traceroute bench capture"),
    ("identity", "Identity", "rotate-key recovery key deregister"),
    ("networks", "Networks and their agents", "network agent audit provision provision-status"),
    ("rendezvous", "The rendezvous", "rendezvous"),
    ("more", "For shells and programs", "completions man context schema"),
]  # fmt: skip


class Incomplete(Exception):
    """The program has something that the reference would not show."""


def pages(pilotctl):
    """Path in the site and text of each page."""
    context = json.loads(run(pilotctl, "context", "--json"))["data"]
    root = Help(run(pilotctl, "--help"))
    helps = {name: Help(run(pilotctl, *name.split(), "--help")) for name in context["commands"]}
    for name, help_text in helps.items():
        help_text.must_have(name, context["commands"][name])

    made = {"reference/commands.md": overview(context, root)}
    shown = set()
    for file, title, names in grouped(context["commands"]):
        made[f"reference/{file}.md"] = command_page(title, names, helps)
        shown.update(names)
    if shown != set(context["commands"]):
        raise Incomplete(f"not on any page: {sorted(set(context['commands']) - shown)}")
    made["reference/errors.md"] = errors(context, root)
    made["reference/settings.md"] = settings(context)
    made["reference/metrics.md"] = metrics(pilotctl)
    return made


def run(pilotctl, *words, **environment):
    surroundings = {**os.environ, "COLUMNS": "1000", **environment}
    done = subprocess.run([pilotctl, *words], capture_output=True, text=True, env=surroundings, timeout=60)
    if done.returncode != 0:
        raise Incomplete(f"pilotctl {' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


class Help:
    """What `--help` prints, in its parts: examples, what it is, usage, lists, remarks."""

    def __init__(self, text):
        head, _, rest = f"\n{text.rstrip()}".partition("\nUsage: ")
        paragraphs = [part for part in head.strip("\n").split("\n\n") if part]
        self.examples = ""
        if paragraphs and paragraphs[0].startswith("Examples:\n"):
            self.examples = dedent(paragraphs.pop(0).partition("\n")[2])
        *self.notes, self.about = paragraphs
        usage, *sections = re.split(r"\n\n(?=\S)", rest)
        self.usage = "\n".join(line.strip() for line in usage.splitlines())
        self.lists = {"Arguments:": [], "Options:": []}
        self.remarks = []
        for section in sections:
            name, _, body = section.partition("\n")
            if name in self.lists and not self.remarks:
                self.lists[name] = entries(body)
            elif name != "Commands:":
                self.remarks.append(section)

    def own(self):
        """What this command takes and not every command does."""
        always = re.compile(r"--(json|socket|help|version)\b")
        return self.lists["Arguments:"] + [entry for entry in self.lists["Options:"] if not always.search(entry[0])]

    def must_have(self, name, described):
        """Everything that `context` describes has been found here."""
        taken = [(entry.lower(), flat(text)) for entry, text in self.own()]
        for argument in described["args"]:
            word, about = argument["name"].lower(), flat(argument["about"] or "")
            if not any(re.search(rf"{re.escape(word)}(?![\w-])", entry) or about and text.startswith(about)
                       for entry, text in taken):  # fmt: skip
                raise Incomplete(f"pilotctl {name} --help says nothing of {argument['name']}")
        if bool(described["examples"]) != bool(self.examples):
            raise Incomplete(f"pilotctl {name} --help does not begin with its examples")


def entries(body):
    """A list of clap's: what stands at the left, and the lines that explain it."""
    found = []
    for line in body.splitlines():
        indent = len(line) - len(line.lstrip())
        begins = line.strip() and (indent == 2 or (indent == 6 and line.lstrip().startswith("--")))
        if begins:
            name, _, text = line.strip().partition("  ")
            found.append((name, [text.strip()] if text.strip() else []))
        elif found and line.strip():
            found[-1][1].append(line.strip())
    return [(name, "\n".join(lines)) for name, lines in found]


def flat(text):
    return " ".join(text.split())


def dedent(text):
    lines = text.splitlines()
    least = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return "\n".join(line[least:] for line in lines)


def prose(text):
    """Words of the program as Markdown: nothing in them is markup, but for code between backticks."""
    parts = re.split(r"(`[^`]*`)", flat(text))
    return "".join(part if part.startswith("`") else re.sub(r"([\\*_<>\[\]#~])", r"\\\1", part) for part in parts)


def cell(text):
    """The same in a table; the values of an option are a line each."""
    pieces = re.split(r"\n(?=- |Possible values:)", text)
    return "<br>".join(prose(piece).replace("|", "\\|") for piece in pieces)


def code(text):
    return f"`{text}`".replace("|", "\\|")


def table(heads, rows):
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def anchor(name):
    return f"pilotctl-{name.replace(' ', '-')}"


def grouped(commands):
    """File, title and commands of each page."""
    places = {first: file for file, _, firsts in GROUPS for first in firsts.split()}
    for file, title, firsts in GROUPS:
        order = firsts.split()
        here = [name for name in commands if places.get(name.split()[0], "more") == file]
        rank = {first: at for at, first in enumerate(order)}
        yield file, title, sorted(here, key=lambda name: (rank.get(name.split()[0], len(order)), name))


def overview(context, root):
    rows = [
        (f"[{title}]({file}.md)", ", ".join(f"[`{name}`]({file}.md#{anchor(name)})" for name in names))
        for file, title, names in grouped(context["commands"])
    ]
    always = [(code(name), cell(text)) for name, text in root.lists["Options:"]]
    return "\n\n".join([
        "# Commands",
        f"All {len(context['commands'])} commands of `pilotctl` {context['version']}, from the program itself: what "
        "`pilotctl COMMAND --help` prints.",
        table(("", "commands"), rows),
        "## What every command takes",
        table(("option", ""), always),
        f"A target is an {prose(context['targets'])}. {prose(context['json'][0].upper() + context['json'][1:])}.",
    ]) + "\n"  # fmt: skip


def command_page(title, names, helps):
    rows = [(f"[`{name}`](#{anchor(name)})", prose(helps[name].about)) for name in names]
    parts = [f"# {title}", table(("command", ""), rows)]
    for name in names:
        parts += command(name, helps[name])
    return "\n\n".join(parts) + "\n"


def command(name, help_text):
    yield f"## pilotctl {name}"
    yield sentence(help_text.about)
    if help_text.examples:
        yield f"```sh\n{help_text.examples}\n```"
    yield from map(remark, help_text.notes)
    yield f"```text\n{help_text.usage}\n```"
    rows = [(code(entry), cell(text)) for entry, text in help_text.own()]
    if rows:
        yield table(("takes", ""), rows)
    yield from map(remark, help_text.remarks)


def sentence(text):
    return prose(text) if text.endswith(".") else prose(text) + "."


def remark(text):
    """Words as words, and what is set in columns as it is."""
    return f"```text\n{text}\n```" if re.search(r"^ +\S", text, re.MULTILINE) else prose(text)


def errors(context, root):
    said = flat(" ".join(root.remarks))
    statuses = re.search(r"Exit status: (.+?)\.", said)
    if not statuses:
        raise Incomplete("pilotctl --help does not say its exit statuses")
    meanings = dict(part.strip().split(" ", 1) for part in statuses.group(1).split(","))
    codes = context["error_codes"]
    known = {str(entry["exit_status"]) for entry in codes.values()}
    if not known <= set(meanings):
        raise Incomplete(f"pilotctl --help lacks exit statuses: {sorted(known - set(meanings))}")
    by_status = {
        status: ", ".join(code(name) for name, entry in codes.items() if str(entry["exit_status"]) == status)
        for status in meanings
    }
    return "\n\n".join([
        "# Errors and exit statuses",
        "The exit status tells the kind of failure, `code` in the document of `--json` which one it is. Decide by these; the words "
        "may change.",
        table(("status", "means", "`code`"), [(status, prose(word), by_status[status]) for status, word in meanings.items()]),
        "```json\n" + json.dumps(
            {"status": "error", "code": "not_found", "message": "what happened, and why", "hint": "what to do next"}, indent=2
        ) + "\n```",
    ]) + "\n"  # fmt: skip


def settings(context):
    rows = [
        (code(name), code(entry["environment"]), code(entry["default"]) if entry["default"] else "", cell(entry["about"]))
        for name, entry in context["settings"].items()
    ]
    return "\n\n".join([
        "# Settings",
        "A flag wins over the environment, that over `config.json` in the state directory (`$PILOT_HOME`, by default `~/.pilot`), "
        "that over the default. `pilotctl config` shows each value with where it came from; `pilotctl config --set KEY=VALUE` "
        "changes one.",
        table(("setting", "environment", "default", ""), rows),
    ]) + "\n"  # fmt: skip


def metrics(pilotctl):
    """What a rendezvous and a node that have just started serve to Prometheus."""
    with tempfile.TemporaryDirectory() as home:
        here = {"HOME": home, "PILOT_HOME": home, "PILOT_SOCKET": f"{home}/pilot.sock"}

        def told(*words):
            return json.loads(run(pilotctl, *words, "--json", **here))["data"]

        anywhere = [word for option in ("registry-addr", "beacon-addr", "http-listen")
                    for word in (f"--{option}", "127.0.0.1:0")]  # fmt: skip
        rendezvous = told("rendezvous", "start", *anywhere, "--web-listen", "off")
        try:
            of_rendezvous = fetch(rendezvous["http_addr"])
            told("daemon", "start", "--registry", rendezvous["registry_addr"], "--beacon", rendezvous["beacon_addr"],
                 "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0")  # fmt: skip
            try:
                of_node = fetch(told("status")["metrics"])
            finally:
                told("daemon", "stop")
        finally:
            told("rendezvous", "stop")
    return "\n\n".join([
        "# Metrics",
        "Served at `/metrics` in the format of OpenMetrics.",
        "## Of a node",
        "With `pilotctl daemon start --metrics 127.0.0.1:9465`; more is said in [running a node](../operations.md#metrics).",
        families(of_node),
        "## Of the rendezvous",
        "By its pages; who may read them is said in [running a rendezvous](../rendezvous.md#looking-after-it).",
        families(of_rendezvous),
    ]) + "\n"  # fmt: skip


def fetch(address):
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as reply:
        return reply.read().decode()


def families(text):
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    about = dict(re.findall(r"^# HELP (\S+) (.+)$", text, re.MULTILINE))
    if not kinds:
        raise Incomplete("no metrics are served")
    suffix = {"counter": "_total", "info": "_info"}
    rows = [(code(name + suffix.get(kind, "")), kind, cell(about.get(name, ""))) for name, kind in sorted(kinds.items())]
    return table(("name", "kind", ""), rows)
