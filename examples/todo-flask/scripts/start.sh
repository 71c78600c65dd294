#!/bin/bash
# ApplicationStart: starts the new version, and again at every boot.
set -euo pipefail

systemctl is-enabled --quiet todo.service || systemctl enable --quiet todo.service
# restart, so that an older version that still runs makes way.
systemctl restart todo.service
