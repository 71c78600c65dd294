#!/bin/bash
# ApplicationStop: ends the running version. The script comes from the version that
# was deployed before; on a new instance there is none, and this is not called.
set -euo pipefail

if systemctl is-active --quiet todo.service; then
    # SIGTERM; requests under way are finished (see TimeoutStopSec of the unit).
    systemctl stop todo.service
    echo "todo is stopped"
else
    echo "todo does not run"
fi
