package sandbox

import (
	"errors"
	"os"
	"strings"
	"testing"

	"slipway/internal/machine"
)

func TestSnapshotKeepsWhatMatters(t *testing.T) {
	d := open(t)
	if _, err := d.Boot(t.Context(), machine.Spec{ID: "i-a", PrivateIP: "172.31.0.40"}); err != nil {
		t.Fatal(err)
	}
	must(t, d, "i-a", `mkdir -p /srv/x && echo one >/srv/x/f && ln /srv/x/f /srv/x/g && ln -s f /srv/x/s && chown ec2-user /srv/x/f &&
		rm /etc/bash.bashrc && rm -rf /usr/share/misc && mkdir /usr/share/misc && echo own >/usr/share/misc/mine && chmod 4711 /srv/x/f; hostname >/tmp/gone`)
	img, err := d.Snapshot(t.Context(), "i-a", "mine", nil)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := d.Snapshot(t.Context(), "i-a", "again", nil); err != nil || again.ID != img.ID {
		t.Errorf("the same content is another image: %v, %v", again.ID, err)
	}
	if _, err := d.Boot(t.Context(), machine.Spec{ID: "i-b", PrivateIP: "172.31.0.41", Image: img.ID}); err != nil {
		t.Fatal(err)
	}
	out := must(t, d, "i-b", `stat -c '%U %a %h' /srv/x/f; readlink /srv/x/s; ls /usr/share/misc /tmp; test ! -e /etc/bash.bashrc && hostname; cat /etc/hostname`)
	if want := "ec2-user 4711 2\nf\n/tmp:\n\n/usr/share/misc:\nmine\nip-172-31-0-41\nip-172-31-0-41\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
	// An image of an image.
	must(t, d, "i-b", "echo two >/srv/x/two")
	img2, err := d.Snapshot(t.Context(), "i-b", "deeper", nil)
	if err != nil || len(img2.Layers) != 2 {
		t.Fatal(img2, err)
	}
	if _, err := d.Boot(t.Context(), machine.Spec{ID: "i-c", PrivateIP: "172.31.0.42", Image: img2.ID}); err != nil {
		t.Fatal(err)
	}
	if out := must(t, d, "i-c", "cat /srv/x/f /srv/x/two"); out != "one\ntwo\n" {
		t.Errorf("%q", out)
	}
	if err := d.RemoveImage(t.Context(), img.ID); !errors.Is(err, machine.ErrInUse) {
		t.Errorf("an image in use was removed: %v", err)
	}
}

func TestBakeOnce(t *testing.T) {
	d := open(t)
	var out strings.Builder
	spec := machine.BakeSpec{Name: "app", PrivateIP: "172.31.0.50", Output: &out, Files: []machine.File{{Path: "/etc/app.conf", Data: []byte("x")}},
		Script: []byte("#!/bin/sh -e\necho baking; useradd -m baker; rm -f /etc/nginx/sites-enabled/default\n")}
	img, err := d.Bake(t.Context(), spec)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	again, err := d.Bake(t.Context(), spec)
	if err != nil || again.ID != img.ID || strings.Count(out.String(), "baking") != 1 {
		t.Errorf("baked again: %v, %v, %q", again.ID, err, out.String())
	}
	if l := d.List(); len(l) != 0 {
		t.Errorf("machines left: %+v", l)
	}
	if _, err := d.Boot(t.Context(), machine.Spec{ID: "i-a", Image: img.ID}); err != nil {
		t.Fatal(err)
	}
	if out := must(t, d, "i-a", "id -un baker; cat /etc/app.conf"); out != "baker\nx" {
		t.Errorf("%q", out)
	}
	spec.Script = []byte("#!/bin/sh\nexit 3\n")
	if _, err := d.Bake(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("a failing script baked: %v", err)
	}
}

func TestVolumeIsShared(t *testing.T) {
	d := open(t)
	for i, ip := range []string{"172.31.0.60", "172.31.16.60"} {
		if _, err := d.Boot(t.Context(), machine.Spec{ID: "i-" + string(rune('a'+i)), PrivateIP: ip,
			Mounts: []machine.Mount{{Source: "shared", Target: "/data"}, {Source: "/usr/share", Target: "/ro", ReadOnly: true}}}); err != nil {
			t.Fatal(err)
		}
	}
	must(t, d, "i-a", "echo here >/data/f; ! touch /ro/f")
	if out := must(t, d, "i-b", "cat /data/f"); out != "here\n" {
		t.Errorf("%q", out)
	}
	if err := d.RemoveVolume(t.Context(), "shared"); !errors.Is(err, machine.ErrInUse) {
		t.Error(err)
	}
	if _, err := d.Boot(t.Context(), machine.Spec{ID: "i-c", Mounts: []machine.Mount{{Source: "/no/such", Target: "/x"}}}); err == nil {
		t.Error("a missing mount source was accepted")
	}
	if _, err := os.Stat(d.paths.volume("shared")); err != nil {
		t.Error(err)
	}
}
