package guest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// debianName says what a package of Amazon Linux is called in Debian; what is
// not here has the same name.
var debianName = map[string]string{
	"python3-devel": "python3-dev", "httpd": "apache2", "gcc-c++": "g++", "openssl-devel": "libssl-dev", "libffi-devel": "libffi-dev",
	"zlib-devel": "zlib1g-dev", "postgresql15": "postgresql-client", "procps-ng": "procps", "shadow-utils": "passwd", "nc": "netcat-openbsd",
	"golang": "golang-go", "java-17-amazon-corretto": "openjdk-17-jre-headless", "ruby": "ruby", "bind-utils": "dnsutils", "python3.11": "python3",
	"util-linux-user": "util-linux", "sqlite": "sqlite3", "amazon-cloudwatch-agent": "",
}

// dnf answers for what is there already and leaves the rest to apt.
func dnf(args []string) int {
	verb := ""
	var names []string
	for _, a := range args {
		switch {
		case strings.HasPrefix(a, "-"):
		case verb == "":
			verb = a
		default:
			names = append(names, a)
		}
	}
	switch verb {
	case "install", "localinstall", "reinstall":
		return install(names)
	case "remove", "erase":
		return apt(append([]string{"remove", "-y"}, debianNames(names)...))
	case "update", "upgrade", "check-update", "makecache", "clean", "autoremove", "config-manager", "module", "groupinstall":
		fmt.Println("Dependencies resolved.\nNothing to do.\nComplete!")
		return 0
	case "list", "info":
		for _, n := range names {
			if installed(n) {
				fmt.Printf("Installed Packages\n%s\n", n)
			} else {
				fmt.Fprintf(os.Stderr, "Error: No matching Packages to list: %s\n", n)
				return 1
			}
		}
		return 0
	case "", "help":
		fmt.Println("usage: dnf install|remove|list|update PACKAGE... (a stand-in: packages come from this image's own system)")
		return 0
	}
	fmt.Fprintf(os.Stderr, "No such command: %s (this image's dnf knows install, remove, list, update)\n", verb)
	return 1
}

func extras(args []string) int {
	if len(args) > 1 && (args[0] == "install" || args[0] == "enable") {
		var names []string
		for _, a := range args[1:] {
			if !strings.HasPrefix(a, "-") {
				n, _, _ := strings.Cut(a, "=")
				names = append(names, strings.TrimRight(n, "0123456789."))
			}
		}
		if args[0] == "enable" {
			return 0
		}
		return install(names)
	}
	fmt.Println("usage: amazon-linux-extras install TOPIC...")
	return 0
}

func debianNames(names []string) []string {
	var out []string
	for _, n := range names {
		d, ok := debianName[n]
		if !ok {
			d = n
		}
		if d != "" {
			out = append(out, d)
		}
	}
	return out
}

// installed asks for the package, and for a program of its name.
func installed(name string) bool {
	for _, n := range debianNames([]string{name}) {
		if out, err := exec.Command("dpkg-query", "-W", "-f", "${db:Status-Status}", n).Output(); err == nil && string(out) == "installed" {
			return true
		}
	}
	_, err := exec.LookPath(name)
	return err == nil
}

func install(names []string) int {
	var missing []string
	for _, n := range names {
		if strings.HasSuffix(n, ".rpm") {
			fmt.Fprintf(os.Stderr, "Error: %s: RPM files cannot be installed on this image (its system is not RPM-based)\n", n)
			return 1
		}
		if installed(n) {
			fmt.Printf("Package %s is already installed.\n", n)
			continue
		}
		missing = append(missing, n)
	}
	if len(missing) == 0 {
		fmt.Println("Nothing to do.\nComplete!")
		return 0
	}
	if lists, _ := filepath.Glob("/var/lib/apt/lists/*_Packages*"); len(lists) == 0 {
		if code := apt([]string{"update", "-q"}); code != 0 {
			return code
		}
	}
	if code := apt(append([]string{"install", "-y", "-q", "--no-install-recommends"}, debianNames(missing)...)); code != 0 {
		fmt.Fprintln(os.Stderr, "Error: Unable to find a match:", strings.Join(missing, " "))
		return 1
	}
	fmt.Println("Complete!")
	return 0
}

func apt(args []string) int {
	c := exec.Command("apt-get", args...)
	c.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := c.Run(); err != nil {
		if c.ProcessState != nil {
			return c.ProcessState.ExitCode()
		}
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
