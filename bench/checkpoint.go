package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// holder keeps 200 MB of memory: dd has read as much and cannot write it.
const holder = `mkfifo $0; exec 9<>$0; rm $0; exec dd if=/dev/urandom bs=209715200 count=2 iflag=fullblock >&9 2>/dev/null`

// alone closes what a process of the host may have inherited from elsewhere.
const alone = `for f in /proc/self/fd/*; do f=${f##*/}; [ $f -le 2 ] || eval "exec $f>&-"; done; `

// held is when it has all of it, in MB.
const held = 200

// benchCheckpoints times a checkpoint of a process with 200 MB, and its
// restoration: by tarerun and runc in a container, and by criu alone, of a process
// that is in none.
func benchCheckpoints(t *table, dir, image, bin string, runs int) error {
	criu, err := exec.LookPath("criu")
	if err != nil {
		t.note("criu is not installed, so nothing was checkpointed")
		return nil
	}
	out, _ := exec.Command(criu, "--version").Output()
	version, _, _ := strings.Cut(string(out), "\n")
	t.version("criu", version)
	bundle := filepath.Join(dir, "held")
	root := filepath.Join(bundle, "rootfs")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	if out, err := exec.Command("tar", "-C", root, "-xf", image).CombinedOutput(); err != nil {
		return fmt.Errorf("unpacking the image: %w: %s", err, out)
	}
	if err := writeBundle(bundle, false, "/bin/sh", "-c", holder, "/pipe"); err != nil {
		return err
	}
	list := []checkpointer{
		&contained{name: "tarerun", program: bin + "/tarerun", bundle: bundle, dir: filepath.Join(dir, "tarerun-images")},
		&lone{program: criu, dir: filepath.Join(dir, "criu-images")},
		&contained{name: "runc", program: "runc", bundle: bundle, dir: filepath.Join(dir, "runc-images")},
	}
	for _, what := range []string{"checkpoint", "restore"} {
		var subjects []subject
		for _, c := range list {
			s := subject{c.called(), func() (float64, error) { return cycleOf(c, what) }}
			if _, err := s.run(); err != nil {
				t.note("%s does not %s here: %v", c.called(), what, err)
				continue
			}
			subjects = append(subjects, s)
		}
		t.compare(what+" of a process with 200 MB", min(runs, 12), 0, subjects)
	}
	return nil
}

// checkpointer makes a process, a checkpoint of it, and the process again.
type checkpointer interface {
	called() string
	begin() (pid int, err error)
	dump() (float64, error)
	restore() (float64, error)
	end() error
}

// cycleOf is one life; it gives the time that the part took.
func cycleOf(c checkpointer, what string) (took float64, err error) {
	pid, err := c.begin()
	if err != nil {
		return 0, err
	}
	defer func() {
		if e := c.end(); err == nil {
			err = e
		}
	}()
	for deadline := time.Now().Add(20 * time.Second); resident(pid) < held; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("process %d has %.0f MB after 20 s", pid, resident(pid))
		}
	}
	dumped, err := c.dump()
	if err != nil || what == "checkpoint" {
		return dumped, err
	}
	return c.restore()
}

// contained is a container of a runtime.
type contained struct{ name, program, bundle, dir string }

func (h *contained) called() string { return h.name }

func (h *contained) command(args ...string) *exec.Cmd {
	return exec.Command(h.program, append([]string{"--root", h.dir + "-state"}, args...)...)
}

// quiet runs a command whose container may keep its output open.
func quiet(cmd *exec.Cmd) (float64, error) {
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	return ms(time.Since(begin)), nil
}

func (h *contained) begin() (int, error) {
	pidFile := h.dir + "-pid"
	if _, err := quiet(h.command("run", "-d", "--bundle", h.bundle, "--pid-file", pidFile, "bench-held")); err != nil {
		return 0, err
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

func (h *contained) dump() (float64, error) {
	return quiet(h.command("checkpoint", "--image-path", h.dir, "bench-held"))
}

func (h *contained) restore() (float64, error) {
	return quiet(h.command("restore", "-d", "--bundle", h.bundle, "--image-path", h.dir, "bench-held"))
}

func (h *contained) end() error {
	_, _ = quiet(h.command("delete", "--force", "bench-held"))
	return os.RemoveAll(h.dir)
}

// lone is a process of the host's.
type lone struct {
	program, dir string
	pid          int
	cmd          *exec.Cmd
}

func (b *lone) called() string { return "criu" }

func (b *lone) begin() (int, error) {
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return 0, err
	}
	b.cmd = exec.Command("busybox", "sh", "-c", alone+holder, b.dir+"-pipe")
	b.cmd.Dir = "/"
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := b.cmd.Start(); err != nil {
		return 0, err
	}
	b.pid = b.cmd.Process.Pid
	return b.pid, nil
}

func (b *lone) dump() (float64, error) {
	reaped := make(chan error, 1)
	go func() { reaped <- b.cmd.Wait() }() // its number is needed again
	took, err := quiet(exec.Command(b.program, "dump", "-t", strconv.Itoa(b.pid), "-D", b.dir, "-o", "dump.log"))
	if err != nil {
		_ = b.cmd.Process.Kill()
	}
	<-reaped
	return took, err
}

func (b *lone) restore() (float64, error) {
	return quiet(exec.Command(b.program, "restore", "-d", "-D", b.dir, "-o", "restore.log"))
}

func (b *lone) end() error {
	if b.cmd.ProcessState == nil {
		_ = b.cmd.Process.Kill()
		_ = b.cmd.Wait()
	} else if resident(b.pid) > 0 { // restored
		_ = syscall.Kill(b.pid, syscall.SIGKILL)
	}
	return os.RemoveAll(b.dir)
}
