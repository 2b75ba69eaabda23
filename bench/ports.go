package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// traffic is set in the processes that talk: "serve" or the client's kind.
const traffic = "TARE_BENCH_TRAFFIC"

// talk is what such a process does; the address is the server's.
func talk(kind, address string) error {
	if kind == "serve" {
		return listen(address)
	}
	const length = 1500 * time.Millisecond
	begin, count := time.Now(), 0.0
	switch kind {
	case "connections": // answered ones, a second: a proxy takes them before it knows whether anybody serves
		for b := make([]byte, 1); time.Since(begin) < length; count++ {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				return err
			}
			if _, err := conn.Write(b); err != nil {
				return err
			}
			if _, err := io.ReadFull(conn, b); err != nil {
				return err
			}
			conn.(*net.TCPConn).SetLinger(0) // nothing is left in TIME_WAIT
			conn.Close()
		}
		fmt.Println(count / time.Since(begin).Seconds())
		return nil
	case "latency": // median of a byte there and back, in microseconds
		return pingPong(address, begin.Add(length))
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	piece := make([]byte, 128<<10)
	for time.Since(begin) < length {
		n, err := conn.Write(piece)
		if err != nil {
			return err
		}
		count += float64(n)
	}
	fmt.Println(count / 1e6 / time.Since(begin).Seconds())
	return nil
}

func pingPong(address string, end time.Time) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	var times []float64
	for b := make([]byte, 1); time.Now().Before(end); {
		begin := time.Now()
		if _, err := conn.Write(b); err != nil {
			return err
		}
		if _, err := io.ReadFull(conn, b); err != nil {
			return err
		}
		times = append(times, float64(time.Since(begin).Nanoseconds())/1000)
	}
	slices.Sort(times)
	fmt.Println(times[len(times)/2])
	return nil
}

// listen answers single bytes and swallows what comes in larger pieces.
func listen(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			piece := make([]byte, 128<<10)
			for {
				n, err := conn.Read(piece)
				if err != nil {
					return
				}
				if n == 1 {
					conn.Write(piece[:1])
				}
			}
		}()
	}
}

// portKinds are what is measured between two ends.
var portKinds = []struct{ kind, unit string }{{"throughput", "MB/s"}, {"latency", "µs"}, {"connections", "/s"}}

// benchPorts measures published ports and the way between containers, and all ways
// by turns.
func benchPorts(t *table, ready []*engine, runs int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var ways []*way
	defer func() {
		for _, w := range ways {
			w.end()
		}
	}()
	for _, e := range ready {
		w, err := e.ways(self)
		ways = append(ways, w...)
		if err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	bare, err := bareWay(self)
	if err != nil {
		return err
	}
	ways = append(ways, bare)
	for _, k := range portKinds {
		found := make([][]float64, len(ways))
		for range runs {
			for i, w := range ways {
				text, err := w.measure(k.kind)
				if err != nil {
					return fmt.Errorf("%s of %s, %s: %w", w.title, w.name, k.kind, err)
				}
				value, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
				if err != nil {
					return fmt.Errorf("%s of %s, %s: %w", w.title, w.name, k.kind, err)
				}
				found[i] = append(found[i], value)
			}
		}
		for i, w := range ways {
			t.add(w.title+", "+k.kind, k.unit, w.name, median(found[i]))
		}
	}
	for _, e := range ready { // last, since one that is not done keeps its daemon busy
		if err := e.publishMany(t, runs); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
	}
	return nil
}

// way is one from a client to a server.
type way struct {
	title, name string
	measure     func(kind string) (string, error) // what a client prints
	end         func()
}

// portsPatience is how long an engine may take for 500 ports: some need a process and
// several rules for each, and minutes.
const portsPatience = 15 * time.Second

// publishMany runs containers with 500 ports, each on another one of the host,
// and without any.
func (e *engine) publishMany(t *table, runs int) error {
	const title = "run of a container with 500 published ports"
	var with, more []float64
	for range max(runs, 3) {
		without, err := try(e.command("run", "--rm", "busybox", "true"))
		if err != nil {
			return err
		}
		begin := time.Now()
		took, err := tryFor(portsPatience, e.command("run", "--rm", "-p", "20000-20499:10000-10499", "busybox", "true"))
		if err != nil && time.Since(begin) >= portsPatience {
			t.note("%s was not done with 500 ports after %v", e.name, portsPatience)
			return nil
		}
		if err != nil {
			return err
		}
		with, more = append(with, took), append(more, took-without)
		if took > 1000 {
			break
		}
	}
	t.add(title, "ms", e.name, median(with))
	t.add("of which for the ports", "ms", e.name, max(median(more), 0))
	return nil
}

// ways are those from a container to its neighbour, and from the host to a
// published port.
func (e *engine) ways(self string) ([]*way, error) {
	run := func(args ...string) (string, error) {
		out, err := e.command(append([]string{"run", "-v", self + ":/bench:ro"}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	id, err := run("-d", "-p", "30080:80", "-e", traffic+"=serve", "busybox", "/bench", ":80")
	if err != nil {
		return nil, err
	}
	between := &way{"container to container", e.name, nil, func() { _ = e.command("rm", "-f", id).Run() }}
	out, err := e.command("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}", id).Output()
	fields := strings.Fields(string(out))
	if err == nil && len(fields) == 0 {
		err = fmt.Errorf("the container has no address")
	}
	if err != nil {
		return []*way{between}, err
	}
	time.Sleep(pause) // until it listens
	between.measure = func(kind string) (string, error) {
		return run("--rm", "-e", traffic+"="+kind, "busybox", "/bench", fields[0]+":80")
	}
	published := &way{"host to a published port", e.name, func(kind string) (string, error) {
		cmd := e.inside(self, "127.0.0.1:30080")
		cmd.Env = append(os.Environ(), traffic+"="+kind)
		out, err := cmd.Output()
		return string(out), err
	}, func() {}}
	return []*way{between, published}, nil
}

// bareWay is the same between two namespaces on a bridge without any rule.
func bareWay(self string) (*way, error) {
	const script = `set -e
mount -t tmpfs tmpfs /run; touch /run/bench-bare1 /run/bench-bare2
ip link set lo up
ip link add br0 type bridge; ip link set br0 up
for i in 1 2; do
	unshare --net=/run/bench-bare$i true
	ip link add v$i type veth peer name eth0 netns /run/bench-bare$i
	ip link set v$i master br0 up
	nsenter --net=/run/bench-bare$i sh -c "ip link set lo up; ip link set eth0 up; ip addr add 10.0.0.$i/24 dev eth0"
done
TARE_BENCH_TRAFFIC=serve nsenter --net=/run/bench-bare1 "$0" :80 &
sleep 0.2
while read kind; do TARE_BENCH_TRAFFIC=$kind nsenter --net=/run/bench-bare2 "$0" 10.0.0.1:80 </dev/null || echo failed; done
kill $!`
	cmd := exec.Command("unshare", "--net", "--mount", "sh", "-c", script, self)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("a bare bridge: %w", err)
	}
	lines := bufio.NewReader(out)
	return &way{"container to container", "bare veth", func(kind string) (string, error) {
		if _, err := fmt.Fprintln(in, kind); err != nil {
			return "", err
		}
		return lines.ReadString('\n')
	}, func() {
		in.Close()
		_ = cmd.Wait()
	}}, nil
}
