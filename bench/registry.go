package main

import (
	"fmt"
	"os"
	"syscall"
	"time"
)

// What the registries are asked for.
const (
	small, large = 1 << 20, 100_000_000 // bytes of the blobs that are read
	layer        = 50 << 20             // bytes of a blob that is pushed
	crowd        = 100                  // uploads of large blobs beside each other
	stock        = 100_000              // blobs of a registry that is started
)

// benchRegistries measures servers of images by turns.
func benchRegistries(t *table, dir, bin string, runs int) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	disk, err := newDisk(dir, "disk")
	if err != nil {
		return err
	}
	if err := direct(disk); err != nil {
		t.note("registries: the disk has a page cache of its own, so a sync waits for all that was written: %v", err)
	}
	var depots []*depot
	for _, start := range []func(string, string) (*depot, error){startTare, startDocker, startBare} {
		d, err := start(disk, bin)
		if err != nil {
			t.note("registries: %v", err)
			continue
		}
		defer func() { d.stop() }()
		depots = append(depots, d)
	}
	time.Sleep(5 * time.Second)
	for _, d := range depots {
		t.add("registry idle, resident", "MB", d.name, resident(d.pid))
		if err := d.fill(); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	gets := func(title string, n int, path func(*depot) string) {
		compareCPU(t, title+", server CPU", n, depots, func(d *depot) error { return d.read(path(d)) })
	}
	gets("GET of a manifest", 1000*runs, func(d *depot) string { return d.manifest })
	gets("GET of a blob of 1 MiB", 200*runs, func(d *depot) string { return d.little })
	compareRate(t, "GET of a blob of 100 MB", large, runs, depots, func(d *depot, _ int) func() error {
		return func() error { return d.read(d.big) }
	})
	var writers []*depot
	for _, d := range depots {
		if d.name != bare {
			writers = append(writers, d)
		}
	}
	compareRate(t, "push of a blob of 50 MiB", layer, runs, writers, func(d *depot, n int) func() error { return d.pushReady(uint64(1000+n), layer) })
	for _, d := range writers {
		if err := d.pushTogether(t); err != nil {
			t.note("%s, eight pushes of one blob: %v", d.name, err)
		}
	}
	for _, d := range writers {
		if err := d.pushMany(t); err != nil {
			t.note("%s, %d pushes at once: %v", d.name, crowd, err)
		}
	}
	if len(depots) > 0 && depots[0].name == "tare-registry" {
		return depots[0].startFull(t, bin)
	}
	return nil
}

// compareCPU measures what a request costs the server, by turns.
func compareCPU(t *table, title string, n int, depots []*depot, once func(*depot) error) {
	total, failed := make([]float64, len(depots)), make([]error, len(depots))
	each := n / blocks
	for range blocks {
		for i, d := range depots {
			time.Sleep(rest)
			before := cpuOf(d.pid)
			for m := 0; m < each && failed[i] == nil; m++ {
				failed[i] = once(d)
			}
			total[i] += cpuOf(d.pid) - before
		}
	}
	for i, d := range depots {
		if failed[i] != nil {
			t.note("%s, %s: %v", d.name, title, failed[i])
			continue
		}
		t.add(title, "µs", d.name, total[i]*1000/float64(each*blocks))
	}
}

// compareRate measures how fast bytes go, by turns, and what that costs the
// server. What prepare does itself is not counted.
func compareRate(t *table, title string, size int64, runs int, depots []*depot, prepare func(d *depot, n int) func() error) {
	all, failed, total := make([][]float64, len(depots)), make([]error, len(depots)), make([]float64, len(depots))
	for n := range runs {
		for i, d := range depots {
			if failed[i] != nil {
				continue
			}
			once := prepare(d, n)
			syscall.Sync()
			before, begin := cpuOf(d.pid), time.Now()
			failed[i] = once()
			all[i] = append(all[i], float64(size)/1e6/time.Since(begin).Seconds())
			total[i] += cpuOf(d.pid) - before
		}
	}
	for i, d := range depots {
		if failed[i] != nil {
			t.note("%s, %s: %v", d.name, title, failed[i])
			continue
		}
		t.add(title, "MB/s", d.name, median(all[i]))
	}
	for i, d := range depots {
		if failed[i] == nil {
			t.add(title+", server CPU", "ms", d.name, total[i]/float64(len(all[i])))
		}
	}
}

// pushTogether has eight clients push the same new blob at the same time.
func (d *depot) pushTogether(t *table) error {
	const clients = 8
	before := written(d.pid)
	if err := together(clients, func(int) error { return d.push(77, layer) }); err != nil {
		return err
	}
	t.add("written when eight push one new blob of 50 MiB", "MB", d.name, (written(d.pid)-before)/1e6)
	return nil
}

// pushMany has many clients push large blobs of their own at the same time.
func (d *depot) pushMany(t *table) error {
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", d.pid), []byte("5"), 0) // the peak begins anew, proc(5)
	err := together(crowd, func(i int) error { return d.push(uint64(10_000+i), large) })
	if err != nil {
		return err
	}
	t.add(fmt.Sprintf("%d pushes of 100 MB at once, peak memory", crowd), "MB", d.name, highest(d.pid))
	return nil
}

func together(n int, f func(i int) error) error {
	errs := make(chan error, n)
	for i := range n {
		go func() { errs <- f(i) }()
	}
	var first error
	for range n {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// written is how many bytes a process had written to storage, proc(5).
func written(pid int) float64 { return told(pid, "io", "write_bytes") }

// startFull measures the start with many blobs stored.
func (d *depot) startFull(t *table, bin string) error {
	const clients = 64
	err := together(clients, func(c int) error {
		for i := c; i < stock; i += clients {
			if err := d.push(uint64(1_000_000+i), 100); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	var took []float64
	for range 5 {
		d.stop()
		begin := time.Now()
		if err := d.run(bin); err != nil {
			return err
		}
		took = append(took, ms(time.Since(begin)))
	}
	t.add(fmt.Sprintf("start to the first answer, %d blobs stored", stock), "ms", d.name, median(took))
	return nil
}
