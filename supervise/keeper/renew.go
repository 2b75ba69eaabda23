package keeper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/seqpacket"
	"github.com/tarehq/tare/logs"
	"github.com/tarehq/tare/ocirun"
	"github.com/tarehq/tare/supervise"
)

// To make a container takes memory that the Go runtime never gives back whole:
// twice what a process has that only waits for the container's end. So the
// process executes its own program again when it has come to rest. Its number,
// its children and its files stay; what it knows goes through a memory file.
//
// Nothing may be on its way in this process at that moment. Whoever takes
// something in that exists nowhere else from then on, such as output, a request
// or an exit status, bars the renewal until it is where it belongs.

// renewal counts those who bar it.
type renewal struct {
	mu     sync.Mutex
	turn   sync.Cond // of what follows
	bars   int
	wanted bool // those who would bar it wait
}

func newRenewal() *renewal {
	r := new(renewal)
	r.turn.L = &r.mu
	return r
}

func (r *renewal) bar() {
	if r == nil {
		return
	}
	r.mu.Lock()
	for r.wanted {
		r.turn.Wait()
	}
	r.bars++
	r.mu.Unlock()
}

func (r *renewal) unbar() {
	if r == nil {
		return
	}
	r.mu.Lock()
	r.bars--
	if r.bars == 0 {
		r.turn.Broadcast()
	}
	r.mu.Unlock()
}

// barless is how long a renewal waits for what is on its way, and holds up what
// comes behind that.
const barless = 20 * time.Millisecond

// begin tells whether nobody bars the renewal, and nobody does until end. Output
// that never stops must not bar it for ever: it waits for the last who does, while
// the next one waits behind it.
func (r *renewal) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wanted {
		return false
	}
	r.wanted = true
	late := false
	timer := time.AfterFunc(barless, func() {
		r.mu.Lock()
		late = true
		r.turn.Broadcast()
		r.mu.Unlock()
	})
	defer timer.Stop()
	for r.bars > 0 && !late {
		r.turn.Wait()
	}
	if r.bars > 0 {
		r.wanted = false
		r.turn.Broadcast()
		return false
	}
	return true
}

func (r *renewal) end() {
	r.mu.Lock()
	r.wanted = false
	r.turn.Broadcast()
	r.mu.Unlock()
}

// stir begins something that a renewal would lose, and calm ends it.
func (k *keeper) stir() {
	k.mu.Lock()
	k.astir++
	k.mu.Unlock()
}

func (k *keeper) calm() {
	k.mu.Lock()
	k.astir--
	k.mu.Unlock()
}

// moves tells whether there is something that goes on for a while; no output is
// held up for that.
func (k *keeper) moves() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.requests > 0 || k.astir > 0
}

// rest is called when nothing has happened for a while. It does not return where
// a renewal is possible.
func (k *keeper) rest() {
	err := k.renew()
	thrift()
	k.renewLater(err, firstPause)
}

// The pauses between the attempts of a renewal double. What bars it for longer
// than all of them has k.rest called at its end, or is for good.
const (
	firstPause = time.Second
	lastPause  = 32 * time.Second
)

// renewLater goes on after an attempt that failed.
func (k *keeper) renewLater(err error, pause time.Duration) {
	if errors.Is(err, errAstir) && pause <= lastPause {
		time.AfterFunc(pause, func() { k.renewLater(k.renew(), 2*pause) })
	}
}

// legacy is what one life of the process leaves to the next. Numbers of files
// are -1 where there is none.
type legacy struct {
	Config supervise.CreateRequest
	Status supervise.Status
	Box    ocirun.Adoption
	Rootfs bool
	Execs  []ended `json:",omitempty"`

	Listener            int
	Peers, Held         []int
	In, Out, Err, Slave int
	Log                 int
	LogState            logs.Handover
	OOM                 int
	OOMUnified          bool
	OOMTold             uint64
}

// ended is a known exec.
type ended struct {
	Status supervise.ExecStatus
	Once   bool
}

var (
	errAstir = errors.New("something is on its way")
	errNever = errors.New("this container's process is not renewed")
)

// renew executes the program again. It returns only if that is not possible, with
// errAstir if it may be soon.
func (k *keeper) renew() error {
	if k.current().Phase != supervise.PhaseRunning || k.cfg.Runtime.Path != "" || k.cfg.Log.Buffer > 0 {
		return errNever // before it runs there is not even an output
	}
	if k.moves() || !k.renewal.begin() {
		return errAstir
	}
	defer k.renewal.end()
	locks := []interface {
		TryLock() bool
		Unlock()
	}{&k.starting, &k.frost.mu, &k.execs.mu, &k.out.mu, &k.mu}
	for _, l := range locks {
		if !l.TryLock() {
			return errAstir
		}
		defer l.Unlock()
	}
	if k.finished || k.status.Phase != supervise.PhaseRunning {
		return errNever
	}
	if k.requests > 0 || k.astir > 0 || len(k.frost.wants) > 0 || len(k.execs.running) > 0 {
		return errAstir
	}
	l, err := k.legacyLocked()
	if err != nil {
		return err
	}
	return l.pass()
}

// legacyLocked gathers what is passed on; all locks of renew are held.
func (k *keeper) legacyLocked() (l *legacy, err error) {
	box, ok := k.box.(*inProcess)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	l = &legacy{Config: k.cfg, Status: k.status, Box: box.c.Adoption(), Rootfs: k.rootfs, Log: -1}
	l.Config.Clients = nil
	for _, e := range k.execs.ended {
		l.Execs = append(l.Execs, ended{e.ExecStatus, e.once})
	}
	if l.Listener, err = k.listener.Number(); err != nil {
		return nil, err
	}
	for c := range k.peers {
		if n, err := c.Number(); err == nil { // else it has just ended
			l.Peers = append(l.Peers, n)
		}
	}
	for _, f := range k.held {
		l.Held = append(l.Held, number(f))
	}
	s := k.stdio
	l.Out, l.Err, l.Slave = number(s.out), number(s.err), number(s.slave)
	if l.In = number(s.in); s.in == s.out {
		l.In = -1
	}
	if k.out.log != nil {
		var f *os.File
		f, l.LogState = k.out.log.w.Handover()
		l.Log = number(f)
	}
	l.OOM, l.OOMUnified, l.OOMTold = number(k.oom.f), k.oom.unified, k.oom.told
	return l, nil
}

// number is the descriptor of a file, which stays as it is; -1 for none, also for
// one that was closed.
func number(f *os.File) int {
	n := -1
	if f == nil {
		return n
	}
	if rc, err := f.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) { n = int(fd) })
	}
	return n
}

// files are all that the next life inherits.
func (l *legacy) files() []int {
	all := []int{l.Listener, l.In, l.Out, l.Err, l.Slave, l.Log, l.OOM}
	all = append(append(all, l.Peers...), l.Held...)
	return append(all, netNSFile)
}

// pass executes the program with the legacy.
func (l *legacy) pass() error {
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("legacy", unix.MFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	defer unix.Close(fd)
	for done := 0; done < len(text); {
		n, err := unix.Pwrite(fd, text[done:], int64(done))
		if err != nil {
			return os.NewSyscallError("write", err)
		}
		done += n
	}
	inherited := append(l.files(), fd)
	inherit(inherited, 0)
	// Until the Go runtime has begun: from then on until handleHarmless, for a part
	// of a millisecond, SIGTERM from anybody is what SIGKILL is at any time.
	signal.Ignore(harmless...)
	err = syscall.Exec("/proc/self/exe", []string{"tare-supervise", strconv.Itoa(fd)}, os.Environ())
	handleHarmless()
	inherit(inherited, unix.FD_CLOEXEC)
	return os.NewSyscallError("execve", err)
}

// inherit sets the descriptor flags of files.
func inherit(list []int, flags int) {
	for _, fd := range list {
		if fd >= 0 {
			_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags)
		}
	}
}

// Resume is Run for the process that has executed itself: the legacy is in the
// file of the number.
func Resume(file string) error {
	l, err := inherited(file)
	if err != nil {
		return fmt.Errorf("what this process left to itself cannot be read: %w", err)
	}
	k := newKeeper()
	if k.reaper, err = newReaper(); err != nil {
		return err
	}
	inherit(l.files(), unix.FD_CLOEXEC)
	if err := nameProcess(); err != nil {
		return err
	}
	k.cfg, k.status, k.rootfs, k.creating = l.Config, l.Status, l.Rootfs, true
	k.frost.paused = l.Status.Paused
	for _, e := range l.Execs {
		k.execs.ended = append(k.execs.ended, known{e.Status, e.Once})
		k.execs.bytes += weight(k.execs.ended[len(k.execs.ended)-1])
	}
	box, err := ocirun.Adopt(l.Box)
	if err != nil {
		return err
	}
	k.box = &inProcess{c: box}
	k.reaper.own(k.box.pid())
	if k.listener, err = seqpacket.NewListener(l.Listener); err != nil {
		return err
	}
	for _, fd := range l.Held {
		k.held = append(k.held, fileOf(fd))
	}
	if err := k.relay(k.cfg.Relays); err != nil {
		return err
	}
	k.out = newOutput(l.journal(func() { k.announce(supervise.EventRotate, struct{}{}) }), &k.activity)
	k.stdio = l.stdio()
	for _, fd := range l.Peers {
		if c, err := seqpacket.New(fd); err == nil {
			k.join(c)
		}
	}
	k.stdio.pump(k.out, k.renewal)
	if l.Config.WatchOOM {
		k.oom = oomWatch{fileOf(l.OOM), l.OOMUnified, l.OOMTold} // which may not have begun
		go k.watchOOM()
	}
	go k.accept()
	go k.await()
	k.reaper.poke() // for those that ended meanwhile
	k.outlive()
	return nil
}

func inherited(file string) (*legacy, error) {
	fd, err := strconv.Atoi(file)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "legacy")
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
	if err != nil {
		return nil, err
	}
	l := new(legacy)
	return l, unmarshal(text, l)
}

// fileOf is the file of a number, nil for none.
func fileOf(fd int) *os.File {
	if fd < 0 {
		return nil
	}
	return os.NewFile(uintptr(fd), "inherited")
}

// stdio is our side of the streams.
func (l *legacy) stdio() *stdio {
	s := &stdio{tty: l.Config.TTY, master: -1, in: fileOf(l.In), out: fileOf(l.Out), err: fileOf(l.Err), slave: fileOf(l.Slave)}
	if s.tty {
		s.in = s.out
		s.terminal.Store(s.out)
	}
	return s
}

// journal is the log, nil for none.
func (l *legacy) journal(rotated func()) *journal {
	if l.Log < 0 {
		return nil
	}
	o := logOptions(l.Config.Log, rotated)
	return &journal{w: logs.TakeOver(l.Config.Log.Path, fileOf(l.Log), o, l.LogState)}
}
