package server

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"time"

	mdns "github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// How long a server may take: less when there is another one to ask, since
// askers give up after five seconds.
const (
	patience       = 4 * time.Second
	patienceOfMany = 2 * time.Second
	silence        = 10 * time.Second // how long one that took longer comes last
)

// forward has others answer a question, later. What it returns is answered at
// once.
func (b *box) forward(query []byte, from asker) []byte {
	if b.dots.Load() && single(query) {
		return failure(query, mdns.RcodeSuccess) // and nothing in it: the asker goes on with its search list
	}
	servers := b.upstreams().ordered()
	if len(servers) == 0 {
		return failure(query, mdns.RcodeServerFailure)
	}
	if !b.begin() {
		return failure(query, mdns.RcodeRefused)
	}
	query = slices.Clone(query)
	from.due.Go(func() {
		defer b.end()
		from.respond(b.ask(servers, query, from.tcp))
	})
	return nil
}

// upstreams are the servers that may be asked for the sandbox. Its own are asked
// from where it is: what it cannot reach they do not tell it either. The host's
// are for those that reach more than their own networks.
func (b *box) upstreams() *upstreams {
	if own := b.servers.Load(); own != nil {
		return own
	}
	if !b.external.Load() {
		return &upstreams{}
	}
	return b.server.hosts.get()
}

// begin counts a forwarded question, if there may be one more: of the sandbox,
// and of all together, each of which has a descriptor open.
func (b *box) begin() bool {
	if b.forwards.Add(1) > maxForwards {
		b.forwards.Add(-1)
		return false
	}
	if b.server.forwards.Add(1) > b.server.maxForwards {
		b.end()
		return false
	}
	return true
}

func (b *box) end() {
	b.server.forwards.Add(-1)
	b.forwards.Add(-1)
}

// ask asks the servers in turn, by the protocol that the asker used, until one
// answers; a failure or refusal is a reason to ask the next one, and the answer
// when there is none.
func (b *box) ask(servers []*upstream, query []byte, tcp bool) []byte {
	last := failure(query, mdns.RcodeServerFailure)
	for i, u := range servers {
		wait := patience
		if i < len(servers)-1 {
			wait = patienceOfMany
		}
		a, err := b.exchange(u, query, tcp, time.Now().Add(wait))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			u.silent.Store(time.Now().Add(silence).UnixNano())
		}
		if err != nil {
			continue
		}
		u.silent.Store(0)
		if code := a[3] & 0xf; code != mdns.RcodeServerFailure && code != mdns.RcodeRefused {
			return a
		}
		last = a
	}
	return last
}

// exchange sends the question as it is and waits for what answers it.
func (b *box) exchange(u *upstream, query []byte, tcp bool, deadline time.Time) ([]byte, error) {
	f, err := b.server.inside.connect(b, u, tcp, deadline)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := query
	if tcp {
		out = append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)
	}
	if _, err := f.Write(out); err != nil {
		return nil, err
	}
	receive := datagram
	if tcp {
		receive = message
	}
	for {
		a, err := receive(f)
		if err != nil || answers(a, query) {
			return a, err
		}
	}
}

// datagram waits for one. Many wait at the same time, so there is no memory for
// it before it is there and its size is known.
func datagram(f *os.File) ([]byte, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var size int
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		size, _, failed = unix.Recvfrom(int(fd), nil, unix.MSG_PEEK|unix.MSG_TRUNC|unix.MSG_DONTWAIT)
		return failed != unix.EAGAIN
	})
	if err != nil || failed != nil {
		return nil, errors.Join(err, failed)
	}
	a := make([]byte, max(size, 1)) // what is empty must be read too
	n, err := f.Read(a)
	if errors.Is(err, io.EOF) { // it was empty
		err = nil
	}
	return a[:n], err
}

// message reads one of a connection, into memory that grows as it comes.
func message(f *os.File) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(f, size[:]); err != nil {
		return nil, err
	}
	want := int64(binary.BigEndian.Uint16(size[:]))
	a, err := io.ReadAll(io.LimitReader(f, want))
	if err == nil && int64(len(a)) < want {
		err = io.ErrUnexpectedEOF
	}
	return a, err
}

// answers tells whether a message is the answer to the question, not somebody's
// guess. Servers that do not understand a question may leave it out.
func answers(a, query []byte) bool {
	const response = 1 << 7
	if len(a) < headerSize || !bytes.Equal(a[:2], query[:2]) || a[2]&response == 0 {
		return false
	}
	if binary.BigEndian.Uint16(a[4:]) == 0 {
		return a[3]&0xf != mdns.RcodeSuccess
	}
	asked, told := questionEnd(query), questionEnd(a)
	return told > 0 && bytes.EqualFold(a[headerSize:told], query[headerSize:asked])
}

// single tells whether a question is for the address of a name without a dot.
func single(query []byte) bool {
	end := questionEnd(query)
	if end == 0 || headerSize+1+int(query[headerSize]) != end-5 {
		return false
	}
	kind := binary.BigEndian.Uint16(query[end-4:])
	return kind == mdns.TypeA || kind == mdns.TypeAAAA
}
