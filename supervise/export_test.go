package supervise

import (
	"context"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/tarehq/tare/internal/seqpacket"
)

// Hasten has a starter fail that takes longer; it gives the way back.
func Hasten(d time.Duration) func() {
	was := starterTime
	starterTime = d
	return func() { starterTime = was }
}

// Pretend puts somebody in the starter's place, who hears at the other end.
func (l *Launcher) Pretend() (heard *seqpacket.Conn, err error) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	conn, theirs, err := seqpacket.Pair()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	was := l.starter
	l.starter = &starter{conn: conn, pid: cmd.Process.Pid}
	l.mu.Unlock()
	was.close()
	fd, err := dup(theirs)
	if err != nil {
		return nil, err
	}
	return seqpacket.New(fd)
}

func dup(f *os.File) (int, error) {
	defer f.Close()
	return syscall.Dup(int(f.Fd()))
}

// Pauses are those before each of n starters after one that lasted.
func Pauses(n int) (list []time.Duration) {
	now := time.Unix(1e9, 0)
	r := retry{began: now.Add(-time.Hour)}
	for range n {
		r.failed(now)
		list = append(list, r.wait(now))
		now = now.Add(r.pause)
		r.began = now
	}
	return list
}

// Warm returns how many processes of the pool are ready to be taken.
func (l *Launcher) Warm() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.warm)
}

// Start starts a supervising process and ends it.
func (l *Launcher) Start(ctx context.Context) error { return l.While(ctx, func() {}) }

// While does something as long as such a process is there.
func (l *Launcher) While(ctx context.Context, do func()) error {
	p, err := l.start(ctx, false)
	if err == nil {
		do()
		p.keeper.Close()
		<-p.keeper.reaped
	}
	return err
}

// Drop ends a process of the pool, which is then filled again.
func (l *Launcher) Drop() {
	l.mu.Lock()
	p := l.warm[0]
	l.warm = l.warm[1:]
	l.mu.Unlock()
	p.keeper.Close()
	l.wantRefill()
}
