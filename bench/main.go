// Command bench measures tare side by side with the container engines and
// runtimes that are installed, in one run on one machine, and prints medians
// and ratios as Markdown. It needs root and an idle machine; what is missing is
// said, not guessed.
//
//	bench [-n RUNS] [-bin DIR] [-groups runtimes,checkpoints,engines,ports,dns,lines,crowds,copies,builds,images,volumes,registries]
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
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	runs := flag.Int("n", 20, "runs of each measurement")
	bin := flag.String("bin", "bin", "directory of tare's programs")
	groups := flag.String("groups", "runtimes,checkpoints,engines,ports,dns,lines,crowds,copies,builds,images,volumes,registries", "what to measure")
	only := flag.String("only", "", "of the measurements of several subjects, those whose titles contain this")
	flag.Parse()
	if dir := os.Getenv(serveBare); dir != "" {
		fmt.Fprintln(os.Stderr, "bench:", serve(dir))
		os.Exit(1)
	}
	if kind := os.Getenv(traffic); kind != "" {
		if err := talk(kind, flag.Arg(0)); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(private) == "" {
		os.Exit(again())
	}
	if err := measure(&table{only: *only}, *runs, *bin, strings.Split(*groups, ",")); err != nil {
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

func measure(t *table, runs int, bin string, groups []string) (err error) {
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
	if slices.Contains(groups, "registries") {
		if err := benchRegistries(t, filepath.Join(dir, "registries"), bin, runs); err != nil {
			return err
		}
	}
	if slices.Contains(groups, "runtimes") {
		if err := benchRuntimes(t, dir, image, bin, runs); err != nil {
			return err
		}
	}
	if slices.Contains(groups, "checkpoints") {
		if err := benchCheckpoints(t, dir, image, bin, runs); err != nil {
			return err
		}
	}
	if slices.Contains(groups, "engines") {
		ready, stop := startEngines(t, engines(dir, bin), image)
		benchEngines(t, ready, runs)
		stop()
	}
	if slices.Contains(groups, "dns") {
		names := filepath.Join(dir, "names")
		if err := os.MkdirAll(filepath.Join(names, "run"), 0o755); err != nil {
			return err
		}
		ready, stop := startEngines(t, engines(names, bin), image)
		benchNames(t, ready)
		stop()
	}
	if slices.Contains(groups, "ports") {
		ports := filepath.Join(dir, "ports")
		if err := os.MkdirAll(filepath.Join(ports, "run"), 0o755); err != nil {
			return err
		}
		// Without a daemon the host of an engine's ports is another namespace.
		served := slices.DeleteFunc(engines(ports, bin), func(e *engine) bool { return e.daemon == nil })
		ready, stop := startEngines(t, served, image)
		err := benchPorts(t, ready, runs)
		stop()
		if err != nil {
			return err
		}
	}
	if slices.Contains(groups, "crowds") {
		if err := benchCrowds(t, filepath.Join(dir, "crowds"), bin, image, runs); err != nil {
			return err
		}
	}
	if slices.Contains(groups, "builds") {
		disk, err := newDisk(dir, "builds")
		if err == nil {
			err = benchBuilds(t, disk, bin, image, runs)
		}
		if err != nil {
			return err
		}
	}
	images, copies, lines := slices.Contains(groups, "images"), slices.Contains(groups, "copies"), slices.Contains(groups, "lines")
	volumes := slices.Contains(groups, "volumes")
	if images || copies || lines || volumes {
		disk, err := newDisk(dir, "disk")
		if err != nil {
			return err
		}
		ready, stop := startEngines(t, engines(disk, bin), image)
		defer stop()
		if lines {
			err = benchLines(t, disk, ready)
		}
		if err == nil && copies {
			err = benchCopies(t, disk, ready, max(runs/2, 1))
		}
		if err == nil && volumes {
			err = benchVolumes(t, disk, bin, ready, image, runs)
		}
		if err == nil && images {
			err = benchImages(t, disk, ready, max(runs/4, 1))
		}
		if err != nil {
			return err
		}
	}
	return t.print(os.Stdout)
}

// newDisk makes a file system below dir for trees of files: ext4 with a journal, in a
// file. One without, which some machines have, looks at all inodes that were
// freed in the last minutes whenever it makes a file, so that who comes after
// the removal of a large tree is ten times slower (fs/ext4/ialloc.c,
// recently_deleted).
func newDisk(dir, name string) (string, error) {
	file, disk := filepath.Join(dir, name+".img"), filepath.Join(dir, name)
	for _, args := range [][]string{
		{"truncate", "-s", "48G", file}, {"mkfs.ext4", "-q", "-F", file}, {"mkdir", disk}, {"mount", "-o", "loop", file, disk},
		{"mkdir", filepath.Join(disk, "run")}, {"mount", "-t", "tmpfs", "tmpfs", filepath.Join(disk, "run")},
	} {
		if _, err := try(exec.Command(args[0], args[1:]...)); err != nil {
			return "", err
		}
	}
	return disk, nil
}

// subject is who takes part in a measurement, and one run of it.
type subject struct {
	name string
	run  func() (took float64, err error) // ms
}

// blocks is into how many parts the runs of a measurement are cut. The parts of
// all subjects take turns, so that a machine which becomes slower or faster in
// the meantime favours nobody.
const blocks = 4

// compare measures all subjects by turns and puts their medians down. One that
// fails is told of and left out.
func (t *table) compare(title string, runs int, between time.Duration, subjects []subject) {
	if !strings.Contains(title, t.only) {
		return
	}
	all, failed := make([][]float64, len(subjects)), make([]error, len(subjects))
	for range blocks {
		for i, s := range subjects {
			// What the last one left to be done is not the next one's.
			syscall.Sync()
			time.Sleep(rest)
			for n := 0; n < max(1, runs/blocks) && failed[i] == nil; n++ {
				time.Sleep(between)
				var took float64
				if took, failed[i] = s.run(); failed[i] == nil {
					all[i] = append(all[i], took)
				}
			}
		}
	}
	for i, s := range subjects {
		if failed[i] != nil {
			t.note("%s, %s: %v", s.name, title, failed[i])
			continue
		}
		t.add(title, "ms", s.name, median(all[i]))
	}
}

// rest lies between the parts of two subjects.
const rest = time.Second

// startEngines starts those that are installed.
func startEngines(t *table, list []*engine, image string) (ready []*engine, stop func()) {
	for _, e := range list {
		if missing := e.missing(); missing != "" {
			t.note("%s is not installed: %s", e.name, missing)
			continue
		}
		if err := e.start(image); err != nil {
			t.note("%s: %v", e.name, err)
			e.stop()
			continue
		}
		ready = append(ready, e)
		t.version(e.name, e.versionText())
	}
	return ready, func() {
		for _, e := range ready {
			e.stop()
		}
	}
}

// benchEngines measures containers by turns.
func benchEngines(t *table, ready []*engine, runs int) {
	for _, e := range ready {
		t.add("daemon idle, resident", "MB", e.name, e.daemonMemory())
	}
	each := func(run func(e *engine) (float64, error)) (list []subject) {
		for _, e := range ready {
			list = append(list, subject{e.name, func() (float64, error) { return run(e) }})
		}
		return list
	}
	command := func(args ...string) []subject {
		return each(func(e *engine) (float64, error) { return try(e.command(args...)) })
	}
	for _, network := range []string{"none", "bridge"} {
		title := "run --rm busybox true, " + network
		args := []string{"run", "--rm", "--network", network, "busybox", "true"}
		t.compare(title+", back to back", runs, 0, command(args...))
		t.compare(title+", after 200 ms", runs, pause, command(args...))
		t.compare("20 in parallel, "+network, blocks, 0, each(func(e *engine) (float64, error) { return e.parallel(20, args...) }))
	}
	for _, e := range ready {
		if _, err := try(e.command("run", "-d", "--name", "steady", "--network", "none", "busybox", "sleep", "100000")); err != nil {
			t.note("%s: %v", e.name, err)
		}
	}
	memories(t, ready, "beside each container")
	t.compare("exec true, back to back", runs, 0, command("exec", "steady", "true"))
	t.compare("exec true, after 200 ms", runs, pause, command("exec", "steady", "true"))
	t.compare("ps", runs, 0, command("ps"))
	t.compare("inspect", runs, 0, command("inspect", "steady"))
	memories(t, ready, "the same after these execs")
	t.compare("stop of what obeys SIGTERM", runs/2, 0, each((*engine).stopOne))
	t.compare("create, start, stop, rm", runs/2, 0, each((*engine).cycle))
}

// memories puts down what the engines hold beside their container at rest.
func memories(t *table, list []*engine, title string) {
	time.Sleep(5 * time.Second)
	for _, e := range list {
		private, resident := e.besides("steady")
		t.add(title+", private", "MB", e.name, private)
		t.add(title+", resident", "MB", e.name, resident)
	}
}

// parallel gives the time until so many commands, begun together, have ended.
func (e *engine) parallel(n int, args ...string) (float64, error) {
	var wg sync.WaitGroup
	errs := make([]error, n)
	begin := time.Now()
	for i := range n {
		wg.Go(func() { _, errs[i] = try(e.command(args...)) })
	}
	wg.Wait()
	return ms(time.Since(begin)), errors.Join(errs...)
}

// obedient is a process that ends on SIGTERM, and says when it is ready for it.
const obedient = "trap 'exit 0' TERM; echo ready; sleep 1000 & wait"

// stopOne times stop alone.
func (e *engine) stopOne() (took float64, err error) {
	if _, err = try(e.command("run", "-d", "--name", "obedient", "--network", "none", "busybox", "sh", "-c", obedient)); err != nil {
		return 0, err
	}
	for ready := false; !ready; {
		out, err := e.command("logs", "obedient").Output()
		if err != nil {
			return 0, err
		}
		ready = len(out) > 0
	}
	if took, err = try(e.command("stop", "obedient")); err != nil {
		return 0, err
	}
	_, err = try(e.command("rm", "obedient"))
	return took, err
}

// cycle times a life in four commands, of a process that obeys SIGTERM.
func (e *engine) cycle() (float64, error) {
	begin := time.Now()
	for _, args := range [][]string{
		{"create", "--name", "cycle", "busybox", "sh", "-c", obedient},
		{"start", "cycle"}, {"stop", "cycle"}, {"rm", "cycle"},
	} {
		if _, err := try(e.command(args...)); err != nil {
			return 0, err
		}
	}
	return ms(time.Since(begin)), nil
}

// try runs a command and gives its duration in ms. A command that fails has
// none: it would mean nothing.
func try(cmd *exec.Cmd) (took float64, err error) {
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	took = ms(time.Since(begin))
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(string(out)))
	}
	return took, nil
}

// tryFor is try for a command that may take far too long.
func tryFor(limit time.Duration, cmd *exec.Cmd) (took float64, err error) {
	var over atomic.Bool
	timer := time.AfterFunc(limit, func() {
		over.Store(true)
		if cmd.Process != nil {
			_ = cmd.Process.Kill()
		}
	})
	defer timer.Stop()
	if took, err = try(cmd); over.Load() {
		err = fmt.Errorf("%s: not done after %v", strings.Join(cmd.Args, " "), limit)
	}
	return took, err
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
