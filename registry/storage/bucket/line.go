package bucket

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"
)

// line is the connection to the server. It knows the server's time, and adds a
// condition to the requests that minio-go has none for.
type line struct {
	base  http.RoundTripper
	ahead atomic.Int64 // of the server's clock to ours, in ns
}

type ifMatch struct{}

// matching has the DELETE that is made with the context ask for the ETag. The
// header is not signed; the server takes it all the same.
func matching(ctx context.Context, etag string) context.Context {
	return context.WithValue(ctx, ifMatch{}, `"`+etag+`"`)
}

func (l *line) RoundTrip(r *http.Request) (*http.Response, error) {
	if etag, ok := r.Context().Value(ifMatch{}).(string); ok {
		r = r.Clone(r.Context())
		r.Header.Set("If-Match", etag)
	}
	response, err := l.base.RoundTrip(r)
	if err == nil {
		if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
			l.ahead.Store(int64(time.Until(date)))
		}
	}
	return response, err
}

// now is the time by the server's clock, to the second.
func (l *line) now() time.Time { return time.Now().Add(time.Duration(l.ahead.Load())) }

func (l *line) closeIdle() {
	if t, ok := l.base.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}
