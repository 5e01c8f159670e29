#!/usr/bin/env bash
# Usage: scripts/images.sh [coordinator] [worker] [worker-cuda] | pin
#
# Builds the container images (all, or those named), and writes for each a list of what is in it, out/images/NAME.cdx.json
# (CycloneDX). `pin` asks the registry for the digests of the base images and writes them into scripts/images.lock.
#
#   ENGINE=docker|podman   what builds [default: docker where `docker buildx` works, else podman]
#   REGISTRY=ghcr.io/you   first part of the names [default: none with docker, localhost with podman]
#   PLATFORM=linux/arm64   one platform [default: this machine's]
#   PUSH=1                 push them, with docker also provenance and a list of contents as attestations; wants a clean checkout
#                          and pinned base images
#   SOURCE=https://…       address of the source, for the label
#   BUILD_FLAGS='…'        further flags of `docker buildx build` or `podman build`
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
lock=$root/scripts/images.lock
out=$root/out/images
readonly ALL=(coordinator worker worker-cuda)
readonly PREFIX=org.opencontainers.image

say() { echo "images: $*"; }
fail() { echo "images: $*" >&2; exit 1; }

find_engine() { # prints docker or podman
  local docker podman
  if [[ ${ENGINE:-docker} == docker ]]; then
    docker=$(docker buildx version 2>&1 >/dev/null && docker info 2>&1 >/dev/null) && { echo docker; return; }
    [[ -z ${ENGINE:-} ]] || fail "ENGINE is docker, and docker does not work here: ${docker:-no docker}"
  fi
  podman=$(podman info 2>&1 >/dev/null) && { echo podman; return; }
  [[ -z ${ENGINE:-} ]] || fail "ENGINE is podman, and podman does not work here: ${podman:-no podman}"
  fail "images are built with docker (with buildx) or podman, and neither works here:
  docker: ${docker:-no answer}
  podman: ${podman:-no answer}"
}

base_image() { # the image that the lock file gives to an ARG of the Dockerfiles
  local image
  image=$(awk -v name="$1" '$1 == name { print $2 }' "$lock")
  [[ $image =~ ^[^[:space:]]+:[^[:space:]]+$ ]] || fail "scripts/images.lock gives no image with a tag to $1"
  echo "$image"
}

is_pinned() { [[ $1 =~ @sha256:[0-9a-f]{64}$ ]]; }

digest_of() { # asks the registry
  local digest
  if docker buildx version >/dev/null 2>&1; then
    digest=$(docker buildx imagetools inspect "$1" --format '{{.Manifest.Digest}}') || return 1
  elif command -v skopeo >/dev/null; then
    # Without --raw it would ask for the image of this machine's platform, too.
    digest=sha256:$(skopeo inspect --raw "docker://$1" | sha256sum | cut -d ' ' -f 1) || return 1
  else
    fail "digests are asked for with docker (with buildx) or skopeo, and neither is there"
  fi
  is_pinned "@$digest" || return 1
  echo "$digest"
}

pin() {
  local name image digest text
  text=$(<"$lock")
  for name in DEBIAN_IMAGE RUST_IMAGE; do
    image=$(base_image "$name")
    digest=$(digest_of "${image%@*}") || fail "the registry does not say what ${image%@*} is: nothing is changed"
    text=${text/"$name $image"/"$name ${image%@*}@$digest"}
    say "$name is ${image%@*}@$digest"
  done
  echo "$text" >"$lock.new"
  mv "$lock.new" "$lock"
}

build() { # build NAME
  local name=$1 dockerfile target=() ref flags says
  case $name in
    coordinator) dockerfile=coordinator/Dockerfile ;;
    worker) dockerfile=worker/Dockerfile target=(--target cpu) ;;
    worker-cuda) dockerfile=worker/Dockerfile target=(--target cuda) ;;
  esac
  ref=$(name_of "$name")
  flags=(--file "$root/$dockerfile" "${target[@]}" --tag "$ref")
  [[ -z ${PLATFORM:-} ]] || flags+=(--platform "$PLATFORM")
  flags+=(--build-arg "DEBIAN_IMAGE=$debian" --build-arg "RUST_IMAGE=$rust")
  flags+=(--build-arg "VERSION=$version" --build-arg "REVISION=$revision" --build-arg "CREATED=$created")
  flags+=(--build-arg "SOURCE=${SOURCE:-}" "${further[@]}")

  say "building $ref with $engine"
  if [[ $engine == docker ]]; then
    # Attestations are not for images that are loaded: those get theirs when they are pushed.
    docker buildx build "${flags[@]}" --load --provenance=false "$root"
  else
    podman build "${flags[@]}" --iidfile "$work/id" "$root"
    # podman's builder takes a LABEL from its cache when the text is the same, whatever the ARGs in it are now (seen with 4.3: the
    # image named an earlier commit), and `--label` reaches the last stage alone. So they are said once more, word by word.
    mkdir -p "$work/nothing"
    podman build --quiet ${PLATFORM:+--platform "$PLATFORM"} --tag "$ref" --file - "$work/nothing" >/dev/null <<LABELS
FROM $(<"$work/id")
LABEL $PREFIX.version="$version" $PREFIX.revision="$revision" $PREFIX.created="$created" \\
      $PREFIX.source="${SOURCE:-}" $PREFIX.base.name="$debian"
LABELS
  fi
  says=$("$engine" image inspect --format "{{index .Config.Labels \"$PREFIX.revision\"}}" "$ref")
  [[ $says == "$revision" ]] || fail "$ref says that it was built from ${says:-nothing}, and not from $revision"
  list_contents "$name" "$ref"
  [[ -n ${PUSH:-} ]] || return 0
  say "pushing $ref"
  if [[ $engine == docker ]]; then
    docker buildx build "${flags[@]}" --push --sbom=true --provenance=mode=max "$root"
  else
    podman push "$ref"
  fi
}

name_of() { # the name of an image
  case $1 in
    worker-cuda) echo "${registry:+$registry/}evenkeel/worker:$version-cuda" ;;
    *) echo "${registry:+$registry/}evenkeel/$1:$version" ;;
  esac
}

list_contents() { # list_contents NAME REF
  local name=$1 ref=$2 bytes
  "$engine" save --output "$work/image.tar" "$ref" >/dev/null
  "$trivy" image --quiet --input "$work/image.tar" --format cyclonedx --output "$work/bom.json"
  rm -f "$work/image.tar"
  bytes=$("$engine" image inspect --format '{{.Size}}' "$ref")
  # An empty list says "nothing to worry about", so one that lacks what is surely there is an error.
  python3 - "$name" "$ref" "$bytes" "$work/bom.json" "$out/$name.cdx.json" >>"$work/table" <<'PYTHON'
import collections, json, sys

name, ref, size, source, target = sys.argv[1:]
bom = json.load(open(source))
bom["metadata"]["component"]["name"] = ref
kinds = collections.Counter()
found = set()
for component in bom["components"]:
    kind = component.get("purl", "").partition("/")[0].removeprefix("pkg:")
    kinds[kind] += 1
    found.add(f'{kind}/{component["name"]}')
wanted = {"deb/ca-certificates", "cargo/tonic", "cargo/arrow-array" if name == "coordinator" else "cargo/tch"}
if name != "coordinator":
    wanted.add("pypi/torch")
if name == "worker-cuda":
    wanted.add("pypi/nvidia-cublas")
if wanted - found:
    sys.exit(f"images: the list of what is in {ref} lacks {', '.join(sorted(wanted - found))}")
json.dump(bom, open(target, "w"), indent=1)
contents = f'{kinds["cargo"]} crates, {kinds["deb"]} Debian packages'
if kinds["pypi"]:
    contents += f', {kinds["pypi"]} wheels'
print(f"{ref}|{int(size) / 1e6:,.0f} MB|{contents}|out/images/{name}.cdx.json")
PYTHON
}

if [[ ${1:-} == pin ]]; then
  (($# == 1)) || fail "pin takes no further words"
  pin
  exit 0
fi
wanted=("$@")
((${#wanted[@]})) || wanted=("${ALL[@]}")
for name in "${wanted[@]}"; do
  [[ " ${ALL[*]} " == *" $name "* ]] || fail "there is no image '$name'; there are: ${ALL[*]}"
done
[[ ${ENGINE:-docker} =~ ^(docker|podman)$ ]] || fail "ENGINE is '$ENGINE'; it may be docker or podman"
[[ ${PUSH:-1} == 1 ]] || fail "PUSH is '$PUSH'; it may be 1, or empty"
[[ ${PLATFORM:-linux/amd64} =~ ^linux/(amd64|arm64)$ ]] || fail "PLATFORM is '$PLATFORM'; it may be linux/amd64 or linux/arm64"
[[ ${REGISTRY:-a} =~ ^[a-z0-9]([a-z0-9._:/-]*[a-z0-9])?$ ]] || fail "REGISTRY is '$REGISTRY', which cannot begin the name of an image"
[[ ${SOURCE:-} =~ ^[A-Za-z0-9:/._~%?=+@-]*$ ]] || fail "SOURCE is '$SOURCE', which is no address"
read -ra further <<<"${BUILD_FLAGS:-}"

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$root/Cargo.toml")
[[ -n $version ]] || fail "Cargo.toml names no version"
debian=$(base_image DEBIAN_IMAGE)
rust=$(base_image RUST_IMAGE)
revision=$(git -C "$root" rev-parse HEAD) || fail "this is no checkout: the images would not say what they were built from"
# The commit's time and not the clock's: the same source, the same label.
created=$(TZ=UTC git -C "$root" log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd)
[[ -z $(git -C "$root" status --porcelain) ]] || revision+=-changed
if [[ -n ${PUSH:-} ]]; then
  [[ $revision != *-changed ]] || fail "PUSH=1 wants a clean checkout: commit or stash what is changed"
  for image in "$debian" "$rust"; do
    is_pinned "$image" || fail "PUSH=1 wants base images with digests, and $image has none: run scripts/images.sh pin, and commit"
  done
fi

engine=$(find_engine)
# podman takes a name without a registry for whatever it finds of that name: its own name for what was built here is said.
registry=${REGISTRY:-}
[[ $engine == docker || -n $registry ]] || registry=localhost
trivy=$("$root/scripts/checkers.sh" trivy)
mkdir -p "$out"
# Not in /tmp: an image with CUDA does not fit into the memory that some mount there.
work=$(mktemp -d "$out/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
for name in "${wanted[@]}"; do build "$name"; done
echo
awk -F '|' '{ printf "%-40s %10s   %-45s %s\n", $1, $2, $3, $4 }' "$work/table"
