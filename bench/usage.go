package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ticks is how many clock ticks a second has in /proc, USER_HZ.
const ticks = 100

// cost is what a command took, of the machine too.
type cost struct {
	wall float64 // ms
	cpu  float64 // ms, of the client and of the daemon with what it started
	peak float64 // MB resident at the same time, of all these
}

// costOf runs a client's command and adds up what it takes of the machine.
func (e *engine) costOf(args ...string) (cost, error) {
	return e.costOfCommand(e.command(args...))
}

func (e *engine) costOfCommand(cmd *exec.Cmd) (c cost, err error) {
	for _, pid := range e.processes() {
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0) // the peak begins anew, proc(5)
	}
	before := e.cpu()
	watch := e.watch(cmd)
	c.wall, err = try(cmd)
	c.peak = watch()
	if err != nil {
		return c, err
	}
	c.cpu = e.cpu() - before + ms(cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
	return c, nil
}

// processes are the daemon and those below it.
func (e *engine) processes() []int {
	if e.running == nil {
		return nil
	}
	pid := e.running.Process.Pid
	return append(childrenOf(pid), pid)
}

// cpu is the time in ms that the daemon's processes have taken, those that have
// ended included: what a process waited for is told with it, and goes to its
// parent when it ends itself.
func (e *engine) cpu() (total float64) {
	for _, pid := range e.processes() {
		total += cpuOf(pid)
	}
	return total
}

// cpuOf is what a process and those that it waited for have taken, in ms.
func cpuOf(pid int) (total float64) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(after) // from the third on
	for _, field := range fields[11:15] {
		n, _ := strconv.ParseFloat(field, 64)
		total += n * 1000 / ticks
	}
	return total
}

// watch looks at the memory until the returned function is called, which tells
// the most that there was at a time.
func (e *engine) watch(cmd *exec.Cmd) (stop func() float64) {
	var peak float64
	end := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		for {
			total := 0.0
			pids := e.processes()
			if e.daemon == nil && cmd.Process != nil {
				pids = append(childrenOf(cmd.Process.Pid), cmd.Process.Pid)
			}
			for _, pid := range pids {
				total += resident(pid)
			}
			peak = max(peak, total)
			select {
			case <-end:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	return func() float64 {
		close(end)
		done.Wait()
		if e.running != nil { // between two looks too
			peak = max(peak, highest(e.running.Process.Pid))
		}
		return peak
	}
}

// resident is what a process has in memory now, in MB.
func resident(pid int) float64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseFloat(fields[1], 64)
	return pages * float64(os.Getpagesize()) / (1 << 20)
}

// highest is the most that it had, VmHWM of proc(5).
func highest(pid int) float64 { return told(pid, "status", "VmHWM") / 1024 }

// told is a number in a file of /proc/PID whose lines are "name: number"; 0 if
// it is not there.
func told(pid int, file, name string) float64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			n, _ := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return n
		}
	}
	return 0
}
