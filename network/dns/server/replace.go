package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/seqpacket"
	"github.com/tarehq/tare/network/dns"
)

// A process becomes another version of itself by execve(2): its sockets stay
// open, and with them the questions that wait in them. What it knows is in a
// memory file, as JSON, whose number the environment tells. Questions that were
// forwarded and not answered yet are asked again by those who asked.

// stateVariable is the number of the memory file's descriptor.
const stateVariable = "TARE_DNS_STATE"

// state is what a process leaves to its successor. Files are descriptors.
type state struct {
	Listener  int
	Daemons   []int
	Replacing int // the daemon that waits for the answer
	Sandboxes []kept
}

type kept struct {
	Sandbox dns.Sandbox
	Files   []int // as in dns.Outlets.Files
}

// replace returns only when it fails.
func (s *Server) replace(by *seqpacket.Conn, files []*os.File) error {
	if len(files) != 1 {
		return errors.New("one program is needed")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st, err := s.stateLocked(by)
	if err != nil {
		return err
	}
	content, err := json.Marshal(st)
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("state", 0)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	memory := os.NewFile(uintptr(fd), "state")
	defer memory.Close()
	if _, err := memory.Write(content); err != nil {
		return err
	}
	if err := st.inherit(true); err != nil {
		return errors.Join(err, st.inherit(false))
	}
	environment := append(os.Environ(), stateVariable+"="+strconv.Itoa(fd))
	program := fmt.Sprintf("/proc/self/fd/%d", files[0].Fd())
	return errors.Join(fmt.Errorf("execute the other version: %w", unix.Exec(program, os.Args, environment)), st.inherit(false))
}

// inherit says whether the next program gets the descriptors.
func (s *state) inherit(yes bool) error {
	flag := unix.FD_CLOEXEC
	if yes {
		flag = 0
	}
	all := append([]int{s.Listener}, s.Daemons...)
	for _, k := range s.Sandboxes {
		all = append(all, k.Files...)
	}
	for _, fd := range all {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, flag); err != nil {
			return os.NewSyscallError("fcntl", err)
		}
	}
	return nil
}

// stateLocked collects the descriptors of what is open.
func (s *Server) stateLocked(replacing *seqpacket.Conn) (st state, err error) {
	if st.Listener, err = s.listener.Descriptor(); err != nil {
		return st, err
	}
	for c := range s.daemons {
		fd, err := c.Descriptor()
		if err != nil {
			return st, err
		}
		st.Daemons = append(st.Daemons, fd)
		if c == replacing {
			st.Replacing = fd
		}
	}
	for id, b := range s.boxes {
		k := kept{Sandbox: s.names.sandbox(id)}
		sockets := []syscall.Conn{b.udp, b.tcp, b.files.Rules}
		if b.files.Lifeline != nil {
			sockets = append(sockets, b.files.Lifeline)
		}
		for _, c := range sockets {
			raw, err := c.SyscallConn()
			if err == nil {
				err = raw.Control(func(fd uintptr) { k.Files = append(k.Files, int(fd)) })
			}
			if err != nil {
				return st, err
			}
		}
		st.Sandboxes = append(st.Sandboxes, k)
	}
	return st, nil
}

// Inherits tells whether the process is the successor of another.
func Inherits() bool { return os.Getenv(stateVariable) != "" }

// Inherit takes over what the predecessor left, and tells the daemon that waits
// for it. It gives the connections to Run.
func (s *Server) Inherit() ([]*seqpacket.Conn, error) {
	fd, err := strconv.Atoi(os.Getenv(stateVariable))
	if err != nil {
		return nil, err
	}
	os.Unsetenv(stateVariable)
	memory := os.NewFile(uintptr(fd), "state")
	defer memory.Close()
	var st state
	if _, err := memory.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if err := json.NewDecoder(memory).Decode(&st); err != nil {
		return nil, fmt.Errorf("read what the other version left: %w", err)
	}
	if err := st.inherit(false); err != nil {
		return nil, err
	}
	l, err := seqpacket.NewListener(st.Listener)
	if err != nil {
		return nil, err
	}
	s.listenOn(l)
	for _, k := range st.Sandboxes {
		var files []*os.File
		for _, fd := range k.Files {
			files = append(files, os.NewFile(uintptr(fd), "resolver"))
		}
		if err := s.set(k.Sandbox, dns.OutletsOf(files)); err != nil {
			return nil, err
		}
	}
	return s.inheritDaemons(st)
}

func (s *Server) inheritDaemons(st state) (daemons []*seqpacket.Conn, err error) {
	done, err := json.Marshal(dns.Answer{})
	if err != nil {
		return nil, err
	}
	for _, fd := range st.Daemons {
		c, err := seqpacket.New(fd)
		if err != nil {
			return nil, err
		}
		if fd == st.Replacing {
			err = c.Send(done)
		}
		if err != nil { // gone meanwhile
			c.Close()
			continue
		}
		daemons = append(daemons, c)
	}
	return daemons, nil
}
