"""Writes the licences of a CycloneDX bill of materials as a table, and refuses GPL, AGPL and packages without one.

python helm/licences.py dist/nearcase.cdx.json dist/licences.md FOLDER

FOLDER holds the packages. Where the bill says no licence and a package's own metadata do, the bill is completed:
cyclonedx-py leaves out texts that are no SPDX name.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

COPYLEFT = re.compile(r"(?<!L)\bA?GPL|(?<!Lesser )(?<!Library or Lesser )General Public License|Affero", re.IGNORECASE)
COMPILER = re.compile(r"GPL-3\.0-or-later WITH GCC-exception-3\.1")
"""The runtime libraries of a compiler may be shipped with anything."""


@dataclass(frozen=True, slots=True)
class Shipped:
    """A package of the image."""

    name: str
    version: str
    licence: str  # as its metadata says; empty where they say nothing

    @property
    def is_refused(self) -> bool:
        """Whether it can not be shipped."""
        return not self.licence or bool(COPYLEFT.search(COMPILER.sub("", self.licence)))


def shipped(bill: dict[str, Any]) -> list[Shipped]:
    """Returns the packages of a bill of materials by name, the program itself included."""
    parts = [*bill.get("components", []), bill.get("metadata", {}).get("component", {})]
    found = {part["name"]: Shipped(part["name"], part.get("version", ""), licence_of(part)) for part in parts if part}
    return [found[name] for name in sorted(found, key=str.lower)]


def licence_of(part: dict[str, Any]) -> str:
    """Returns the licence of a component: its expression, else its identifiers and names."""
    told: list[str] = []
    for entry in part.get("licenses", []):
        licence = entry.get("license", {})
        text = entry.get("expression") or licence.get("id") or licence.get("name") or ""
        told += [text.strip().split("\n")[0]] if text.strip() not in ("", "UNKNOWN") else []
    return "; ".join(dict.fromkeys(told))


def completed(bill: dict[str, Any], packages: Path) -> dict[str, Any]:
    """Returns the bill with the licences that the packages' metadata state in words."""
    stated = {each.name.lower(): each.metadata["License"] or "" for each in distributions(path=[str(packages)])}
    for part in bill.get("components", []):
        words = stated.get(part["name"].lower(), "").strip().split("\n")[0]
        if words and not licence_of(part):
            part["licenses"] = [{"license": {"name": words, "acknowledgement": "declared"}}]
    return bill


def table(packages: list[Shipped]) -> str:
    """Returns the packages as a page of Markdown."""
    rows = [f"| {each.name} | {each.version} | {each.licence.replace('|', '/')} |" for each in packages]
    head = (
        "# Licences of what ships\n\nPython packages of the image, as their metadata say. Libraries inside wheels and\n"
    )
    return (
        head
        + "packages of the base image are not listed.\n\n| package | version | licence |\n|---|---|---|\n"
        + "\n".join([*rows, ""])
    )


def main(file: Path, page: Path, folder: Path) -> int:
    """Completes the bill and writes the page; returns 1 where a package can not be shipped, and says which."""
    bill = completed(json.loads(file.read_text(encoding="utf-8")), folder)
    file.write_text(json.dumps(bill, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    packages = shipped(bill)
    page.write_text(table(packages), encoding="utf-8")
    refused = [each for each in packages if each.is_refused]
    for each in refused:
        print(f"{each.name} {each.version}: {each.licence or 'no licence is stated'}", file=sys.stderr)
    print(f"{len(packages)} packages in {page}", file=sys.stderr)
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:4])))
