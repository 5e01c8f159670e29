"""Writes the table of the chart's values into its README, or checks that it is what it should be.

    python3 scripts/values_reference.py [--check]

It reads helm/evenkeel/values.yaml line by line: a comment that begins with `# --` describes the value below it. A value
without one is an error, unless it is a map whose own values are described.
"""

from __future__ import annotations

import pathlib
import re
import sys

CHART = pathlib.Path(__file__).resolve().parent.parent / "helm" / "evenkeel"
BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"
KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z][\w-]*):(?: (?P<value>.*))?$")


def rows(text: str) -> list[tuple[str, str, str]]:
    """Path, default and description of every described value; a block that is described as a whole is one row."""
    found: list[tuple[str, str, str]] = []
    path: list[tuple[int, str]] = []
    described: str | None = None
    whole: tuple[int, list[str]] | None = None  # the indent of a described block, and its lines
    for number, line in enumerate(text.splitlines(), 1):
        indent = len(line) - len(line.lstrip())
        if whole is not None and line.strip() and indent > whole[0]:
            if line.strip().startswith("# --"):
                whole = None  # its values are described one by one
            else:
                whole[1].append(line.strip())
                continue
        elif whole is not None and line.strip():
            name, _, about = found.pop()
            found.append((name, " ".join(whole[1]) or "", about))
            whole = None
        if line.strip().startswith("# --"):
            described = line.strip().removeprefix("# --").strip()
            continue
        match = KEY.match(line)
        if not match:
            continue
        while path and path[-1][0] >= indent:
            path.pop()
        path.append((indent, match["key"]))
        name, value = ".".join(key for _, key in path), (match["value"] or "").strip()
        if described is not None:
            found.append((name, value, described))
            if not value:
                whole = (indent, [])
            described = None
        elif value:
            sys.exit(f"values.yaml:{number}: {name} is not described: put a line `# -- what it is` above it")
    return found


def table(text: str) -> str:
    lines = ["| value | default | what it is |", "|---|---|---|"]
    for name, value, about in rows(text):
        shown = f"`{value}`" if value else ""
        lines.append(f"| `{name}` | {shown} | {about} |".replace("||", "| |"))
    return "\n".join(lines)


def main() -> None:
    readme = CHART / "README.md"
    now = readme.read_text()
    if now.count(BEGIN) != 1 or now.count(END) != 1:
        sys.exit(f"{readme} needs the lines {BEGIN} and {END} once each")
    before, rest = now.split(BEGIN)
    after = rest.split(END)[1]
    new = f"{before}{BEGIN}\n{table((CHART / 'values.yaml').read_text())}\n{END}{after}"
    if "--check" in sys.argv[1:]:
        if new != now:
            sys.exit("helm/evenkeel/README.md does not say what values.yaml says: run scripts/values_reference.py")
        print("values: the table in helm/evenkeel/README.md is that of values.yaml")
    else:
        readme.write_text(new)


if __name__ == "__main__":
    main()
