package network

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	wire "github.com/moby/moby/api/types/network"
)

// The benchmarks detach after each attach, out of the measured time, and wait
// so long between that the pool and the remover have caught up.

func BenchmarkAttachMade(b *testing.B)  { benchmarkAttach(b, 0) }
func BenchmarkAttachSpare(b *testing.B) { benchmarkAttach(b, 1) }
func BenchmarkAttachSparePort(b *testing.B) {
	benchmarkAttach(b, 1, Port{HostPort: 8080, ContainerPort: 80})
}
func BenchmarkAttach500Ports(b *testing.B) { benchmarkAttach(b, 1, hostPorts(9000, 9499, 0)...) }
func BenchmarkAttach500Shifted(b *testing.B) {
	benchmarkAttach(b, 1, hostPorts(9000, 9499, 1)...)
}

func BenchmarkBackToBackMade(b *testing.B)  { benchmarkBackToBack(b, 0) }
func BenchmarkBackToBackSpare(b *testing.B) { benchmarkBackToBack(b, 1) }

func benchmarkBackToBack(b *testing.B, spare int) {
	if !asHost(b) {
		return
	}
	c := testConfig("tt0", 1)
	c.Spare = spare
	s, err := Open(b.Context(), c)
	must(b, err)
	defer s.Close(context.Background())
	must(b, s.Restore(b.Context(), nil))
	var times []time.Duration
	for i := 0; b.Loop(); i++ {
		start := time.Now()
		a, err := s.Attach(b.Context(), Request{Wants: []Want{{}}, ContainerID: fmt.Sprint(i)})
		must(b, err)
		times = append(times, time.Since(start))
		time.Sleep(4 * time.Millisecond) // the container
		letGo(a)
		must(b, s.Detach(b.Context(), a.Sandbox))
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), "median-µs")
	b.ReportMetric(float64(times[len(times)*9/10].Microseconds()), "p90-µs")
}

func benchmarkAttach(b *testing.B, spare int, ports ...Port) {
	if !asHost(b) {
		return
	}
	c := testConfig("tt0", 1)
	c.Spare = spare
	s, err := Open(b.Context(), c)
	must(b, err)
	defer s.Close(context.Background())
	must(b, s.Restore(b.Context(), nil))
	time.Sleep(50 * time.Millisecond)
	var worst, detach time.Duration
	for i := 0; b.Loop(); i++ {
		start := time.Now()
		a, err := s.Attach(b.Context(), Request{Wants: []Want{{}}, ContainerID: fmt.Sprint(i), Ports: ports})
		must(b, err)
		worst = max(worst, time.Since(start))
		b.StopTimer()
		letGo(a)
		start = time.Now()
		must(b, s.Detach(b.Context(), a.Sandbox))
		detach += time.Since(start)
		time.Sleep(60 * time.Millisecond)
		b.StartTimer()
	}
	b.ReportMetric(float64(worst.Microseconds()), "worst-µs")
	b.ReportMetric(float64(detach.Microseconds())/float64(b.N), "detach-µs")
}

// BenchmarkConnect adds a network to a container that runs, and takes it away.
func BenchmarkConnect(b *testing.B) {
	if !asHost(b) {
		return
	}
	s := open(b, testConfig("tt0", 1))
	_, err := s.Create(b.Context(), wire.CreateRequest{Name: "n", EnableIPv6: on()})
	must(b, err)
	a, err := s.Attach(b.Context(), Request{ContainerID: "0123456789abcdef", Wants: []Want{{}}})
	must(b, err)
	defer letGo(a)
	box := a.Sandbox
	for b.Loop() {
		after, _, err := s.Connect(b.Context(), box, a.NetNS, Want{Network: "n"}, nil)
		must(b, err)
		b.StopTimer()
		box, _, err = s.Disconnect(b.Context(), after, a.NetNS, after.Endpoints[1].ID, nil)
		must(b, err)
		b.StartTimer()
	}
}
