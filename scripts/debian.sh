# Read by scripts that need a program of a Debian package: unpack NAME PACKAGE leaves it under .deps/NAME. Unpacked and not
# installed: that needs no root and starts no service. Nothing goes to standard output.

# shellcheck shell=bash
unpack() { # unpack NAME PACKAGE
  local name=$1 package=$2 tool work
  local deps
  deps=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.deps
  for tool in apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || { say "none here, and no $tool to get it with"; return 1; }
  done
  mkdir -p "$deps"
  work=$(mktemp -d "$deps/$name.XXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" EXIT
  say "taking it out of the package $package"
  if ! fetch_package "$work" "$package" 2>/dev/null; then
    say "the package lists are missing or old: refreshing them"
    if ((EUID == 0)); then
      apt-get -qq update >&2
    elif command -v sudo >/dev/null; then
      sudo apt-get -qq update >&2
    else
      say "cannot refresh the package lists without root or sudo"
      return 1
    fi
    fetch_package "$work" "$package" || { say "no package $package"; return 1; }
  fi
  dpkg-deb -x "$work"/"$package"_*.deb "$work/root"
  rm -rf "${deps:?}/$name"
  mv -T "$work/root" "$deps/$name"
}

fetch_package() { (cd "$1" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$2" >&2); }
