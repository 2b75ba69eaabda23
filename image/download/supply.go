package download

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tarehq/tare/remote"
)

const (
	// presumedRate is how many bytes a second a repository counts as bringing
	// before it was seen to.
	presumedRate = 256 << 10
	// rateWindow is how long a repository is watched before another is preferred.
	rateWindow = 10 * time.Second
)

var (
	// errNoSource is what a download ends with when all have failed; what each
	// pull is told is its own repository's failure.
	errNoSource = errors.New("no registry has the content")
	errGone     = errors.New("the pull that brought the repository has gone")
	errOutpaced = errors.New("another repository brings the content faster")
)

// supply is the repositories of the pulls that want a download, each asked as
// its own pull's user. One is drawn from at a time: the fastest that has not
// failed, as far as is known. It is guarded by Downloads.mu.
type supply struct {
	list []*supplier // in the order in which they came
	now  *draw       // nil between two
}

// supplier is a repository.
type supplier struct {
	repo    *remote.Repository
	pulls   int              // that brought it; it goes with the last
	sources []*remote.Source // its mirrors and itself, without those that failed
	later   bool             // it failed while another could be asked: it is asked again, with patience
	failure error            // the last
	rate    int64            // bytes a second
}

// draw is the time in which one source is drawn from.
type draw struct {
	from    *supplier
	source  *remote.Source
	patient bool // nobody else is left
	cancel  context.CancelCauseFunc
	bytes   atomic.Int64 // that have come
}

// join adds a pull's repository.
func (s *supply) join(repo *remote.Repository, sources []*remote.Source) *supplier {
	for _, o := range s.list {
		if o.repo.Same(repo) {
			o.pulls++
			return o
		}
	}
	o := &supplier{repo: repo, pulls: 1, sources: sources, rate: presumedRate}
	s.list = append(s.list, o)
	return o
}

// leave takes one pull from a repository, and the repository with its last.
func (s *supply) leave(o *supplier) {
	if o.pulls--; o.pulls > 0 {
		return
	}
	s.list = slices.DeleteFunc(s.list, func(x *supplier) bool { return x == o })
	if s.now != nil && s.now.from == o {
		s.now.cancel(errGone)
	}
}

// next chooses whom to draw from; nil when nobody is left.
func (s *supply) next() *draw {
	var best, later *supplier
	fresh := 0
	for _, o := range s.list {
		switch {
		case len(o.sources) == 0:
		case o.later && later == nil:
			later = o
		case o.later:
		default:
			if fresh++; best == nil || o.rate > best.rate {
				best = o
			}
		}
	}
	switch {
	case best != nil:
		return &draw{from: best, source: best.sources[0], patient: fresh == 1 && later == nil && len(best.sources) == 1}
	case later != nil:
		return &draw{from: later, source: later.sources[0], patient: true}
	}
	return nil
}

// failed strikes out a source that did not do, or puts it off when it is the
// last of its repository and was not asked with patience.
func (s *supply) failed(d *draw, err error) {
	d.from.failure = err
	if len(d.from.sources) == 1 && !d.patient {
		d.from.later = true
		return
	}
	d.from.strike(d.source)
}

// lied strikes out a source that sent wrong bytes.
func (s *supply) lied(source *remote.Source, err error) {
	for _, o := range s.list {
		if slices.Contains(o.sources, source) {
			o.failure = err
			o.strike(source)
		}
	}
}

func (o *supplier) strike(source *remote.Source) {
	o.sources = slices.DeleteFunc(o.sources, func(x *remote.Source) bool { return x == source })
}

// outpaced notes what a repository brings, and tells whether another one is
// likely to bring more than twice that.
func (s *supply) outpaced(o *supplier, rate int64) bool {
	o.rate = rate
	return slices.ContainsFunc(s.list, func(x *supplier) bool {
		return x != o && len(x.sources) > 0 && !x.later && x.rate/2 > rate
	})
}
