# Sourced by tools/test and tools/quickstart: what both need before they can start.
#
# Everything is made inside build/, except Debian packages, which are installed only when something that they
# bring is missing. Needs no terminal, no standard input and no particular working directory.
# shellcheck shell=bash

set -Eeuo pipefail

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
BUILD=$ROOT/build
VENV=$BUILD/venv
JOBS=$(nproc 2>/dev/null || echo 2)
ME=tools/$(basename -- "$0")

export DEBIAN_FRONTEND=noninteractive
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_PROGRESS_BAR=off
unset PYTHONHOME PYTHONPATH

if [[ -t 1 && -z ${NO_COLOR-} ]]; then BOLD=$'\e[1m' PLAIN=$'\e[0m'; else BOLD='' PLAIN=''; fi
STAGE='start'
STARTED=$SECONDS

stage() {
  STAGE=$1
  printf '%s==> [%d:%02d] %s%s\n' "$BOLD" $(((SECONDS - STARTED) / 60)) $(((SECONDS - STARTED) % 60)) "$1" "$PLAIN"
}

# Ends the program with one line on standard error that names the stage.
die() {
  trap - ERR
  printf '%s: FAILED in stage "%s": %s\n' "$ME" "$STAGE" "$*" >&2
  exit 1
}
trap 'die "a command failed (line $LINENO of ${BASH_SOURCE[0]##*/}); see the output above"' ERR

as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo >/dev/null; then
    # Without a terminal sudo could only hang at its prompt.
    if [[ -t 0 ]]; then sudo "$@"; else sudo -n "$@"; fi
  else
    return 127
  fi
}

# Prints the Debian packages whose content is not there. Asks for the content, not for the package, so that
# a Python or a library from elsewhere does as well.
missing_packages() {
  local name module package
  for name in git g++; do command -v $name >/dev/null || echo $name; done
  if command -v python3 >/dev/null; then
    python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    python3 -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || echo python3-dev
  else
    printf '%s\n' python3 python3-venv python3-dev
  fi
  command -v pkg-config >/dev/null || echo pkg-config
  # Meson uses it: the library is compiled twice with the same flags, for its tests and for Python.
  command -v ccache >/dev/null || echo ccache
  while read -r module package; do
    pkg-config --exists "$module" 2>/dev/null || echo "$package"
  done <<'LIST'
lmdb liblmdb-dev
fmt libfmt-dev
libxxhash libxxhash-dev
libcrypto libssl-dev
CLI11 libcli11-dev
nlohmann_json nlohmann-json3-dev
libzip libzip-dev
LIST
  while read -r module package; do
    echo "#include <$module>" | g++ -std=c++20 -E -x c++ - >/dev/null 2>&1 || echo "$package"
  done <<'LIST'
boost/version.hpp libboost-dev
doctest/doctest.h doctest-dev
LIST
}

install_packages() {
  local -a missing
  mapfile -t missing < <(missing_packages)
  if ((${#missing[@]})); then
    stage "Debian packages: ${missing[*]}"
    command -v apt-get >/dev/null ||
      die "these are missing and there is no apt-get to install them: ${missing[*]} (Debian's names)"
    as_root apt-get update -q && as_root apt-get install -q -y --no-install-recommends "${missing[@]}" ||
      die "could not install them; as root: apt-get update && apt-get install ${missing[*]}"
    mapfile -t missing < <(missing_packages)
    ((${#missing[@]} == 0)) || die "installed, but still not usable by $(command -v python3) or g++: ${missing[*]}"
  fi
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "Python 3.11 or newer is needed; python3 is $(python3 -V 2>&1)"
}

# Makes build/venv and installs the requirements files given (relative to the checkout). A second call with the
# same Python and the same files only compares two small files.
make_venv() {
  local wanted stamp
  wanted=$(python3 -c 'import sys; print(sys.version, sys.base_prefix)'; echo "$ROOT")
  if [[ ! -x $VENV/bin/python || $(cat "$VENV/made-with" 2>/dev/null || true) != "$wanted" ]]; then
    stage 'virtual environment in build/venv'
    mkdir -p "$BUILD"
    python3 -m venv --clear "$VENV"
    printf '%s\n' "$wanted" >"$VENV/made-with"
  fi
  wanted=$(cd "$ROOT" && cat {tools,docs}/requirements.txt "$1")
  stamp=$VENV/installed-$(basename -- "$(dirname -- "$1")")
  if [[ $(cat "$stamp" 2>/dev/null || true) != "$wanted" ]]; then
    stage "Python packages of $1"
    "$VENV/bin/python" -m pip install -q --prefer-binary -r "$ROOT/$1"
    # Its build files name versions of what was just replaced.
    rm -rf "$BUILD/python"
    printf '%s\n' "$wanted" >"$stamp"
  fi
  export PATH=$VENV/bin:$PATH
}

# The wheel stays in build/wheel. With the flags of the C++ tests, so that ccache has the library already.
install_python_package() {
  stage 'Python package (pip install .)'
  mkdir -p "$BUILD/python"
  rm -rf "$BUILD/wheel"
  pip wheel -q --no-build-isolation --check-build-dependencies --no-deps --wheel-dir "$BUILD/wheel" \
    -Cbuild-dir="$BUILD/python" -Ccompile-args="-j$JOBS" -Csetup-args=-Dwerror=true "$ROOT"
  pip install -q --no-deps --force-reinstall "$BUILD"/wheel/*.whl
}
