package sandbox

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/internal/machine"
)

// eventually runs a shell command in the machine until it succeeds.
func eventually(t *testing.T, d *Driver, id, script string) string {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		out, code := run(t, d, id, "sh", "-c", script)
		if code == 0 {
			return out
		}
		if time.Now().After(end) {
			c, _ := d.ConsoleOutput(id)
			t.Fatalf("%s: exit %d: %s\nconsole:\n%s", script, code, out, c)
		}
	}
}

func must(t *testing.T, d *Driver, id, script string) string {
	t.Helper()
	out, code := run(t, d, id, "sh", "-c", script)
	if code != 0 {
		t.Fatalf("%s: exit %d: %s", script, code, out)
	}
	return out
}

func TestUserDataRunsOnce(t *testing.T) {
	d := open(t)
	for name, data := range map[string]string{
		"script": "#!/bin/bash\nexec > >(tee /var/log/user-data.log | logger -t user-data -s 2>/dev/console) 2>&1\necho hello-from-user-data; echo $INSTANCE_ID >>/root/ran; sleep 300 &\n",
		"config": "#cloud-config\nbootcmd:\n - echo early > /root/early\nwrite_files:\n - path: /root/conf\n   content: abc\n   owner: ec2-user:ec2-user\n   permissions: '0600'\nruncmd:\n - [sh, -c, 'echo i-config >>/root/ran']\n - cat /root/early; echo hello-from-user-data\n",
	} {
		id := "i-" + name
		ip := map[string]string{"script": "172.31.0.20", "config": "172.31.0.21"}[name]
		if _, err := d.Boot(t.Context(), machine.Spec{ID: id, PrivateIP: ip, UserData: []byte(data)}); err != nil {
			t.Fatal(err)
		}
		eventually(t, d, id, "grep -x done /var/lib/cloud/instance/boot-finished")
		if _, err := d.Reboot(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		eventually(t, d, id, "grep -x done /var/lib/cloud/instance/boot-finished")
		if out := must(t, d, id, "cat /root/ran"); out != id+"\n" {
			t.Errorf("%s: ran %q", name, out)
		}
		log := map[string]string{"script": "/var/log/messages", "config": "/var/log/cloud-init-output.log"}[name]
		eventually(t, d, id, "grep -q hello-from-user-data "+log)
		if c, err := d.ConsoleOutput(id); err != nil || !strings.Contains(string(c), "hello-from-user-data") {
			t.Errorf("%s: console %q, %v", name, c, err)
		}
	}
	if out := must(t, d, "i-config", "stat -c '%U %a' /root/conf"); out != "ec2-user 600\n" {
		t.Errorf("write_files: %q", out)
	}
}

// A server may run with a tight mask: its machines have the usual one, and
// users besides root can be in them.
func TestMaskOfTheServerStaysOutside(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	d := open(t)
	const id = "i-mask"
	if _, err := d.Boot(t.Context(), machine.Spec{ID: id, PrivateIP: "172.31.0.33"}); err != nil {
		t.Fatal(err)
	}
	for script, want := range map[string]string{
		"umask": "0022\n", "stat -c %a / /etc /opt/slipway/bin/slipway": "755\n755\n755\n", "sudo -u ec2-user id -un": "ec2-user\n",
	} {
		if out := must(t, d, id, script); out != want {
			t.Errorf("%s: %q", script, out)
		}
	}
}

func TestAgentsRestart(t *testing.T) {
	d := open(t)
	if _, err := d.Boot(t.Context(), machine.Spec{ID: "i-agent", PrivateIP: "172.31.0.30", Agents: []machine.AgentCommand{
		{Name: "beat", Args: []string{"/bin/sh", "-c", `echo "$WHO $$ beats" ; exec sleep 1000`}, Env: []string{"WHO=a $b"}},
	}}); err != nil {
		t.Fatal(err)
	}
	first := eventually(t, d, "i-agent", "pgrep -x sleep")
	must(t, d, "i-agent", "pkill -9 -x sleep")
	// The dead one is still seen for a moment.
	eventually(t, d, "i-agent", "p=$(pgrep -x sleep) && [ $p != "+strings.TrimSpace(first)+" ]")
	if out := eventually(t, d, "i-agent", "systemctl status beat && journalctl -u beat && [ $(journalctl -u beat | grep -c 'a $b') -ge 2 ]"); !strings.Contains(out, "active since") {
		t.Errorf("status: %s", out)
	}
}

const appUnit = `[Unit]
Description=An application
[Service]
Type=simple
User=ec2-user
WorkingDirectory=/home/ec2-user
Environment=GREETING="hello you" N=1
EnvironmentFile=-/etc/absent
EnvironmentFile=/etc/app.env
ExecStartPre=/bin/sh -c 'echo pre-$GREETING'
ExecStart=/bin/sh -c 'echo "run ${GREETING} $FROMFILE $(id -un) $PWD"; sleep 1000 & exec sleep 2000'
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=0.01
[Install]
WantedBy=multi-user.target
`

func TestSystemctl(t *testing.T) {
	d := open(t)
	const id = "i-ctl"
	if _, err := d.Boot(t.Context(), machine.Spec{ID: id, PrivateIP: "172.31.0.31"}); err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string]string{"/etc/systemd/system/app.service": appUnit, "/etc/app.env": "# c\nFROMFILE='a b'\n"} {
		if err := d.WriteFile(t.Context(), id, machine.File{Path: path, Data: []byte(data)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, code := run(t, d, id, "systemctl", "start", "no-such"); code != 5 {
		t.Errorf("start of an unknown unit: exit %d", code)
	}
	if out, code := run(t, d, id, "systemctl", "is-active", "app"); code != 3 || out != "inactive\n" {
		t.Errorf("%d %q", code, out)
	}
	must(t, d, id, "systemctl daemon-reload; systemctl enable --now app.service && systemctl is-enabled app && systemctl is-active app")
	eventually(t, d, id, "grep -x 'run hello you a b ec2-user /home/ec2-user' /var/log/services/app.log && grep pre-hello /var/log/services/app.log")
	eventually(t, d, id, "pgrep -xf 'sleep 2000'")
	must(t, d, id, "pkill -9 -xf 'sleep 2000'")
	eventually(t, d, id, "systemctl is-active app && pgrep -xf 'sleep 2000'")
	// All of it ends, the background child of another user included.
	must(t, d, id, "systemctl stop app && ! pgrep -x sleep")
	must(t, d, id, "systemctl start app && systemctl restart app && systemctl reload-or-restart app && systemctl is-active app")
	if _, err := d.Reboot(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	eventually(t, d, id, "systemctl is-active app")
	must(t, d, id, "systemctl disable --now app && ! systemctl is-enabled app && ! systemctl is-active app")
}

func TestNginx(t *testing.T) {
	d := open(t)
	const id = "i-nginx"
	if _, err := d.Boot(t.Context(), machine.Spec{ID: id, PrivateIP: "172.31.0.32"}); err != nil {
		t.Fatal(err)
	}
	if _, code := run(t, d, id, "sh", "-c", "command -v nginx"); code != 0 {
		t.Skip("this host has no nginx")
	}
	conf := "server { listen 80; location / { return 200 ok; } }\n"
	if err := d.WriteFile(t.Context(), id, machine.File{Path: "/etc/nginx/conf.d/a.conf", Data: []byte(conf)}); err != nil {
		t.Fatal(err)
	}
	must(t, d, id, "nginx -t && systemctl start nginx && curl -sSf http://127.0.0.1/ && systemctl status nginx && systemctl reload nginx && service nginx status")
	must(t, d, id, "sudo -u ec2-user id -un && dnf install -y nginx curl && ps aux | grep -c '[n]ginx: worker'")
	must(t, d, id, "systemctl stop nginx && ! pgrep nginx")
}
