#!/bin/bash
# BeforeInstall: nginx, curl, the user and the directories. Where they are there
# already, which is always but the first time, this takes no time.
set -euo pipefail

# One number on every instance: they share a data volume, and files on it belong to a number.
readonly uid=5050

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
[ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"

if ! id -u todo >/dev/null 2>&1; then
    getent group todo >/dev/null || groupadd --gid "$uid" todo
    useradd --uid "$uid" --gid todo --home-dir /var/lib/todo --no-create-home --shell /sbin/nologin todo
    echo "the user todo is made"
fi

install -d -o root -g root -m 0755 /opt/todo /etc/todo
install -d -o todo -g todo -m 0750 /var/lib/todo /var/log/todo
# A volume that another user numbering wrote to.
find /var/lib/todo -xdev ! -user todo -exec chown todo:todo {} +
