# Sourced by tools/test and tools/release, after setup.sh: wheels that need nothing of the machine they are installed on.
# shellcheck shell=bash

# Outside of the checkout, gone at the end.
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

# repair_wheel WHEEL DIR: makes DIR with the same wheel in it, and in that the shared libraries that it needs, with the
# licences of these and of what is compiled in.
repair_wheel() {
  local scratch=$WORK/repair unpacked licences library
  auditwheel repair --wheel-dir "$scratch" "$1" >"$WORK/log" 2>&1 || { cat "$WORK/log"; die 'auditwheel failed'; }
  python -m wheel unpack --dest "$scratch" "$scratch"/*.whl >/dev/null
  unpacked=$(echo "$scratch"/tokcask-*/)
  licences=$(echo "$unpacked"*.dist-info/licenses)
  for library in "$unpacked"tokcask.libs/*; do
    # auditwheel has put a hash into the name.
    copy_licence "*/$(basename "$library" | sed -E 's/-[0-9a-f]{8}\././')" "$licences"
  done
  # libssl3's is named there, not given.
  cp /usr/share/common-licenses/Apache-2.0 "$licences"
  copy_licence '*/CLI/CLI.hpp' "$licences"
  copy_licence '*/nlohmann/json.hpp' "$licences"
  python - "$licences" <<'PY'
import importlib.metadata, pathlib, shutil, sys
import nanobind

licences = pathlib.Path(sys.argv[1])
for file in importlib.metadata.files("nanobind"):
    if file.name == "LICENSE":
        shutil.copy(file.locate(), licences / "nanobind")
header = pathlib.Path(nanobind.include_dir(), "../ext/robin_map/include/tsl/robin_map.h").read_text()
(licences / "robin-map").write_text(header.partition("*/")[0] + "*/\n")
PY
  rm -rf "$2"
  mkdir -p "$2"
  python -m wheel pack --dest-dir "$2" "$unpacked" >/dev/null
}

# copy_licence PATTERN DIR: what Debian's package that has such a file says of its copyright.
copy_licence() {
  local package
  package=$(dpkg-query -S "$1" 2>/dev/null | sed -n '1s/[:,].*//p' || true)
  cp "/usr/share/doc/$package/copyright" "$2/$package" 2>/dev/null ||
    die "no licence for $1: no package of Debian's that is installed has it; wheels are made on Debian, with its libraries"
}

# try_wheel WHEEL: installs the wheel into an environment that has nothing else, outside of the checkout, and uses it.
try_wheel() {
  local scratch=$WORK/alone
  python3 -m venv --without-pip "$scratch/venv"
  pip --python "$scratch/venv/bin/python" install -q "$1"
  mkdir "$scratch/corpus"
  printf 'a text' >"$scratch/corpus/a.txt"
  (
    cd "$scratch"
    PATH=$scratch/venv/bin:/usr/bin:/bin
    tokcask --help >help
    tokcask warm store corpus --tokenizer bytes --seq-len 64 --json >warm.json
    python - <<'PY'
import pathlib
import tokcask

with tokcask.TokenizedCache.open("store", read_only=True) as cache:
    (key,) = cache.keys()
    assert bytes(cache.get(key).input_ids.tolist()) == b"a text"
    maps = {pathlib.Path(line.split()[-1]) for line in open("/proc/self/maps") if ".so" in line}
    carried = {path.name for path in maps if path.parent.name == "tokcask.libs"}
    foreign = {name for name in ("lmdb", "fmt", "xxhash", "crypto", "zip", "bz2") for path in maps
               if path.name.startswith(f"lib{name}") and path.name not in carried}
assert carried and not foreign, f"not from the wheel: {foreign or 'all'}"
print("  works by itself, with", *sorted(carried))
PY
  )
}
