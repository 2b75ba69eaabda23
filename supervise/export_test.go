package supervise

import "context"

// Warm returns how many processes of the pool are ready to be taken.
func (l *Launcher) Warm() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.warm)
}

// Start starts a supervising process and ends it.
func (l *Launcher) Start(ctx context.Context) error {
	p, err := l.start(ctx, false)
	if err == nil {
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
