"""Checks the crates lakegate is built from against `.deny.toml`.

With `cargo-deny` installed this is `cargo deny check`. Without it the licences and sources are
checked here from `cargo metadata`, and it is said plainly that known vulnerabilities were not.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parent.parent


def main() -> int:
    """Return the exit status: 0 when every crate is as `.deny.toml` wants it."""
    if shutil.which("cargo-deny"):
        return subprocess.run(["cargo", "deny", "check"], cwd=REPOSITORY, check=False).returncode
    rules = tomllib.loads((REPOSITORY / ".deny.toml").read_text(encoding="utf-8"))
    problems = [line for crate in crates(rules["graph"]["targets"]) for line in complaints(crate, rules)]
    for line in problems:
        print(f"licences: {line}", file=sys.stderr)
    print(f"licences: {'NOT ' if problems else ''}all crates have an allowed licence and come from the registry")
    print("NOT CHECKED: known vulnerabilities; `cargo install --locked cargo-deny` adds that (about 10 minutes)")
    return 1 if problems else 0


def crates(targets: list[str]) -> list[dict[str, Any]]:
    """Return what cargo knows of every crate that is built for one of the targets."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--quiet"]
    for target in targets:
        command += ["--filter-platform", target]
    metadata = json.loads(subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True).stdout)
    built = {node["id"] for node in metadata["resolve"]["nodes"]}
    return [package for package in metadata["packages"] if package["id"] in built]


def complaints(crate: dict[str, Any], rules: dict[str, Any]) -> list[str]:
    """Return what is wrong with one crate, in words."""
    name = f"{crate['name']} {crate['version']}"
    found = []
    licence = crate.get("license")
    if not licence:
        found.append(f"{name} names no licence")
    elif not allowed(licence, set(rules["licenses"]["allow"])):
        found.append(f"{name} is under {licence}, which .deny.toml does not allow")
    source = crate.get("source")
    if source is not None and not source.startswith("registry+"):
        found.append(f"{name} comes from {source}; only the registry is allowed")
    return found


def allowed(expression: str, licences: set[str]) -> bool:
    """Whether an SPDX expression can be met with the licences; `/` is an old way to write OR."""
    tokens = re.findall(r"\(|\)|[^\s()/]+|/", expression)
    position = 0

    def peek() -> str | None:
        return tokens[position] if position < len(tokens) else None

    def take() -> str:
        nonlocal position
        position += 1
        return tokens[position - 1]

    def one() -> bool:
        if peek() == "(":
            take()
            value = either()
            take()
            return value
        name = take()
        if peek() == "WITH":
            take()
            name = f"{name} WITH {take()}"
        return name in licences

    def both() -> bool:
        value = one()
        while peek() == "AND":
            take()
            value = one() and value
        return value

    def either() -> bool:
        value = both()
        while peek() in ("OR", "/"):
            take()
            value = both() or value
        return value

    return either()


if __name__ == "__main__":
    sys.exit(main())
