package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// membership is one container's place on one network, or that it has none: what
// was acknowledged, or both after a request that was cut off. One client at a time
// works on it.
type membership struct {
	container, network string
	may                []bool
	busy               bool
}

// moving is a daemon that is killed while clients connect and disconnect
// running containers.
type moving struct {
	d *daemon.Daemon

	mu   sync.Mutex
	all  []*membership
	done map[bool]int // acknowledged, by what they led to
}

// TestKilledPlaces kills the daemon at moments of chance while clients connect
// and disconnect running containers. What was acknowledged is so afterwards: in
// inspect, in the network's list, in the container's namespace and after its
// restart; and no interface is left of what is not.
func TestKilledPlaces(t *testing.T) {
	testutil.RequireRoot(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	m := &moving{d: daemon.Start(t), done: map[bool]int{}}
	m.d.ImportBusybox(t)
	containers, networks := []string{"c0", "c1"}, []string{"n0", "n1", "n2"}
	for i, n := range networks {
		m.d.Tare(t, "network", "create", "--subnet", fmt.Sprintf("10.99.%d.0/24", 60+i), n)
	}
	for _, c := range containers {
		m.d.Tare(t, "run", "-d", "--name", c, "busybox", "sleep", "1000")
		for _, n := range networks {
			m.all = append(m.all, &membership{container: c, network: n, may: []bool{false}})
		}
	}
	rounds := 3
	if n, err := strconv.Atoi(os.Getenv("TARE_SOAK")); err == nil {
		rounds = n
	}
	for round := range rounds {
		killAmid(t, m.d, 3, random.Uint64(), time.Duration(20+random.IntN(300))*time.Millisecond, m.step)
		m.d.Up(t)
		m.check(t, containers, networks)
		if c := containers[round%2]; round%2 == 1 {
			m.d.Tare(t, "restart", "-t", "0", c)
			m.check(t, containers, networks)
		}
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	if m.done[true] == 0 || m.done[false] == 0 {
		t.Errorf("acknowledged before a kill: %d connects, %d disconnects", m.done[true], m.done[false])
	}
	for _, c := range containers {
		m.d.Tare(t, "rm", "-f", c)
	}
	for _, n := range networks {
		m.d.Tare(t, "network", "rm", n)
	}
}

// step takes a container to a network that it is not on, or away from it.
func (m *moving) step(random *rand.Rand) {
	m.mu.Lock()
	free := slices.DeleteFunc(slices.Clone(m.all), func(p *membership) bool { return p.busy || len(p.may) > 1 })
	if len(free) == 0 {
		m.mu.Unlock()
		return
	}
	p := free[random.IntN(len(free))]
	p.busy = true
	then := !p.may[0]
	p.may = []bool{then, !then}
	m.mu.Unlock()
	verb := map[bool]string{true: "connect", false: "disconnect"}[then]
	_, err := m.d.Try("network", verb, p.network, p.container)
	m.mu.Lock()
	defer m.mu.Unlock()
	p.busy = false
	if err == nil {
		p.may = []bool{then}
		m.done[then]++
	}
}

// check holds the daemon, which has just started, against what was acknowledged.
func (m *moving) check(t *testing.T, containers, networks []string) {
	t.Helper()
	on := map[string][]string{} // by network
	for _, c := range containers {
		var list []struct {
			NetworkSettings struct {
				Networks map[string]struct{ IPAddress, EndpointID string }
			}
		}
		if err := json.Unmarshal([]byte(m.d.Tare(t, "inspect", c)), &list); err != nil {
			t.Fatal(err)
		}
		shown := list[0].NetworkSettings.Networks
		var addresses string
		testutil.Eventually(t, 20*time.Second, c+" has an interface for each network", func() bool { // what was taken back goes in its own time
			addresses = m.d.Tare(t, "exec", c, "ip", "-o", "-4", "addr")
			return strings.Count(addresses, ": eth") == len(shown)
		})
		for _, p := range m.all {
			if p.container != c {
				continue
			}
			place, is := shown[p.network]
			if !slices.Contains(p.may, is) {
				t.Errorf("%s is on %s: %v, and was acknowledged as %v", c, p.network, is, p.may)
			}
			p.may = []bool{is}
			if is {
				on[p.network] = append(on[p.network], c)
			}
			if is && (place.EndpointID == "" || !strings.Contains(addresses, " "+place.IPAddress+"/")) {
				t.Errorf("%s is on %s as %s, and has\n%s", c, p.network, place.IPAddress, addresses)
			}
		}
	}
	for _, n := range networks {
		listed := strings.Fields(m.d.Tare(t, "network", "inspect", "--format", "{{range .Containers}}{{.Name}} {{end}}", n))
		slices.Sort(listed)
		if !slices.Equal(listed, on[n]) {
			t.Errorf("on %s are %v, and it says %v", n, on[n], listed)
		}
	}
}
