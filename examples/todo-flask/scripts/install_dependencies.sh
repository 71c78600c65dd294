#!/bin/bash
# BeforeInstall: nginx, curl, Flask, the user and the directories. Where they are there
# already, which is always but the first time, this takes no time and no network.
set -euo pipefail

# One number on every instance: they share a data volume, and files on it belong to a number.
readonly uid=5050
readonly python=/usr/bin/python3
bundle=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

install_packages() {
    echo "installing: $*"
    if command -v dnf >/dev/null; then
        dnf install -y -q "$@"
    elif command -v apt-get >/dev/null; then
        export DEBIAN_FRONTEND=noninteractive
        # A failing list update is no reason to stop: the lists may be good enough.
        apt-get update -q || echo "package lists were not updated" >&2
        apt-get install -y -q --no-install-recommends "$@"
    else
        echo "neither dnf nor apt-get is here; please put into the image: $*" >&2
        exit 1
    fi
}

missing=()
# /usr/sbin may be missing from PATH.
command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing+=(nginx)
# Amazon Linux has curl-minimal, which is enough and collides with curl.
command -v curl >/dev/null || missing+=(curl)
[ -x "$python" ] || missing+=(python3)
[ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"

# -I: what is in root's home directory does not count, the service runs as another user.
have_flask() { "$python" -I -c 'import sys, importlib.util as u; sys.exit(u.find_spec("flask") is None)'; }

if ! have_flask; then
    if command -v apt-get >/dev/null && ! command -v dnf >/dev/null; then
        # Debian's Python belongs to its package manager, which has Flask. If that fails, pip may do it.
        install_packages python3-flask || install_packages python3-pip
    else
        "$python" -m pip --version >/dev/null 2>&1 || install_packages python3-pip
    fi
    # Debian's pip wants to hear that breaking the system's packages is meant; older ones ignore the variable.
    have_flask || PIP_BREAK_SYSTEM_PACKAGES=1 "$python" -m pip install --quiet --root-user-action=ignore -r "$bundle/requirements.txt"
    have_flask || { echo "Flask could not be installed for $python" >&2; exit 1; }
fi

if ! id -u todo >/dev/null 2>&1; then
    getent group todo >/dev/null || groupadd --gid "$uid" todo
    useradd --uid "$uid" --gid todo --home-dir /var/lib/todo --no-create-home --shell /sbin/nologin todo
    echo "the user todo is made"
fi

install -d -o root -g root -m 0755 /opt/todo /etc/todo
install -d -o todo -g todo -m 0750 /var/lib/todo /var/log/todo
# A volume that another user numbering wrote to.
find /var/lib/todo -xdev ! -user todo -exec chown todo:todo {} +
