package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// volumeFiles are the files of a volume: in directories of a hundred.
const volumeFiles = 20_000

// benchVolumes measures volumes: on our disk side by side with the peers, and on
// file systems whose files can share their data.
func benchVolumes(t *table, disk, bin string, ready []*engine, image string, runs int) error {
	if err := benchFilled(t, ready, max(runs/4, 1)); err != nil {
		return err
	}
	for _, e := range ready {
		if e.name == "tare" {
			if err := benchArchives(t, disk, e, max(runs/4, 1)); err != nil {
				return err
			}
		}
	}
	benchManyVolumes(t, ready, runs)
	benchMounts(t, disk, ready, runs)
	for _, fs := range []string{"btrfs", "xfs"} {
		if err := benchClone(t, filepath.Join(disk, fs), fs, bin, image, runs); err != nil {
			t.note("a clone on %s: %v", fs, err)
		}
	}
	return nil
}

// benchFilled measures the first use of a volume where the image has many files.
func benchFilled(t *table, ready []*engine, runs int) error {
	const fill = `mkdir /data; d=0; while [ $d -lt 200 ]; do mkdir /data/$d; f=0; while [ $f -lt 100 ]; do echo $d $f > /data/$d/$f; f=$((f+1)); done; d=$((d+1)); done`
	var filled, plain []subject
	for _, e := range ready {
		if e.name == "podman" { // fills a volume at the start
			continue
		}
		if _, err := try(e.command("run", "--name", "fill", "--network", "none", "busybox", "sh", "-c", fill)); err != nil {
			t.note("%s: %v", e.name, err)
			continue
		}
		if _, err := try(e.command("commit", "fill", "filled")); err != nil {
			t.note("%s: %v", e.name, err)
			continue
		}
		create := func(args ...string) subject {
			return subject{e.name, func() (float64, error) {
				took, err := try(e.command(append([]string{"create", "--name", "first", "--network", "none"}, append(args, "filled", "true")...)...))
				if err == nil {
					_, err = try(e.command("rm", "-v", "first"))
				}
				if err == nil && len(args) > 0 {
					_, err = try(e.command("volume", "rm", "first"))
				}
				return took, err
			}}
		}
		filled, plain = append(filled, create("-v", "first:/data")), append(plain, create())
	}
	t.compare(fmt.Sprintf("create, with a new volume for %d files of the image", volumeFiles), runs, 0, filled)
	t.compare("create, without", runs, 0, plain)
	return nil
}

// benchArchives measures export and import beside tar(1).
func benchArchives(t *table, disk string, e *engine, runs int) error {
	source, ours, theirs := filepath.Join(disk, "tree"), filepath.Join(disk, "ours.tar"), filepath.Join(disk, "theirs.tar")
	for d := range volumeFiles / 100 {
		dir := filepath.Join(source, strconv.Itoa(d))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for f := range 100 {
			if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(f)), bytes.Repeat([]byte{byte(f)}, 500+70*f), 0o644); err != nil {
				return err
			}
		}
	}
	if _, err := try(exec.Command("tar", "-cf", theirs, "-C", source, ".")); err != nil {
		return err
	}
	if _, err := try(e.command("volume", "import", "archived", theirs)); err != nil {
		return err
	}
	t.compare(fmt.Sprintf("export of %d files", volumeFiles), runs, 0, []subject{
		{"tare volume", func() (float64, error) { return try(e.command("volume", "export", "-o", ours, "archived")) }},
		{"tar", func() (float64, error) { return try(exec.Command("tar", "-cf", theirs, "-C", source, ".")) }},
	})
	target := filepath.Join(disk, "untarred")
	t.compare(fmt.Sprintf("import of %d files", volumeFiles), runs, 0, []subject{
		{"tare volume", func() (float64, error) {
			took, err := try(e.command("volume", "import", "imported", theirs))
			if err == nil {
				_, err = try(e.command("volume", "rm", "imported"))
			}
			return took, err
		}},
		{"tar", func() (float64, error) {
			if err := os.Mkdir(target, 0o755); err != nil {
				return 0, err
			}
			took, err := try(exec.Command("tar", "-xpf", theirs, "-C", target))
			if err == nil {
				err = os.RemoveAll(target)
			}
			return took, err
		}},
	})
	return nil
}

// benchManyVolumes lists a thousand.
func benchManyVolumes(t *table, ready []*engine, runs int) {
	var list []subject
	for _, e := range ready {
		if e.name == "podman" { // a process for each, for minutes
			continue
		}
		script := "for i in $(seq 1000); do echo many-$i; done | xargs -P 4 -n 1 \"$@\" volume create > /dev/null"
		if _, err := try(exec.Command("sh", append([]string{"-c", script, "sh"}, e.client...)...)); err != nil {
			t.note("%s: %v", e.name, err)
			continue
		}
		list = append(list, subject{e.name, func() (float64, error) { return try(e.command("volume", "ls", "-q")) }})
	}
	t.compare("volume ls, of 1,000", runs, 0, list)
}

// benchMounts starts a container with fifty mounts, and one with none.
func benchMounts(t *table, disk string, ready []*engine, runs int) {
	var args []string
	for i := range 50 {
		dir := filepath.Join(disk, "mounts", strconv.Itoa(i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.note("%v", err)
			return
		}
		args = append(args, "-v", dir+":/m"+strconv.Itoa(i))
	}
	for _, c := range []struct {
		title string
		args  []string
	}{{"run --rm true, no network, 50 mounts", args}, {"run --rm true, no network, none", nil}} {
		var list []subject
		for _, e := range ready {
			list = append(list, subject{e.name, func() (float64, error) {
				return try(e.command(append(append([]string{"run", "--rm", "--network", "none"}, c.args...), "busybox", "true")...))
			}})
		}
		t.compare(c.title, max(runs/2, 4), 0, list)
	}
}

// benchClone clones a volume of 2 GB on a file system of its own.
func benchClone(t *table, dir, fs, bin, image string, runs int) error {
	file := dir + ".img"
	for _, args := range [][]string{
		{"truncate", "-s", "6G", file}, {"mkfs." + fs, "-q", file}, {"mkdir", dir}, {"mount", "-o", "loop", file, dir},
		{"mkdir", filepath.Join(dir, "run")}, {"mount", "-t", "tmpfs", "tmpfs", filepath.Join(dir, "run")},
	} {
		if _, err := try(exec.Command(args[0], args[1:]...)); err != nil {
			return err
		}
	}
	defer os.Remove(file)
	defer unmountBelow(dir)
	list := engines(dir, bin)[:1]
	ready, stop := startEngines(t, list, image)
	defer stop()
	if len(ready) == 0 {
		return nil
	}
	e := ready[0]
	const fill = "dd if=/dev/urandom of=/d/big bs=1M count=2048 2>/dev/null; sync"
	if _, err := try(e.command("run", "--rm", "--network", "none", "-v", "big:/d", "busybox", "sh", "-c", fill)); err != nil {
		return err
	}
	t.compare("volume clone, of 2 GB on "+fs, max(runs/2, 4), 20*time.Millisecond, []subject{{"tare", func() (float64, error) {
		took, err := try(e.command("volume", "clone", "big", "cloned"))
		if err == nil {
			_, err = try(e.command("volume", "rm", "cloned"))
		}
		return took, err
	}}})
	return nil
}
