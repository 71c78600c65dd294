#!/bin/bash
# AfterInstall: makes nginx, the service manager and the CloudWatch agent read what was installed.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"

systemctl daemon-reload

# Debian's own page claims to be the default server of port 80, as ours does.
rm -f /etc/nginx/sites-enabled/default

if ! problem=$(nginx -t 2>&1); then
    echo "$problem" >&2
    echo "nginx does not accept its configuration" >&2
    exit 1
fi
if systemctl is-active --quiet nginx.service; then
    systemctl reload nginx.service
else
    systemctl start nginx.service
fi
systemctl is-enabled --quiet nginx.service || systemctl enable --quiet nginx.service

# The agent is told only what is new to it: it takes seconds to think about it.
readonly agent=/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl
readonly config=/opt/todo/config/amazon-cloudwatch-agent.json
readonly applied=/etc/todo/amazon-cloudwatch-agent.applied
if [ ! -x "$agent" ]; then
    echo "no CloudWatch agent here: logs stay on this host"
elif ! cmp -s "$config" "$applied"; then
    "$agent" -a fetch-config -m ec2 -c "file:$config" -s
    cp "$config" "$applied"
fi
