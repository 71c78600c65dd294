#!/bin/bash
# ValidateService: good when nginx and the application answer together, the database
# is reached, and the version that answers is the one that was just installed.
set -euo pipefail

# The application first, then the way through nginx: asking nginx while the application
# starts would fill its error log, which an alarm watches.
readonly urls=(http://127.0.0.1:5000/healthz http://127.0.0.1/healthz)
readonly seconds=10

# To see a deployment fail and roll back: commit a file of this name (see the README).
readonly fail=/opt/todo/config/fail-validate
if [ -e "$fail" ]; then
    echo "validation fails because this version contains config/fail-validate: $(head -c 200 "$fail")" >&2
    exit 1
fi

expected=$(cat /opt/todo/VERSION)
last="no answer yet"

# good URL: whether it answers 200 with the expected version; $last is what it said.
good() {
    last=$(curl --silent --show-error --max-time 2 --write-out '\n%{http_code}' "$1" 2>&1) || return 1
    [ "${last##*$'\n'}" = 200 ] && [[ "$last" == *"\"version\":\"$expected\""* ]]
}

end=$((SECONDS + seconds))
for url in "${urls[@]}"; do
    until good "$url"; do
        if [ "$SECONDS" -ge "$end" ]; then
            echo "after $seconds s version $expected does not answer at $url; the last answer was:" >&2
            echo "$last" >&2
            echo "--- the last lines of /var/log/todo/app.log" >&2
            tail -n 15 /var/log/todo/app.log >&2 || true
            exit 1
        fi
        sleep 0.05
    done
done
echo "version $expected answers"
