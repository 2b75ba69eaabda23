package build

import "sync"

// printer passes output on: 1 is standard output, 2 standard error. The bytes are the
// caller's again when it returns.
type printer func(stream int, data []byte)

// printer passes output on as a vertex's.
func (j *Job) printer(v *vertex) printer {
	return func(stream int, data []byte) { j.progress.Log(v.digest, stream, data) }
}

// echo passes what one execution prints to all builds that wait for it, also what was
// printed before they came.
type echo struct {
	mu    sync.Mutex
	said  []said
	size  int
	to    map[int]printer
	count int
}

type said struct {
	stream int
	data   []byte
}

// maxEcho bounds what is kept for those who come later, in bytes, as what is shown of
// one vertex is bounded.
const maxEcho = 2 << 20

// pieceSize is about what a piece takes beside its bytes.
const pieceSize = 64

func (e *echo) print(stream int, data []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.size < maxEcho {
		e.keep(stream, data)
	}
	for _, p := range e.to {
		p(stream, data)
	}
}

// keep goes on with what was printed last, or begins a piece, which takes memory, too.
func (e *echo) keep(stream int, data []byte) {
	e.size += len(data)
	if n := len(e.said); n > 0 && e.said[n-1].stream == stream {
		e.said[n-1].data = append(e.said[n-1].data, data...)
		return
	}
	e.said = append(e.said, said{stream, append([]byte(nil), data...)})
	e.size += pieceSize
}

// follow has p get all that is printed until end is called.
func (e *echo) follow(p printer) (end func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.said {
		p(s.stream, s.data)
	}
	if e.to == nil {
		e.to = map[int]printer{}
	}
	e.count++
	n := e.count
	e.to[n] = p
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.to, n)
	}
}
