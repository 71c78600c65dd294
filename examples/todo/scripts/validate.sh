#!/bin/bash
# ValidateService: good when nginx and the application answer together, the database
# is reached, and the version that answers is the one that was just installed.
set -euo pipefail

readonly url=http://127.0.0.1/healthz
readonly seconds=15

# To see a deployment fail and roll back: commit a file of this name (see the README).
readonly fail=/opt/todo/config/fail-validate
if [ -e "$fail" ]; then
    echo "validation fails because this version contains config/fail-validate: $(head -c 200 "$fail")" >&2
    exit 1
fi

expected=$(cat /opt/todo/VERSION)
last="no answer yet"
end=$((SECONDS + seconds))
while [ "$SECONDS" -lt "$end" ]; do
    if answer=$(curl --silent --show-error --max-time 2 --write-out '\n%{http_code}' "$url" 2>&1); then
        code=${answer##*$'\n'}
        if [ "$code" = 200 ] && [[ "$answer" == *"\"version\":\"$expected\""* ]]; then
            echo "version $expected answers"
            exit 0
        fi
    fi
    last=$answer
    sleep 0.05
done

echo "after $seconds s version $expected does not answer at $url; the last answer was:" >&2
echo "$last" >&2
echo "--- /var/log/todo/app.log" >&2
tail -n 15 /var/log/todo/app.log >&2 || true
exit 1
