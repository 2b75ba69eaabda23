package supervise_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/supervise"
)

// BenchmarkRun makes, starts, awaits and releases containers that run true,
// from a pool, back to back and with pauses.
func BenchmarkRun(b *testing.B) {
	testutil.RequireRoot(b)
	for _, pause := range []time.Duration{0, 200 * time.Millisecond} {
		b.Run("pause="+pause.String(), func(b *testing.B) {
			l := launcher(b, 2)
			x := newBox(b, supervise.Runtime{}, "/bin/busybox", "true")
			var create, start, wait, release []time.Duration
			for range b.N {
				x.writeConfig()
				b.StopTimer()
				time.Sleep(max(pause, 40*time.Millisecond)) // the pool fills
				b.StartTimer()
				t := time.Now()
				step := func(d *[]time.Duration) {
					now := time.Now()
					*d = append(*d, now.Sub(t))
					t = now
				}
				k, err := l.Create(b.Context(), x.cfg)
				if err != nil {
					b.Fatal(err)
				}
				step(&create)
				if _, _, err := k.Start(b.Context()); err != nil {
					b.Fatal(err)
				}
				step(&start)
				if _, err := k.Wait(b.Context()); err != nil {
					b.Fatal(err)
				}
				step(&wait)
				if err := k.Release(b.Context()); err != nil {
					b.Fatal(err)
				}
				step(&release)
				k.Close()
			}
			for name, d := range map[string][]time.Duration{"create": create, "start": start, "wait": wait, "release": release} {
				slices.Sort(d)
				b.ReportMetric(float64(d[len(d)/2].Microseconds())/1000, name+"-ms")
			}
		})
	}
}

// BenchmarkMemory tells the private memory of one supervising process.
func BenchmarkMemory(b *testing.B) {
	testutil.RequireRoot(b)
	for _, busy := range []bool{false, true} {
		b.Run(fmt.Sprintf("busy=%v", busy), func(b *testing.B) {
			script := "sleep 100"
			if busy { // 20 MB of output first
				script = "seq 1 3000000; echo; sleep 100"
			}
			l := launcher(b, 1)
			time.Sleep(50 * time.Millisecond)
			x := newBox(b, supervise.Runtime{}, shell(script)...)
			x.create(l)
			x.start()
			time.Sleep(6 * time.Second)
			pid := parent(b, x.keeper.Pid())
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
			if err != nil {
				b.Fatal(err)
			}
			kb := map[string]float64{}
			for line := range strings.Lines(string(text)) {
				var name string
				var n float64
				fmt.Sscanf(line, "%s %f", &name, &n)
				kb[name] = n
			}
			threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
			b.ReportMetric(kb["Private_Clean:"]+kb["Private_Dirty:"], "private-KB")
			b.ReportMetric(kb["Rss:"], "rss-KB")
			b.ReportMetric(float64(len(threads)), "threads")
		})
	}
}

// BenchmarkLog writes a million lines of 40 bytes to the json-file.
func BenchmarkLog(b *testing.B) {
	testutil.RequireRoot(b)
	l := launcher(b, 1)
	for range b.N {
		x := newBox(b, supervise.Runtime{}, shell("yes 'a line of forty bytes of ordinary text' | head -n 1000000")...)
		x.create(l)
		x.start()
		x.wait(0)
		x.release()
	}
}
