package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/thread"
)

// What asks at the same time, and how long.
const (
	askers   = 32
	askingOn = 2 * time.Second
)

// benchNames measures the look-up of a container's name in a container: how
// many a second are answered while the process that answers has one processor,
// and how long one takes.
func benchNames(t *table, ready []*engine) {
	for _, e := range ready {
		if e.name == "podman" { // its resolver needs packages that are rarely there
			continue
		}
		if err := e.lookUp(t); err != nil {
			t.note("look-ups, %s: %v", e.name, err)
		}
	}
}

func (e *engine) lookUp(t *table) error {
	const network, container = "bench-names", "named"
	defer func() {
		_ = e.command("rm", "-f", container).Run()
		_ = e.command("network", "rm", network).Run()
	}()
	if _, err := try(e.command("network", "create", network)); err != nil {
		return err
	}
	if _, err := try(e.command("run", "-d", "--name", container, "--network", network, "busybox", "sleep", "1000")); err != nil {
		return err
	}
	out, err := e.command("inspect", "--format", "{{.State.Pid}}", container).Output()
	if err != nil {
		return err
	}
	var conns []net.Conn
	for range askers {
		conn, err := dialInside(strings.TrimSpace(string(out)))
		if err != nil {
			return err
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	query := []byte("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x05named\x00\x00\x01\x00\x01")
	var times []time.Duration
	for range 2000 {
		begin := time.Now()
		if err := askOnce(conns[0], query); err != nil {
			return err
		}
		times = append(times, time.Since(begin))
	}
	slices.Sort(times)
	t.add("look-up of a container's name", "ms", e.name, times[len(times)/2].Seconds()*1000)

	pid := e.resolver()
	if err := pin(pid); err != nil {
		return err
	}
	var answers atomic.Int64
	var asking sync.WaitGroup
	end := time.Now().Add(askingOn)
	for _, conn := range conns {
		asking.Go(func() {
			for time.Now().Before(end) && askOnce(conn, query) == nil {
				answers.Add(1)
			}
		})
	}
	asking.Wait()
	t.add("look-ups answered by one processor", "/s", e.name, float64(answers.Load())/askingOn.Seconds())
	if e.name == "tare" {
		t.add("memory of the process that answers, resident", "MB", e.name, resident(pid))
	}
	return nil
}

// resolver is the process that answers.
func (e *engine) resolver() int {
	if e.name == "tare" {
		found, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, f := range found {
			line, _ := os.ReadFile(f)
			if strings.HasPrefix(string(line), "tare-dns\x00") && strings.Contains(string(line), filepath.Join(filepath.Dir(e.dir), "run", e.name)) {
				pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
				return pid
			}
		}
	}
	return e.running.Process.Pid
}

// pin leaves the first processor to all threads of a process.
func pin(pid int) error {
	var set unix.CPUSet
	set.Set(0)
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && err != unix.ESRCH {
			return os.NewSyscallError("sched_setaffinity", err)
		}
	}
	return nil
}

// dialInside connects to the resolver from the network namespace of a process.
func dialInside(pid string) (conn net.Conn, err error) {
	ns, err := os.Open("/proc/" + pid + "/ns/net")
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	thread.Own(func() bool { // the thread ends with it
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			conn, err = net.Dial("udp", "127.0.0.11:53")
		}
		return false
	})
	return conn, err
}

func askOnce(conn net.Conn, query []byte) error {
	var answer [512]byte
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write(query); err != nil {
		return err
	}
	_, err := conn.Read(answer[:])
	return err
}
