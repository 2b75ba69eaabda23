package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// crowds is how many containers an engine runs at a time. The peers get fewer:
// a thousand takes Docker minutes and gigabytes, and podman longer.
var crowds = map[string]int{"tare": 1000, "docker": 50, "podman": 20}

// crowdPatience is how long an engine may take to start its crowd, and to remove it.
const crowdPatience = 90 * time.Second

// throng is an engine with many containers.
type throng struct {
	*engine
	n int
	t *table
}

// benchCrowds measures each engine with many containers, one engine after the
// other: what a thousand network namespaces cost the kernel is not the next
// one's.
func benchCrowds(t *table, dir, bin, image string, runs int) error {
	if err := os.MkdirAll(filepath.Join(dir, "run"), 0o755); err != nil {
		return err
	}
	var sizes []string
	for _, e := range engines(dir, bin) {
		e.config = "{}\n"
		if e.name == "docker" { // its containers are to outlive it, as ours do
			e.config = `{"live-restore": true}` + "\n"
		}
		ready, stop := startEngines(t, []*engine{e}, image)
		for _, e := range ready {
			c := &throng{e, crowds[e.name], t}
			if err := c.measure(runs); err != nil {
				t.note("a crowd, %s: %v", e.name, err)
			}
			sizes = append(sizes, fmt.Sprintf("%d containers of %s", c.n, e.name))
		}
		stop()
	}
	t.note("a crowd is %s", strings.Join(sizes, ", "))
	return nil
}

// measure goes through the life of the crowd, with starts before it, beside it and
// after it: a machine that changes in these minutes is not to be taken for the crowd.
func (c *throng) measure(runs int) error {
	before, err := c.latency(runs)
	if err != nil {
		return err
	}
	beside, err := c.withCrowd(runs)
	if err != nil {
		return err
	}
	settle()
	after, err := c.latency(runs)
	if err != nil {
		return err
	}
	for i, when := range [...]string{"back to back", "after 200 ms"} {
		const title = "run --rm busybox true, bridge, "
		alone := (before[i] + after[i]) / 2
		c.add(title+when+", before the crowd", "ms", before[i])
		c.add(title+when+", beside the crowd", "ms", beside[i])
		c.add(title+when+", after the crowd", "ms", after[i])
		c.add("beside the crowd, "+when+", times the mean of before and after", "times", beside[i]/alone)
	}
	return nil
}

// withCrowd is what there is to measure while the crowd is there, from its start to
// its end.
func (c *throng) withCrowd(runs int) (beside latencies, err error) {
	defer c.disperse()
	took, err := c.gather()
	if err != nil {
		return beside, err
	}
	c.add("start of a crowd, all at once, for each", "ms", took/float64(c.n))
	settle()
	if err := c.weigh(); err != nil {
		return beside, err
	}
	if beside, err = c.latency(runs); err != nil {
		return beside, err
	}
	if took, err = c.typical(runs, 0, "ps"); err != nil {
		return beside, err
	}
	c.add("ps of a crowd", "ms", took)
	return beside, c.takeOver()
}

func (c *throng) add(title, unit string, value float64) { c.t.add(title, unit, c.name, value) }

// latencies are those of runs back to back and after pauses.
type latencies [2]float64

func (c *throng) latency(runs int) (l latencies, err error) {
	for i, between := range [...]time.Duration{0, pause} {
		syscall.Sync()
		time.Sleep(rest)
		if l[i], err = c.typical(runs, between, "run", "--rm", "busybox", "true"); err != nil {
			return l, err
		}
	}
	return l, nil
}

// settle lets all come to rest after many starts, or ends.
func settle() { time.Sleep(5 * time.Second) }

// gather starts the crowd, all at once.
func (c *throng) gather() (float64, error) {
	var wg sync.WaitGroup
	errs := make([]error, c.n)
	begin := time.Now()
	for i := range c.n {
		wg.Go(func() { _, errs[i] = tryFor(crowdPatience, c.command("run", "-d", "busybox", "sleep", "100000")) })
	}
	wg.Wait()
	return ms(time.Since(begin)), errors.Join(errs...)
}

// typical is the median of a command's times, with a pause before each.
func (c *throng) typical(runs int, between time.Duration, args ...string) (float64, error) {
	var all []float64
	for range runs {
		time.Sleep(between)
		took, err := tryFor(crowdPatience/3, c.command(args...))
		if err != nil {
			return 0, err
		}
		all = append(all, took)
	}
	return median(all), nil
}

// ids are all containers of the engine.
func (c *throng) ids(args ...string) []string {
	out, _ := c.command(append([]string{"ps", "-q", "--no-trunc"}, args...)...).Output()
	return strings.Fields(string(out))
}

// weigh puts down what each container of the crowd takes beside itself, and
// what the daemon has.
func (c *throng) weigh() error {
	out, err := c.command(append([]string{"inspect", "--format", "{{.State.Pid}}"}, c.ids()...)...).Output()
	if err != nil {
		return fmt.Errorf("inspect of a crowd: %w", err)
	}
	var private, resident float64
	pids := strings.Fields(string(out))
	for _, word := range pids {
		pid, err := strconv.Atoi(word)
		if err != nil {
			return err
		}
		p, r := beside(pid, c.rule)
		private, resident = private+p, resident+r
	}
	if len(pids) != c.n {
		return fmt.Errorf("%d containers run, not %d", len(pids), c.n)
	}
	c.add("beside each container of a crowd, private", "MB", private/float64(c.n))
	c.add("beside each container of a crowd, resident", "MB", resident/float64(c.n))
	c.add("daemon with a crowd, resident", "MB", c.daemonMemory())
	return nil
}

// takeOver ends the daemon and times until its successor answers and knows the
// whole crowd.
func (c *throng) takeOver() error {
	if c.running == nil {
		return nil
	}
	if err := c.running.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	_ = c.running.Wait()
	begin := time.Now()
	if err := c.begin(); err != nil {
		return err
	}
	if found := len(c.ids()); found != c.n {
		return fmt.Errorf("%d containers run after the daemon's start, not %d", found, c.n)
	}
	c.add("start of the daemon beside a crowd", "ms", ms(time.Since(begin)))
	return nil
}

// disperse removes the crowd.
func (c *throng) disperse() {
	ids := c.ids("-a")
	if len(ids) == 0 {
		return
	}
	args := []string{"rm", "-f"}
	if c.daemon == nil {
		args = append(args, "-t", "0") // podman asks first, and waits ten seconds for each
	}
	took, err := tryFor(crowdPatience, c.command(append(args, ids...)...))
	if err != nil {
		c.t.note("%s: %v", c.name, err)
		c.wipe()
		return
	}
	c.add("rm -f of a crowd, for each", "ms", took/float64(len(ids)))
}

// wipe kills what runs beside the containers, and these: the engine would take
// too long, and nothing may be left of them.
func (c *throng) wipe() {
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, entry := range entries {
		pid, _ := strconv.Atoi(filepath.Base(entry))
		if line := commandLine(pid); !strings.Contains(line, c.rule) || !strings.Contains(line, c.dir) {
			continue
		}
		for _, below := range append(childrenOf(pid), pid) {
			_ = syscall.Kill(below, syscall.SIGKILL)
		}
	}
}
