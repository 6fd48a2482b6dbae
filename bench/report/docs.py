"""Copies tables of results/ into the documentation, between comments that name them: `python -m bench.report.docs`."""

from __future__ import annotations

import re

from bench import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_MARK = re.compile(r"<!-- table (\d+) of (results/\S+) -->\n(.*?)<!-- end of table -->", re.DOTALL)


def tables_of(page: str) -> list[str]:
    """The Markdown tables of a page, in order."""
    return [match.group().strip() for match in re.finditer(r"(?:^\|.*\|\n)+", page, re.MULTILINE)]


def refresh(page: str) -> str:
    """A page with every marked table as its file has it. Tables are counted from 1."""

    def replacement(match: re.Match[str]) -> str:
        number, path = int(match[1]), match[2]
        table = tables_of((ROOT / path).read_text())[number - 1]
        return f"<!-- table {number} of {path} -->\n{table}\n<!-- end of table -->"

    return _MARK.sub(replacement, page)


def main() -> None:
    """The command line."""
    for path in PAGES:
        path.write_text(refresh(path.read_text()))


if __name__ == "__main__":
    main()
