package image

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/format"
)

// meter counts what is read and shows it on a terminal, when reading takes
// more than a second.
type meter struct {
	r     io.Reader
	out   io.Writer // nil: not shown
	verb  string
	total int64 // 0: not known
	n     int64
	start time.Time

	mu    sync.Mutex // the upload may go on while the answer is printed
	over  bool
	shown time.Time
}

// newMeter reads r; it is shown when errOut is a terminal.
func newMeter(r io.Reader, errOut io.Writer, verb string, total int64) *meter {
	m := &meter{r: r, verb: verb, total: total, start: time.Now()}
	if _, ok := command.Terminal(errOut); ok {
		m.out = errOut
	}
	return m
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := time.Now(); m.out != nil && !m.over && now.Sub(m.start) > time.Second && now.Sub(m.shown) > 100*time.Millisecond {
		m.shown = now
		of := ""
		if m.total > 0 {
			of = " of " + format.Size(float64(m.total))
		}
		fmt.Fprintf(m.out, "\r\x1b[K%s %s%s", m.verb, format.Size(float64(m.n)), of)
	}
	return n, err
}

// done wipes the line for good.
func (m *meter) done() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.over = true; !m.shown.IsZero() {
		m.shown = time.Time{}
		io.WriteString(m.out, "\r\x1b[K")
	}
}
