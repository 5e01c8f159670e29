"""Takes libraries out of wheels: `libtorch.sh` (the CPU half of libtorch) and `libtorch-cuda.sh` (its CUDA half) call it.

`take OUT WHEELS LIBRARY…` follows the NEEDED entries from the libraries named through the wheels of the folder WHEELS, and puts
what it finds into OUT/lib; with --headers also torch's headers into OUT/include. Libraries that lie in a folder given by
--beside are there already: they are neither copied nor followed. What each wheel says of itself (name, version, licence) goes
to OUT/packages, where scanners of images look for it, but only for wheels that something was taken from. It prints the names
of libraries that no wheel has.

`requirements WHEELS` prints what the wheel of torch needs of NVIDIA's packages, as far as WHEELS does not hold it. The
meta-package cuda-toolkit comes first: once it is there, what it stands for is printed.
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

LIBRARY = re.compile(r"\.so(\.|$)")


def wheels_of(folder):
    found = sorted(pathlib.Path(folder).glob("*.whl"))
    if not found:
        sys.exit(f"{folder} holds no wheels")
    for wheel in found:
        archive = zipfile.ZipFile(wheel)
        for name in archive.namelist():
            path = pathlib.PurePosixPath(name)
            if ".." in path.parts or path.is_absolute():
                sys.exit(f"{wheel.name} holds a path that leads out of it: {name}")
        yield wheel, archive


def copy(archive, member, target, mode=0o644):
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, open(target, "wb") as sink:
        shutil.copyfileobj(source, sink, 1 << 22)
    target.chmod(mode)


def needed(library):
    dynamic = subprocess.run(["readelf", "-d", library], check=True, capture_output=True, text=True).stdout
    return re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic)


def take(out, folder, wanted, headers, beside):
    lib = out / "lib"
    lib.mkdir(parents=True, exist_ok=True)
    libraries, used = {}, set()
    for wheel, archive in wheels_of(folder):
        for name in archive.namelist():
            path = pathlib.PurePosixPath(name)
            if LIBRARY.search(path.name) and path.parent.name in ("lib", "torch.libs"):
                libraries.setdefault(path.name, (wheel, archive, name))
            elif headers and name.startswith("torch/include/") and not name.endswith("/"):
                copy(archive, name, out / path.relative_to("torch"))
            elif headers and re.match(r"torch-[^/]+\.dist-info/licenses/[^/]+$", name):
                copy(archive, name, out / "licenses" / path.name)

    wanted, seen = list(wanted), set()
    while wanted:
        name = wanted.pop()
        if name in seen or (beside and (beside / name).exists()):
            continue
        seen.add(name)
        if not (lib / name).exists():
            if name not in libraries:
                print(name)
                continue
            wheel, archive, member = libraries[name]
            copy(archive, member, lib / name, 0o755)
            used.add(wheel)
        wanted += needed(lib / name)

    for wheel, archive in wheels_of(folder):
        if wheel in used:
            for name in archive.namelist():
                if re.match(r"[^/]+\.dist-info/(METADATA|licenses/[^/]+)$", name):
                    copy(archive, name, out / "packages" / name)


def requirements(folder):
    metadata = {}
    for _, archive in wheels_of(folder):
        name = next(name for name in archive.namelist() if re.match(r"[^/]+\.dist-info/METADATA$", name))
        package = re.sub(r"[-_.]+", "-", name.split("/")[0].split("-")[0]).lower()
        metadata[package] = archive.read(name).decode()
    if "torch" not in metadata:
        sys.exit(f"{folder} holds no wheel of torch")

    def requires(package, extras):
        for line in re.findall(r"^Requires-Dist: (.+)$", metadata[package], re.MULTILINE):
            name, of, version, marker = re.match(r"([\w.-]+)(?:\[(.*?)\])?([^;]*);?(.*)$", line).groups()
            extra = re.search(r"extra == ['\"](.+?)['\"]", marker)
            if extra and extra.group(1) not in extras:
                continue
            yield name.lower(), (of or "").replace(" ", "").split(","), version.strip()

    found = []
    for name, extras, version in requires("torch", ()):
        if name == "cuda-toolkit":
            if name in metadata:
                found += [(name, version) for name, _, version in requires(name, extras)]
            else:
                found.append((name, version))
        elif name.startswith("nvidia-"):
            found.append((name, version))
    if not found:
        sys.exit("the wheel of torch names no packages of NVIDIA: is it one for the CPU alone?")
    for name, version in found:
        if name not in metadata:
            print(f"{name}{version}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("take")
    command.add_argument("--headers", action="store_true")
    command.add_argument("--beside", type=pathlib.Path)
    command.add_argument("out", type=pathlib.Path)
    command.add_argument("wheels", type=pathlib.Path)
    command.add_argument("libraries", nargs="+")
    command = commands.add_parser("requirements")
    command.add_argument("wheels", type=pathlib.Path)
    args = parser.parse_args()
    if args.command == "take":
        take(args.out, args.wheels, args.libraries, args.headers, args.beside)
    else:
        requirements(args.wheels)


main()
