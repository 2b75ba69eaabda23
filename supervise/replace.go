package supervise

import "time"

// replaceStarter makes another starter where there is none. One that fails soon
// is replaced later each time; until then the daemon starts the processes itself.
func (l *Launcher) replaceStarter() {
	l.mu.Lock()
	missing, wait := l.starter == nil && !l.closed, l.retry.wait(time.Now())
	l.mu.Unlock()
	if !missing {
		return
	}
	if wait > 0 {
		time.AfterFunc(wait, l.wantRefill)
		return
	}
	s, err := newStarter(l.exe, l.stage)
	l.mu.Lock()
	l.retry.began = time.Now()
	switch {
	case err != nil:
		l.retry.failed(time.Now())
	case !l.closed:
		l.starter, s = s, nil
	}
	l.mu.Unlock()
	if s != nil {
		s.close()
	}
}

// retry is when the next starter may be made: at once after one that lasted, else
// after a pause that doubles.
type retry struct {
	began, ended time.Time // of the last one
	pause        time.Duration
}

const firstPause, longestPause = 100 * time.Millisecond, time.Minute

// failed notes the end of a starter, or that none could be made.
func (r *retry) failed(now time.Time) {
	if r.pause = min(max(2*r.pause, firstPause), longestPause); now.Sub(r.began) > longestPause {
		r.pause = 0
	}
	r.ended = now
}

// wait is how long the next one has to.
func (r *retry) wait(now time.Time) time.Duration { return r.ended.Add(r.pause).Sub(now) }
