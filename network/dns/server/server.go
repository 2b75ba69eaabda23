// Package server is the inside of tare-dns, the process that answers the
// look-ups of a daemon's containers; see package network/dns for its protocol.
//
// A question is answered from the table of names where it is about the
// sandbox's own networks, on the goroutine that received it. All others are
// forwarded as they are, byte by byte, to the servers of the sandbox or the
// host's, each on a goroutine of its own, of which a sandbox has a bounded
// number. What a sandbox sends is hostile: it can cost the sender an answer and
// nobody else.
//
//	server.go    daemons: what they tell, when the process ends
//	replace.go   becoming another version of the program
//	table.go     the names
//	box.go       a sandbox and its sockets
//	answer.go    question -> answer
//	forward.go   the way to other servers; dial.go sockets in namespaces
//	hosts.go     the host's servers
package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/seqpacket"
	"github.com/tarehq/tare/network/dns"
)

// Config says what a Server is built on.
type Config struct {
	// Socket is the path at which daemons find it.
	Socket string
	// ResolvConf names the host's servers; /etc/resolv.conf if "".
	ResolvConf string
	// Idle is how long it waits for the next sandbox while a daemon is
	// connected, and how often it looks whether one can come while none is.
	Idle time.Duration
}

// Server answers for sandboxes.
type Server struct {
	config  Config
	names   table
	hosts   hosts
	inside  *dialer
	program dns.Program

	closing     chan struct{} // bounds the threads that close sockets
	forwards    atomic.Int32
	maxForwards int32

	mu       sync.Mutex // guards what follows, and is held while something of it changes
	listener *seqpacket.Listener
	inode    uint64 // of the socket
	boxes    map[string]*box
	daemons  map[*seqpacket.Conn]bool
	used     time.Time // when a sandbox was last told of or taken back
	idle     *time.Timer
	ended    bool
	over     chan struct{} // closed when nobody needs the process
}

// New makes a server without sandboxes.
func New(c Config) (*Server, error) {
	if c.ResolvConf == "" {
		c.ResolvConf = "/etc/resolv.conf"
	}
	program, err := dns.ProgramOf("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	s := &Server{
		config: c, program: program, names: newTable(), hosts: hosts{path: c.ResolvConf}, inside: newDialer(),
		boxes: map[string]*box{}, daemons: map[*seqpacket.Conn]bool{}, over: make(chan struct{}), closing: make(chan struct{}, 8), used: time.Now(),
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	s.maxForwards = int32(min(limit.Cur/2, 1<<20))
	s.mu.Lock() // consider may come at once
	defer s.mu.Unlock()
	s.idle = time.AfterFunc(c.Idle, s.consider)
	return s, nil
}

// Listen makes the socket; one that a dead process left is replaced.
func (s *Server) Listen() error {
	if err := os.Remove(s.config.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	l, err := seqpacket.Listen(s.config.Socket)
	if err != nil {
		return err
	}
	s.listenOn(l)
	return nil
}

func (s *Server) listenOn(l *seqpacket.Listener) {
	s.listener = l
	var st unix.Stat_t
	if unix.Stat(s.config.Socket, &st) == nil {
		s.inode = st.Ino
	}
}

// Run serves the first daemon's connection and all others, and returns when
// nobody needs the process any more.
func (s *Server) Run(first ...*seqpacket.Conn) error {
	for _, c := range first {
		s.admit(c)
	}
	failed := make(chan error, 1)
	go func() {
		for {
			c, err := s.listener.Accept()
			if err != nil {
				failed <- err
				return
			}
			s.admit(c)
		}
	}()
	select {
	case <-s.over:
	case err := <-failed:
		return fmt.Errorf("wait for daemons: %w", err)
	}
	// A process that took this one's place has its own socket there.
	if s.reachable() {
		return os.Remove(s.config.Socket)
	}
	return nil
}

// admit serves a daemon's connection until its end.
func (s *Server) admit(c *seqpacket.Conn) {
	s.mu.Lock()
	s.daemons[c] = true
	s.mu.Unlock()
	go func() {
		for {
			msg, files, err := c.Recv()
			if err != nil && !errors.Is(err, seqpacket.ErrFilesLost) {
				break
			}
			a := s.handle(c, msg, files)
			b, err := json.Marshal(a)
			if err != nil || c.Send(b) != nil {
				break
			}
		}
		s.mu.Lock()
		delete(s.daemons, c)
		s.mu.Unlock()
		c.Close()
		s.consider()
	}()
}

// handle carries out a request. The files are its own.
func (s *Server) handle(c *seqpacket.Conn, msg []byte, files []*os.File) dns.Answer {
	var r dns.Request
	var err error
	a := dns.Answer{}
	if err = json.Unmarshal(msg, &r); err == nil {
		switch r.Op {
		case dns.OpHello:
			a.Hello = s.hello()
		case dns.OpSet:
			if r.Sandbox == nil {
				err = errors.New("no sandbox is named")
				break
			}
			err = s.set(*r.Sandbox, dns.OutletsOf(files))
			files = nil
		case dns.OpDrop:
			s.drop(r.ID, nil)
		case dns.OpReplace:
			err = s.replace(c, files)
		default:
			err = fmt.Errorf("%q is not known to this version of tare-dns", r.Op)
		}
	}
	for _, f := range files {
		f.Close()
	}
	if errors.Is(err, dns.ErrUnknown) {
		a.Unknown = true
	} else if err != nil {
		a.Error = err.Error()
	}
	return a
}

func (s *Server) hello() *dns.Hello {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := &dns.Hello{Protocol: dns.Protocol, Program: s.program, PID: os.Getpid()}
	for id := range s.boxes {
		h.Sandboxes = append(h.Sandboxes, id)
	}
	return h
}

// set takes up a sandbox, or what has changed of it. New outlets take the place
// of those it had.
func (s *Server) set(sb dns.Sandbox, o *dns.Outlets) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = time.Now()
	b := s.boxes[sb.ID]
	if b == nil && o == nil {
		return dns.ErrUnknown
	}
	if o != nil {
		fresh, err := newBox(s, sb.ID, o)
		if err != nil {
			return err
		}
		if b != nil {
			b.close()
		}
		b = fresh
		s.boxes[sb.ID] = b
	}
	b.told(sb)
	s.names.set(sb)
	if o != nil {
		b.serve()
	}
	return nil
}

// drop forgets a sandbox; with only, if that is still what it is.
func (s *Server) drop(id string, only *box) {
	s.mu.Lock()
	s.used = time.Now()
	b := s.boxes[id]
	if b != nil && (only == nil || only == b) {
		delete(s.boxes, id)
		s.names.drop(id)
		b.close()
	}
	s.mu.Unlock()
	s.consider()
}

// consider ends the process when nobody needs it. While a daemon is connected
// that takes some time without any sandbox. While none is, nobody will ever come
// again once the socket is gone.
func (s *Server) consider() {
	s.mu.Lock()
	defer s.mu.Unlock()
	alone := len(s.daemons) == 0
	left := s.config.Idle - time.Since(s.used)
	switch {
	case s.ended:
	case len(s.boxes) > 0 && !alone: // that its connection ends, or a sandbox, is told
	case len(s.boxes) > 0 && s.reachable():
		s.idle.Reset(s.config.Idle)
	case len(s.boxes) == 0 && !alone && left > 0:
		s.idle.Reset(left)
	default:
		s.ended = true
		close(s.over)
	}
}

// reachable tells whether the socket is where daemons look for it.
func (s *Server) reachable() bool {
	var st unix.Stat_t
	return unix.Stat(s.config.Socket, &st) == nil && st.Ino == s.inode
}
