// Command bench measures tare side by side with the container engines and
// runtimes that are installed, in one run on one machine, and prints medians
// and ratios as Markdown. It needs root and an idle machine; what is missing is
// said, not guessed.
//
//	bench [-n RUNS] [-bin DIR]
//
// Every engine gets a daemon of its own in a network namespace of its own, on
// a directory that is removed at the end.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	runs := flag.Int("n", 20, "runs of each measurement")
	bin := flag.String("bin", "bin", "directory of tare's programs")
	flag.Parse()
	if os.Getenv(private) == "" {
		os.Exit(again())
	}
	if err := measure(*runs, *bin); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// private is set in the process that measures.
const private = "TARE_BENCH_PRIVATE"

// again executes this program in a mount namespace of its own, without a
// cgroup2 hierarchy beside the v1 ones: crun refuses to run beside that.
func again() int {
	cmd := exec.Command("unshare", "--mount", "sh", "-c",
		`[ ! -e /sys/fs/cgroup/cpu ] || umount /sys/fs/cgroup/unified 2>/dev/null; exec "$0" "$@"`)
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	cmd.Args = append(append(cmd.Args, self), os.Args[1:]...)
	cmd.Env = append(os.Environ(), private+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

// pause is what lies between two runs of the measurements that are not back to
// back: long enough for the kernel to go idle.
const pause = 200 * time.Millisecond

func measure(runs int, bin string) (err error) {
	if os.Geteuid() != 0 {
		return fmt.Errorf("making containers needs root: run it with sudo")
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tare-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// What belongs to one boot is on a tmpfs, as /run is on most machines.
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o755); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", filepath.Join(dir, "run"), "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("mounting a tmpfs: %w", err)
	}
	defer unmountBelow(dir)
	image := filepath.Join(dir, "busybox.tar")
	if out, err := exec.Command("sh", "-c", "scripts/busybox-tar > "+image).CombinedOutput(); err != nil {
		return fmt.Errorf("making the image: %w: %s", err, out)
	}
	t := &table{}
	if err := benchRuntimes(t, dir, image, bin, runs); err != nil {
		return err
	}
	for _, e := range engines(dir, bin) {
		if err := benchEngine(t, e, image, runs); err != nil {
			t.note("%s: %v", e.name, err)
		}
	}
	return t.print(os.Stdout)
}

// benchEngine starts an engine, measures it and stops it.
func benchEngine(t *table, e *engine, image string, runs int) (err error) {
	if missing := e.missing(); missing != "" {
		t.note("%s is not installed: %s", e.name, missing)
		return nil
	}
	if err := e.start(image); err != nil {
		e.stop()
		return err
	}
	defer e.stop()
	defer recovered(&err)
	t.version(e.name, e.versionText())
	if rss := e.daemonMemory(); rss > 0 {
		t.add("daemon idle, resident", "MB", e.name, rss)
	}
	for _, network := range []string{"none", "bridge"} {
		title := "run --rm busybox true, " + network
		args := []string{"run", "--rm", "--network", network, "busybox", "true"}
		t.add(title+", back to back", "ms", e.name, e.time(runs, 0, args...))
		t.add(title+", after 200 ms", "ms", e.name, e.time(runs, pause, args...))
		t.add("20 in parallel, "+network, "ms", e.name, e.parallel(20, args...))
	}
	if err := e.command("run", "-d", "--name", "steady", "--network", "none", "busybox", "sleep", "100000").Run(); err != nil {
		return fmt.Errorf("run -d: %w", err)
	}
	time.Sleep(5 * time.Second) // let it come to rest
	alone, resident := e.besides("steady")
	t.add("beside each container, private", "MB", e.name, alone)
	t.add("beside each container, resident", "MB", e.name, resident)
	t.add("exec true, back to back", "ms", e.name, e.time(runs, 0, "exec", "steady", "true"))
	t.add("exec true, after 200 ms", "ms", e.name, e.time(runs, pause, "exec", "steady", "true"))
	t.add("ps", "ms", e.name, e.time(runs, 0, "ps"))
	t.add("inspect", "ms", e.name, e.time(runs, 0, "inspect", "steady"))
	time.Sleep(5 * time.Second)
	alone, _ = e.besides("steady")
	t.add("the same after these execs, private", "MB", e.name, alone)
	t.add("create, start, stop, rm", "ms", e.name, e.cycle(runs/2))
	return nil
}

// time gives the median of a command's duration in ms.
func (e *engine) time(runs int, between time.Duration, args ...string) float64 {
	var all []float64
	for range runs {
		time.Sleep(between)
		all = append(all, timed(e.command(args...)))
	}
	return median(all)
}

// parallel gives the time until so many commands, begun together, have ended.
func (e *engine) parallel(n int, args ...string) float64 {
	var all []float64
	for range 3 {
		var wg sync.WaitGroup
		errs := make([]error, n)
		begin := time.Now()
		for i := range n {
			wg.Go(func() { _, errs[i] = try(e.command(args...)) })
		}
		wg.Wait()
		all = append(all, ms(time.Since(begin)))
		if err := errors.Join(errs...); err != nil {
			panic(failure{err})
		}
	}
	return median(all)
}

// cycle times a life in four commands, of a process that obeys SIGTERM.
func (e *engine) cycle(runs int) float64 {
	var all []float64
	for range runs {
		begin := time.Now()
		for _, args := range [][]string{
			{"create", "--name", "cycle", "busybox", "sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"},
			{"start", "cycle"}, {"stop", "cycle"}, {"rm", "cycle"},
		} {
			timed(e.command(args...))
		}
		all = append(all, ms(time.Since(begin)))
	}
	return median(all)
}

// failure ends the measurement of an engine or runtime by a panic: a command
// failed, and its time would mean nothing.
type failure struct{ error }

// recovered turns a failure into the error of who defers it.
func recovered(err *error) {
	switch r := recover().(type) {
	case nil:
	case failure:
		*err = r
	default:
		panic(r)
	}
}

// timed runs a command and gives its duration in ms.
func timed(cmd *exec.Cmd) float64 {
	took, err := try(cmd)
	if err != nil {
		panic(failure{err})
	}
	return took
}

func try(cmd *exec.Cmd) (took float64, err error) {
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	took = ms(time.Since(begin))
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(string(out)))
	}
	return took, nil
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func median(list []float64) float64 {
	sort.Float64s(list)
	return list[len(list)/2]
}

// machine says what was measured on.
func machine() string {
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("Linux %s, %d cores, %s", strings.TrimSpace(string(release)), runtime.NumCPU(), runtime.GOARCH)
}
