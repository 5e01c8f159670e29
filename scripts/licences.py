"""Checks what the lock file brings in: permissive licences only, and one version of what must agree with itself.

Run it in the workspace. It fails, with the list of what is wrong, on a package whose licence expression cannot be met
from ALLOWED, and on a second version of a package in SINGLE.
"""

from __future__ import annotations

import collections
import json
import re
import subprocess
import sys

# SPDX identifiers. None of these asks more than a notice of whoever ships a binary.
ALLOWED = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
}

# Packages with another licence that were looked at. MPL-2.0 asks that changes to its own files be published under it;
# we change none, and say where the source is by naming the package. option-ext comes with hf-hub (through dirs).
REVIEWED = {("option-ext", "MPL-2.0")}

# Two versions of one of these compile, and then a type of the one is not the type of the other: a trait is "not
# implemented", a message does not decode, a certificate provider is installed in the copy that nobody asks.
SINGLE = {"arrow-array", "parquet", "prost", "rustls", "tonic"}


def permitted(expression: str) -> bool:
    """Whether an SPDX expression can be met from ALLOWED. `/` is the old way of writing OR; AND binds tighter."""
    tokens = re.findall(r"[()]|[\w.+-]+", expression.replace("/", " OR "))
    position = 0

    def peek() -> str | None:
        return tokens[position] if position < len(tokens) else None

    def take() -> str:
        nonlocal position
        if position >= len(tokens):
            raise ValueError(f"unfinished licence expression: {expression}")
        position += 1
        return tokens[position - 1]

    def either() -> bool:
        met = both()
        while peek() == "OR":
            take()
            met = both() or met
        return met

    def both() -> bool:
        met = one()
        while peek() == "AND":
            take()
            met = one() and met
        return met

    def one() -> bool:
        token = take()
        if token == "(":
            met = either()
            if take() != ")":
                raise ValueError(f"unbalanced licence expression: {expression}")
            return met
        if peek() == "WITH":
            take()
            token = f"{token} WITH {take()}"
        return token in ALLOWED

    met = either()
    if peek() is not None:
        raise ValueError(f"cannot read the licence expression: {expression}")
    return met


def main() -> None:
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--all-features"]
    metadata = subprocess.run(command, stdout=subprocess.PIPE)
    if metadata.returncode:
        sys.exit("licences: cargo metadata failed, as said above")
    packages = json.loads(metadata.stdout)["packages"]
    wrong = []
    versions = collections.defaultdict(set)
    for package in packages:
        name = f"{package['name']} {package['version']}"
        versions[package["name"]].add(package["version"])
        try:
            if package["license"] is None:
                wrong.append(f"{name}: names no licence")
            elif (package["name"], package["license"]) in REVIEWED:
                continue
            elif not permitted(package["license"]):
                wrong.append(f"{name}: {package['license']} is not in the list of permissive licences")
        except ValueError as error:
            wrong.append(f"{name}: {error}")
    for name in sorted(SINGLE):
        if len(versions[name]) > 1:
            wrong.append(f"{name}: the lock file holds {len(versions[name])} versions: {', '.join(sorted(versions[name]))}")
    for line in wrong:
        print(f"licences: {line}", file=sys.stderr)
    if wrong:
        sys.exit(1)
    print(f"licences: {len(packages)} packages, permissive or reviewed; one version each of {', '.join(sorted(SINGLE))}")


if __name__ == "__main__":
    main()
