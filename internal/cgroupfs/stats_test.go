package cgroupfs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// files makes a directory with files.
func files(t *testing.T, content map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range content {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestReadV2(t *testing.T) {
	s := ReadV2(files(t, map[string]string{
		"cpu.stat":    "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 5\nnr_throttled 2\nthrottled_usec 7\n",
		"memory.stat": "anon 1\nfile 2\ninactive_file 3\n", "memory.current": "100\n", "memory.max": "max\n", "memory.peak": "200\n",
		"memory.events": "low 0\nmax 4\noom 6\n", "pids.current": "9\n", "pids.max": "max\n",
		"io.stat":      "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n8:16 \n",
		"cpu.pressure": "some avg10=1.50 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n",
	}))
	if u, th := s.CPU.Usage, s.CPU.Throttling; u.Total != 30000 || u.User != 20000 || u.Kernel != 10000 || th.Periods != 5 || th.Throttled != 2 || th.Time != 7000 {
		t.Errorf("CPU: %+v", s.CPU)
	}
	if s.CPU.PSI == nil || s.CPU.PSI.Some.Avg10 != 1.5 || s.CPU.PSI.Full.Total != 3 {
		t.Errorf("pressure: %+v", s.CPU.PSI)
	}
	if d := cmp.Diff(MemoryUse{Limit: NoLimit, Usage: 100, Max: 200, Failures: 4}, s.Memory.Usage); d != "" || s.Memory.Raw["inactive_file"] != 3 {
		t.Errorf("memory: %s %v", d, s.Memory.Raw)
	}
	if s.Pids != (PidsStats{Current: 9}) {
		t.Errorf("pids: %+v", s.Pids)
	}
	want := IOStats{Bytes: []IOEntry{{8, 0, "Read", 1}, {8, 0, "Write", 2}, {8, 0, "Discard", 5}}, Operations: []IOEntry{{8, 0, "Read", 3}, {8, 0, "Write", 4}, {8, 0, "Discard", 6}}}
	if d := cmp.Diff(want, s.IO); d != "" {
		t.Error(d)
	}
}

func TestReadV1(t *testing.T) {
	dir := files(t, map[string]string{
		"cpuacct.usage": "500\n", "cpuacct.stat": "user 3\nsystem 4\n", "cpuacct.usage_all": "cpu user system\n0 100 150\n1 200 50\n",
		"cpu.stat": "nr_periods 5\nnr_throttled 2\nthrottled_time 7\n", "memory.stat": "cache 8\ntotal_inactive_file 3\n",
		"memory.usage_in_bytes": "100\n", "memory.limit_in_bytes": "1000\n", "memory.max_usage_in_bytes": "200\n", "memory.failcnt": "1\n",
		"pids.current": "9\n", "pids.max": "11\n",
		"blkio.throttle.io_service_bytes_recursive": "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 3\n", "blkio.time_recursive": "8:0 17\n",
	})
	s := ReadV1(func(controller string) string {
		if controller == "hugetlb" {
			return ""
		}
		return dir
	})
	if u := s.CPU.Usage; u.Total != 500 || u.User != 3e7 || u.Kernel != 4e7 || !cmp.Equal(u.Percpu, []uint64{250, 250}) || s.CPU.Throttling.Time != 7 {
		t.Errorf("CPU: %+v", s.CPU)
	}
	if d := cmp.Diff(MemoryUse{Limit: 1000, Usage: 100, Max: 200, Failures: 1}, s.Memory.Usage); d != "" || s.Memory.Cache != 8 {
		t.Errorf("memory: %s %+v", d, s.Memory)
	}
	if s.Pids != (PidsStats{9, 11}) {
		t.Errorf("pids: %+v", s.Pids)
	}
	if d := cmp.Diff([]IOEntry{{8, 0, "Read", 1}, {8, 0, "Write", 2}, {8, 0, "Total", 3}}, s.IO.Bytes); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]IOEntry{{8, 0, "", 17}}, Blkio(dir, "blkio.time_recursive")); d != "" {
		t.Error(d)
	}
}

func TestProcs(t *testing.T) {
	dir := files(t, map[string]string{"cgroup.procs": "7\n0\n"}) // 0 is a process of another namespace
	if err := os.MkdirAll(dir+"/a/b", 0o700); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{"/a": "", "/a/b": "8\n9\n"} {
		if err := os.WriteFile(dir+path+"/cgroup.procs", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := (Group{"": dir}).Procs(); err != nil || !cmp.Equal(got, []int{7, 8, 9}) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := (Group{}).Procs(); err == nil {
		t.Error("no group has processes")
	}
}
