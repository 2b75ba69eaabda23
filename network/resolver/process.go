package resolver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/seqpacket"
	"github.com/tarehq/tare/network/dns"
)

// connectLocked makes sure that there is a process, and that a new one has all
// sandboxes.
func (d *EmbeddedDNS) connectLocked(ctx context.Context) error {
	if d.aliveLocked() {
		return nil
	}
	err := d.findLocked(ctx)
	if err == nil || ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	if err := d.startLocked(ctx); err != nil {
		return fmt.Errorf("start the resolver: %w", err)
	}
	return nil
}

func (d *EmbeddedDNS) aliveLocked() bool {
	if d.conn == nil {
		return false
	}
	select {
	case <-d.conn.Gone():
		return false
	default:
		return true
	}
}

// findLocked connects to the process that is there. One of another version is
// made to become this one; one that does not answer is ended. The error is
// os.ErrNotExist if there is none.
func (d *EmbeddedDNS) findLocked(ctx context.Context) error {
	conn, err := dns.Dial(filepath.Join(d.dir, dns.SocketName))
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT) {
		return os.ErrNotExist
	}
	if err != nil {
		return err
	}
	hello, err := d.greet(ctx, conn)
	if err != nil {
		if ctx.Err() == nil {
			err = errors.Join(err, conn.Kill())
		}
		conn.Close()
		return err
	}
	d.mu.Lock()
	for _, id := range hello.Sandboxes {
		if d.sandboxes[id] == nil {
			d.found[id] = true
		}
	}
	d.mu.Unlock()
	d.useLocked(conn)
	return nil
}

// greet asks the process who it is, and replaces it by the program that is
// installed now.
func (d *EmbeddedDNS) greet(ctx context.Context, conn *dns.Conn) (*dns.Hello, error) {
	hello, err := conn.Hello(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.replace(ctx, conn, hello); err != nil {
		if hello.Protocol != dns.Protocol {
			return nil, err
		}
		d.log.Warn("the resolver stays at its version", "err", err)
	}
	return conn.Hello(ctx)
}

// replace does nothing to a process that runs the program as it is installed.
func (d *EmbeddedDNS) replace(ctx context.Context, conn *dns.Conn, hello *dns.Hello) error {
	path, err := d.program()
	if err != nil {
		return err
	}
	ours, err := dns.ProgramOf(path)
	if err != nil || hello.Program == ours {
		return err
	}
	program, err := os.Open(path)
	if err != nil {
		return err
	}
	defer program.Close()
	return conn.Replace(ctx, program)
}

// resolverThreads answer more than a host's containers ask.
const resolverThreads = 4

// startLocked starts a process and tells it of all sandboxes.
func (d *EmbeddedDNS) startLocked(ctx context.Context) error {
	path, err := d.program()
	if err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	log, err := os.OpenFile(filepath.Join(d.dir, dns.LogName), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	own, theirs, err := seqpacket.Pair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	proc, err := os.StartProcess(path, []string{"tare-dns", d.dir}, &os.ProcAttr{
		Dir: "/", Env: []string{"GOGC=50", fmt.Sprintf("GOMAXPROCS=%d", min(runtime.NumCPU(), resolverThreads))}, Files: []*os.File{null, null, log, theirs}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		own.Close()
		return err
	}
	go proc.Wait() // its end follows from ours, or from its own decision
	conn := dns.NewConn(own)
	if _, err := conn.Hello(ctx); err != nil {
		conn.Close()
		if ctx.Err() == nil {
			_ = proc.Kill()
		}
		return errors.Join(err, d.lastWords())
	}
	d.useLocked(conn)
	return d.tellAllLocked(ctx)
}

// lastWords is what a process said before it died.
func (d *EmbeddedDNS) lastWords() error {
	said, err := os.ReadFile(filepath.Join(d.dir, dns.LogName))
	if err != nil || len(said) == 0 {
		return nil
	}
	return errors.New(string(bytes.TrimSpace(said[:min(len(said), 500)])))
}

// tellAllLocked tells a new process of the sandboxes. One that cannot be is
// left without names: its container has ended, or will tell again.
func (d *EmbeddedDNS) tellAllLocked(ctx context.Context) error {
	d.mu.Lock()
	all := make([]*answered, 0, len(d.sandboxes))
	for _, a := range d.sandboxes {
		all = append(all, a)
	}
	clear(d.found)
	d.mu.Unlock()
	for _, a := range all {
		err := a.tell(ctx, d.conn, nil)
		if err != nil && !d.aliveLocked() {
			return err
		}
		if err != nil {
			d.log.Error("the look-ups of a container are not answered", "container", a.sandbox.ID, "err", err)
		}
	}
	return nil
}

// useLocked has the connection used, and watched for its end.
func (d *EmbeddedDNS) useLocked(conn *dns.Conn) {
	d.conn = conn
	d.background.Go(func() {
		<-conn.Gone()
		conn.Close()
		d.revive()
	})
}

// revive starts another process in the place of one that has died, unless it
// had nothing to do.
func (d *EmbeddedDNS) revive() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for first := true; d.needed(); first = false {
		if first {
			d.log.Warn("the resolver has died and is started again", "said", d.lastWords())
		}
		d.talk.Lock()
		err := d.connectLocked(ctx)
		d.talk.Unlock()
		if err == nil {
			return
		}
		d.log.Error("the resolver cannot be started", "err", err)
		if !pause(ctx, revivePause) {
			return
		}
	}
}

func (d *EmbeddedDNS) needed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.closed && len(d.sandboxes) > 0
}

// pause waits for d, and tells whether it did, rather than ctx ending first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
