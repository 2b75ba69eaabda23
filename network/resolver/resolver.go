// Package resolver has containers on user-defined networks find each other by
// name: it runs tare-dns, tells it of their sandboxes, and starts it again when
// it dies.
package resolver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/network/dns"
	"github.com/tarehq/tare/network/files"
)

// EmbeddedDNS tells tare-dns, a process that outlives this one, of the sandboxes
// of containers on networks with names. The process is started for the first of
// them and ends by itself when it has none. When it dies another one takes its
// place and is told everything again.
//
// It implements network.Names.
type EmbeddedDNS struct {
	program func() (string, error)
	dir     string
	log     *slog.Logger

	mu        sync.Mutex // guards what follows; never held during I/O
	sandboxes map[string]*answered
	found     map[string]bool // those that the process had when it was found, and nobody told of since
	closed    bool

	talk sync.Mutex // held while the process is told something, or started
	conn *dns.Conn  // nil when there is no process

	background sync.WaitGroup
}

// answered is a sandbox whose look-ups are answered, with what it takes to make
// its outlets anew. It is changed with talk held.
type answered struct {
	sandbox  dns.Sandbox
	netns    *os.File // ours; nil if it was not to be had
	lifeline *os.File // ours; nil if nobody has the other end
}

// LifelineName is the name of the file that Set has held as long as a
// container runs.
const LifelineName = "lifeline"

// Open takes up the process that an earlier daemon left, if there is one.
// program finds tare-dns; dir is the exec root, where the process is found.
func Open(ctx context.Context, program func() (string, error), dir string, log *slog.Logger) *EmbeddedDNS {
	d := &EmbeddedDNS{program: program, dir: dir, log: log, sandboxes: map[string]*answered{}, found: map[string]bool{}}
	d.talk.Lock()
	defer d.talk.Unlock()
	if err := d.findLocked(ctx); err != nil && !errors.Is(err, os.ErrNotExist) {
		log.Warn("the resolver that an earlier daemon left is of no use, another one takes its place", "err", err)
	}
	return d
}

// Prepare opens the sockets in a namespace.
func (d *EmbeddedDNS) Prepare(netns *os.File) (io.Closer, error) { return dns.Open(netns) }

// Set tells the process of a sandbox. One that has never been on a network with
// names is none of its business.
func (d *EmbeddedDNS) Set(ctx context.Context, s network.Sandbox, netns *os.File, prepared io.Closer) ([]*os.File, error) {
	outlets, _ := prepared.(*dns.Outlets)
	if outlets != nil {
		defer outlets.Close()
	}
	d.mu.Lock()
	a := d.sandboxes[s.ID]
	inherited := d.found[s.ID]
	delete(d.found, s.ID)
	d.mu.Unlock()
	if a == nil && !inherited && !s.HasNames() {
		return nil, nil
	}
	d.talk.Lock()
	defer d.talk.Unlock()
	fresh := a == nil
	var held []*os.File
	var err error
	if fresh {
		a = &answered{}
		held, err = a.take(s, netns)
	}
	a.sandbox = lookups(s)
	if err == nil {
		err = d.tellLocked(ctx, a, outlets)
	}
	if err != nil {
		if fresh {
			a.close()
		}
		closeAll(held)
		return nil, fault.New(fault.KindOf(err), "the names of container %s cannot be looked up: %w", s.Name, err)
	}
	d.mu.Lock()
	d.sandboxes[s.ID] = a
	d.mu.Unlock()
	return held, nil
}

// Drop takes a sandbox back. When it returns nobody finds its names.
func (d *EmbeddedDNS) Drop(sandboxID string) {
	d.mu.Lock()
	a := d.sandboxes[sandboxID]
	known := a != nil || d.found[sandboxID]
	delete(d.sandboxes, sandboxID)
	delete(d.found, sandboxID)
	d.mu.Unlock()
	if !known {
		return
	}
	d.talk.Lock()
	defer d.talk.Unlock()
	if d.conn != nil {
		// A process that does not answer is gone, and with it what it knew.
		if err := d.conn.Drop(context.Background(), sandboxID); err != nil {
			d.conn.Close()
		}
	}
	if a != nil {
		a.close()
	}
}

// Settle takes back what the process still has of containers that ended while
// there was no daemon. It is called when all that live on were set.
func (d *EmbeddedDNS) Settle() {
	d.mu.Lock()
	gone := slices.Collect(maps.Keys(d.found))
	d.mu.Unlock()
	for _, id := range gone {
		d.Drop(id)
	}
}

// Close leaves the process to the next daemon, if it has anything to do.
func (d *EmbeddedDNS) Close() error {
	d.mu.Lock()
	d.closed = true
	left := d.sandboxes
	d.sandboxes = map[string]*answered{}
	d.mu.Unlock()
	d.talk.Lock()
	if d.conn != nil {
		d.conn.Close()
	}
	for _, a := range left {
		a.close()
	}
	d.talk.Unlock()
	d.background.Wait()
	return nil
}

// tellLocked tells the process of a sandbox, and starts it if need be. It makes
// outlets when there are none and the process has none either. When the process
// turns out to be gone it is tried once more.
func (d *EmbeddedDNS) tellLocked(ctx context.Context, a *answered, outlets *dns.Outlets) error {
	for again := true; ; again = false {
		err := d.connectLocked(ctx)
		if err != nil {
			return err
		}
		if err = a.tell(ctx, d.conn, outlets); err == nil || !again || d.aliveLocked() {
			return err
		}
	}
}

// tell tells of the sandbox over the connection.
func (a *answered) tell(ctx context.Context, conn *dns.Conn, outlets *dns.Outlets) error {
	if outlets == nil {
		if err := conn.Set(ctx, a.sandbox, nil); !errors.Is(err, dns.ErrUnknown) {
			return err
		}
		made, err := a.open()
		if err != nil {
			return err
		}
		defer made.Close()
		outlets = made
	}
	if a.lifeline != nil && broken(a.lifeline) { // by whoever held its end too shortly
		a.lifeline.Close()
		a.lifeline = nil
	}
	with := *outlets
	with.Lifeline = a.lifeline
	return conn.Set(ctx, a.sandbox, &with)
}

func (a *answered) open() (*dns.Outlets, error) {
	if a.netns == nil {
		return nil, errors.New("the container's network namespace is not known")
	}
	return dns.Open(a.netns)
}

// take takes what it needs to make outlets. Of a container that is about to
// start it gives the file to be held, of one that lived on there is none.
func (a *answered) take(s network.Sandbox, netns *os.File) (held []*os.File, err error) {
	switch {
	case netns != nil:
		if a.netns, err = share(netns); err == nil {
			held, err = a.tieLifeline()
		}
	case s.NetNSPath != "":
		// Without it the process, if it has the sandbox, is as good as before.
		a.netns, _ = os.Open(s.NetNSPath)
	}
	return held, err
}

// tieLifeline makes a pipe, and gives the end whose closing tells of the
// container's end.
func (a *answered) tieLifeline() ([]*os.File, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe", err)
	}
	a.lifeline = os.NewFile(uintptr(fds[0]), LifelineName)
	return []*os.File{os.NewFile(uintptr(fds[1]), LifelineName)}, nil
}

// broken tells whether the other end of a pipe is closed.
func broken(lifeline *os.File) bool {
	fds := []unix.PollFd{{Fd: int32(lifeline.Fd())}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

func (a *answered) close() {
	for _, f := range []*os.File{a.netns, a.lifeline} {
		if f != nil {
			f.Close()
		}
	}
}

// share gives another descriptor of a namespace.
func share(netns *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(netns.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("share the network namespace: %w", err)
	}
	return os.NewFile(uintptr(fd), "network namespace"), nil
}

// lookups is what the resolver is told of a sandbox. Names are looked for on
// the network with the default route first, on internal ones last.
func lookups(s network.Sandbox) dns.Sandbox {
	out := dns.Sandbox{ID: s.ID, Servers: s.DNS.Servers, Dots: choosesDots(s.DNS.Options)}
	endpoints := slices.Clone(s.Endpoints)
	slices.SortStableFunc(endpoints, func(a, b network.Endpoint) int {
		switch first := a.Before(&b); {
		case a.Internal != b.Internal && b.Internal, a.Internal == b.Internal && first:
			return -1
		case a.Internal != b.Internal, b.Before(&a):
			return 1
		}
		return 0
	})
	for _, e := range endpoints {
		out.External = out.External || !e.Internal && (e.Gateway.IsValid() || e.Gateway6.IsValid())
		if len(e.DNSNames) == 0 {
			continue
		}
		p := dns.Place{NetworkID: e.NetworkID, Network: e.NetworkName, Names: e.DNSNames, Links: e.Links}
		for _, a := range []netip.Prefix{e.Address, e.Address6} {
			if a.IsValid() {
				p.Addresses = append(p.Addresses, a.Addr())
			}
		}
		out.Places = append(out.Places, p)
	}
	return out
}

// choosesDots tells whether ndots is set by the options or, without any, by the
// host's: such a container leaves names without dots to its search list.
func choosesDots(options []string) bool {
	if len(options) == 0 {
		host, err := files.HostResolvConf()
		if err != nil {
			return false
		}
		options = files.Options(host)
	}
	return slices.ContainsFunc(options, validDots)
}

func validDots(option string) bool {
	number, ok := strings.CutPrefix(option, "ndots:")
	return ok && number != "" && strings.Trim(number, "0123456789") == ""
}

// revivePause is how long after a failure the process is tried again.
const revivePause = time.Second
