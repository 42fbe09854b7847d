# Shared by the scripts of this folder; to be sourced, from bash.
#
#   hw_need PACKAGE...   install those Debian packages that are missing (sudo if not root)
#   hw_say TEXT...       one line of progress on standard error
#   hw_root              the source directory
#   hw_jobs              how many jobs to run at once

set -u
hw_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
hw_jobs=$(nproc 2>/dev/null || echo 2)

# What a build of everything needs; the names are those of Debian 12.
hw_build_packages=(gcc libc6-dev cmake ninja-build pkg-config libsqlite3-dev libsodium-dev
    libzstd-dev libxxhash-dev libnng-dev sqlite3)
hw_test_packages=(libcmocka-dev python3 clang clang-format binutils groff-base)

hw_say() {
    printf '== %s\n' "$*" >&2
}

hw_is_installed() {
    local state
    state=$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) || return 1
    [ "$state" = installed ]
}

# Nothing is asked of the network if everything is there.
hw_need() {
    local package missing=() sudo=()
    for package in "$@"; do
        hw_is_installed "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    if ! command -v apt-get >/dev/null; then
        hw_say "these are missing, and there is no apt-get to install them: ${missing[*]}"
        return 1
    fi
    [ "$(id -u)" -eq 0 ] || sudo=(sudo)
    hw_say "installing ${missing[*]}"
    # The lists may be missing or old: try with those at hand first.
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -q --no-install-recommends \
        "${missing[@]}" >&2 && return 0
    "${sudo[@]}" apt-get update -q >&2
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -q --no-install-recommends \
        "${missing[@]}" >&2
}
