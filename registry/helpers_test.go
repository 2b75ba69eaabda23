package registry

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/tarehq/tare/fault"
)

// allowing is an authorizer made of a function.
type allowing func(*http.Request, ...Access) (string, error)

func (f allowing) Authorize(r *http.Request, want ...Access) (string, error) { return f(r, want...) }

func forbidden() error { return fault.New(fault.Forbidden, "you may not") }

func newRecorder() *httptest.ResponseRecorder { return httptest.NewRecorder() }

func newRequest(method, path string) *http.Request { return httptest.NewRequest(method, path, nil) }

// spy is a connection that notes whether it is given a file to copy from.
type spy struct {
	*httptest.ResponseRecorder
	file bool
}

func (s *spy) ReadFrom(r io.Reader) (int64, error) {
	inner := r
	if l, ok := r.(*io.LimitedReader); ok {
		inner = l.R
	}
	_, s.file = inner.(*os.File)
	return io.Copy(s.ResponseRecorder, r)
}

func logTo(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
