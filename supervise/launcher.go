package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/seqpacket"
	"github.com/tarehq/tare/internal/stage"
)

// Launcher starts supervising processes and keeps some of them waiting, since
// starting one costs more than making a container.
type Launcher struct {
	exe    *os.File // sealed
	stage  *os.File // for the containers' mounts; nil if none could be made
	mounts int      // /proc/self/mountinfo, polled for changes
	size   int
	sample []byte
	refill chan struct{} // holds a token when the pool should be looked at
	stop   chan struct{}
	done   chan struct{}

	mu     sync.Mutex
	era    int // raised when the host's mounts change
	warm   []process
	taken  time.Time // when one was taken last
	closed bool

	starter *starter // nil: none, or none any more
	retry   retry    // of making another
}

// process is a supervising process that has no container yet.
type process struct {
	keeper *Keeper
	era    int
}

// refillDelay keeps the start of a process for the pool off the processors
// while the container that emptied its place starts.
const refillDelay = 15 * time.Millisecond

// refillQuiet is for how long nobody takes a process before another is started
// while one still waits: then a single start has the processors for itself.
const refillQuiet = 50 * time.Millisecond

// NewLauncher copies the program at path into a sealed memory file, which all
// processes run from, and keeps pool warm processes waiting.
//
// sample is the config.json of an ordinary container, which a waiting process
// rehearses; nil for none.
func NewLauncher(path string, pool int, sample []byte) (*Launcher, error) {
	exe, err := sealedCopy(path)
	if err != nil {
		return nil, err
	}
	// not by package os: the poller there would take the changes away
	mounts, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		exe.Close()
		return nil, fmt.Errorf("cannot watch the host's mounts: %w", err)
	}
	l := &Launcher{
		exe: exe, mounts: mounts, size: pool, sample: sample,
		refill: make(chan struct{}, 1),
		stop:   make(chan struct{}),
		done:   make(chan struct{}),
	}
	l.stage, _ = stage.New() // without it init lets go of the host's mounts by itself
	l.replaceStarter()
	l.changed() // the first look always tells of a change
	go l.fill()
	l.wantRefill()
	return l, nil
}

func (l *Launcher) wantRefill() {
	select {
	case l.refill <- struct{}{}:
	default:
	}
}

// fill keeps the pool at its size until Close.
func (l *Launcher) fill() {
	defer close(l.done)
	for {
		select {
		case <-l.stop:
			return
		case <-l.refill:
		}
		l.replaceStarter()
		for l.due() {
			p, err := l.start(context.Background(), true)
			if err != nil {
				break // Create meets the reason again, and reports it
			}
			if !l.put(p) {
				p.keeper.Close()
			}
		}
	}
}

// due tells whether a process is to be started now. It has fill look again when
// that is only later.
func (l *Launcher) due() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.warm) >= l.size {
		return false
	}
	if wait := refillQuiet - time.Since(l.taken); len(l.warm) > 0 && wait > 0 {
		time.AfterFunc(wait, l.wantRefill)
		return false
	}
	return true
}

func (l *Launcher) put(p process) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || p.era != l.era {
		return false
	}
	l.warm = append(l.warm, p)
	return true
}

// changed tells whether the host's mounts have changed since the last call.
// poll(2) tells so of mountinfo (proc_pid_mountinfo(5)).
func (l *Launcher) changed() bool {
	fds := []unix.PollFd{{Fd: int32(l.mounts), Events: unix.POLLPRI}}
	n, err := unix.Poll(fds, 0)
	return err != nil || n > 0
}

// take returns a process of the pool that is alive and sees the mounts as they
// are now. A process has a copy of the mount table from when it started; what
// is mounted on the host later reaches it only where the mounts are shared.
func (l *Launcher) take() (process, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken = time.Now()
	if l.changed() {
		l.era++
		for _, p := range l.warm {
			p.keeper.Close()
		}
		l.warm = nil
	}
	for len(l.warm) > 0 {
		p := l.warm[0]
		l.warm = l.warm[1:]
		if p.era != l.era { // fill saw the change first
			p.keeper.Close()
			continue
		}
		select {
		case <-p.keeper.gone:
			continue
		default:
			return p, true
		}
	}
	return process{}, false
}

// start executes a process and waits until it answers, or is warm.
func (l *Launcher) start(ctx context.Context, warm bool) (process, error) {
	l.mu.Lock()
	if l.changed() {
		l.era++
	}
	era := l.era
	l.mu.Unlock()

	conn, pid, err := l.spawn()
	if err != nil {
		return process{}, err
	}
	// The end of the connection is the end of the process, or follows from our
	// Close; only then a thread waits for it.
	k := newKeeper("", conn, func() { collect(pid) })
	if err := k.hello(ctx); err != nil {
		k.Close()
		return process{}, fmt.Errorf("the supervising process does not answer: %w", err)
	}
	if warm && l.sample != nil {
		// What goes wrong here goes wrong again when it matters, and is told then.
		_ = k.call(ctx, MethodWarm, json.RawMessage(l.sample), nil)
	}
	return process{k, era}, nil
}

// spawn executes a process, by the starter or, when there is none, here, and gives
// the connection to it. What a starter that fails was sent may have come to a
// process all the same, which is left alone with it.
func (l *Launcher) spawn() (conn *seqpacket.Conn, pid int, err error) {
	l.mu.Lock()
	s := l.starter
	l.mu.Unlock()
	if s != nil {
		if conn, pid, err = connected(s.spawn); err == nil {
			return conn, pid, nil
		}
		l.mu.Lock()
		mine := l.starter == s
		if mine {
			l.starter = nil
			l.retry.failed(time.Now())
		}
		l.mu.Unlock()
		if mine {
			s.close()
			l.wantRefill() // which has another made
		}
	}
	return connected(func(theirs *os.File) (int, error) { return spawn(l.exe, theirs, l.stage, 0) })
}

// connected has a process executed with the other end of a new connection.
func connected(spawn func(theirs *os.File) (pid int, err error)) (*seqpacket.Conn, int, error) {
	conn, theirs, err := seqpacket.Pair()
	if err != nil {
		return nil, 0, err
	}
	defer theirs.Close()
	pid, err := spawn(theirs)
	if err != nil {
		conn.Close()
		return nil, 0, err
	}
	return conn, pid, nil
}

// collect waits for the end of a child.
func collect(pid int) {
	for {
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != syscall.EINTR {
			return
		}
	}
}

// Create makes a container: the process mounts the root and has the container
// made from Config.Dir's config.json up to OCI "created". The files in c stay
// the caller's. When it fails nothing is left; an error of the runtime has the
// runtime's words.
//
// When ctx ends first, Create returns at once and the container is undone in
// the background.
func (l *Launcher) Create(ctx context.Context, c Config) (*Keeper, error) {
	return l.request(ctx, CreateRequest{Config: c}, nil)
}

// Client is somebody to be attached to a container before it starts. Conn
// stays the caller's, as with Keeper.Attach.
type Client struct {
	Options AttachOptions
	Conn    *os.File
}

// Run is Create, Keeper.Attach of each client and Keeper.Start in one exchange.
// When it fails nothing is left; the clients' sockets may have been shut down.
func (l *Launcher) Run(ctx context.Context, c Config, clients []Client) (*Keeper, error) {
	req := CreateRequest{Config: c, Start: true}
	var conns []*os.File
	for _, client := range clients {
		req.Clients = append(req.Clients, client.Options)
		conns = append(conns, client.Conn)
	}
	return l.request(ctx, req, conns)
}

func (l *Launcher) request(ctx context.Context, req CreateRequest, clients []*os.File) (*Keeper, error) {
	type result struct {
		k   *Keeper
		err error
	}
	made := make(chan result, 1)
	go func() {
		// the process must not be left in the middle of it
		k, err := l.create(context.WithoutCancel(ctx), req, clients)
		made <- result{k, err}
	}()
	select {
	case r := <-made:
		return r.k, r.err
	case <-ctx.Done():
		go func() {
			if r := <-made; r.err == nil {
				r.k.undo()
			}
		}()
		return nil, ctx.Err()
	}
}

// Room has the process that the next Run takes make room for so many files to
// hold, beside what its caller does until then.
func (l *Launcher) Room(files int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.warm) == 0 {
		return
	}
	l.warm[0].keeper.tell(MethodRoom, RoomRequest{files})
}

// Collect ends what a supervising process left that died: the container's init
// and all else in its control groups, and the groups. It uses a waiting process,
// as the daemon itself knows nothing of a runtime.
func (l *Launcher) Collect(ctx context.Context, id, dir string) error {
	killed := KillInit(dir) // the groups can be collected whatever comes of it
	p, warm := l.take()
	if !warm {
		var err error
		if p, err = l.start(ctx, false); err != nil {
			return errors.Join(killed, err)
		}
	}
	defer l.wantRefill()
	defer p.keeper.Close() // it has no container, and ends
	return errors.Join(killed, p.keeper.call(ctx, MethodCollect, CollectRequest{id, dir}, nil))
}

// undo ends a container that nobody wants.
func (k *Keeper) undo() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if k.Kill(ctx) == nil {
		if _, err := k.Wait(ctx); err == nil {
			k.Release(ctx)
		}
	}
	k.Close()
}

func (l *Launcher) create(ctx context.Context, req CreateRequest, clients []*os.File) (*Keeper, error) {
	p, warm := l.take()
	if !warm {
		var err error
		if p, err = l.start(ctx, false); err != nil {
			return nil, err
		}
	}
	time.AfterFunc(refillDelay, l.wantRefill)
	k := p.keeper
	k.dir = req.Dir
	status, err := k.create(ctx, req, clients)
	if err != nil {
		k.Close()  // it may not even have heard of the request
		<-k.reaped // with the process its mounts are gone
		return nil, err
	}
	k.setStatus(status)
	return k, nil
}

// Close ends the processes that wait. Those that have a container live on.
func (l *Launcher) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	warm, s := l.warm, l.starter
	l.warm, l.starter = nil, nil
	l.mu.Unlock()
	close(l.stop)
	if s != nil {
		s.close()
	}
	<-l.done
	for _, p := range warm {
		p.keeper.Close()
		<-p.keeper.reaped
	}
	unix.Close(l.mounts)
	if l.stage != nil {
		l.stage.Close()
	}
	return l.exe.Close()
}
