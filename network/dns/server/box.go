package server

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/network/dns"
)

// What a sandbox may take up at a time.
const (
	maxForwards    = 1024
	maxConnections = 128
	maxQuery       = 4096 // bytes
	tcpIdle        = 10 * time.Second
)

// box is a sandbox with its sockets.
type box struct {
	server *Server
	id     string
	files  *dns.Outlets // rules and lifeline; the others as sockets
	udp    *net.UDPConn
	tcp    *net.TCPListener

	servers     atomic.Pointer[upstreams] // of its own, nil for the host's
	external    atomic.Bool
	dots        atomic.Bool
	forwards    atomic.Int32
	connections atomic.Int32
	due         sync.WaitGroup // answers that come later by UDP
}

// newBox takes over the outlets.
func newBox(s *Server, id string, o *dns.Outlets) (*box, error) {
	b := &box{server: s, id: id, files: o}
	udp, err := net.FilePacketConn(o.UDP)
	if err == nil {
		b.udp, _ = udp.(*net.UDPConn)
		var tcp net.Listener
		if tcp, err = net.FileListener(o.TCP); err == nil {
			b.tcp, _ = tcp.(*net.TCPListener)
		}
	}
	o.UDP.Close()
	o.TCP.Close()
	if err == nil && (b.udp == nil || b.tcp == nil) {
		err = errors.New("these are no sockets of a resolver")
	}
	if err == nil && o.Lifeline != nil { // received blocking
		err = setNonblock(&o.Lifeline)
	}
	if err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

// setNonblock makes reads of the file wait without a thread.
func setNonblock(f **os.File) error {
	fd, err := unix.FcntlInt((*f).Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	(*f).Close()
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return err
	}
	*f = os.NewFile(uintptr(fd), "lifeline")
	return nil
}

// told takes over what is new of the sandbox.
func (b *box) told(sb dns.Sandbox) {
	var own *upstreams
	if len(sb.Servers) > 0 {
		own = &upstreams{}
		for _, a := range sb.Servers {
			if a.Unmap() != dns.Address.Addr() { // would ask itself
				own.add(a, true)
			}
		}
	}
	b.servers.Store(own)
	b.external.Store(sb.External)
	b.dots.Store(sb.Dots)
}

// serve starts what ends with close.
func (b *box) serve() {
	go b.serveUDP()
	go b.serveTCP()
	if b.files.Lifeline != nil {
		go func() {
			if _, err := b.files.Lifeline.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
				b.server.drop(b.id, b)
			}
		}()
	}
}

// letGo closes the socket that owns a table, for which the kernel waits until no
// packet can be in it: some 10 ms that nobody else has to wait for.
func (s *Server) letGo(rules *os.File) {
	go func() {
		s.closing <- struct{}{}
		rules.Close()
		<-s.closing
	}()
}

func (b *box) close() {
	if b.udp != nil {
		b.udp.Close()
	}
	if b.tcp != nil {
		b.tcp.Close()
	}
	b.server.letGo(b.files.Rules)
	if b.files.Lifeline != nil {
		b.files.Lifeline.Close()
	}
}

// asker is somebody who gets an answer.
type asker struct {
	tcp     bool
	respond func([]byte)
	due     *sync.WaitGroup // of the answers that come later
}

// handle answers a question, now or later. A question that finds a fault in the
// library costs its sender the answer, not everybody.
func (b *box) handle(query []byte, from asker) {
	defer func() { _ = recover() }()
	a, forward := b.server.answer(b.id, query, from.tcp)
	if forward {
		a = b.forward(query, from)
	}
	if a != nil {
		from.respond(a)
	}
}

func (b *box) serveUDP() {
	buf := make([]byte, maxQuery)
	for {
		n, from, err := b.udp.ReadFromUDPAddrPort(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err == nil:
			b.handle(buf[:n], asker{respond: func(a []byte) { _, _ = b.udp.WriteToUDPAddrPort(a, from) }, due: &b.due})
		}
	}
}

func (b *box) serveTCP() {
	for {
		conn, err := b.tcp.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors, for now
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if b.connections.Add(1) > maxConnections {
			b.connections.Add(-1)
			conn.Close()
			continue
		}
		go func() {
			defer b.connections.Add(-1)
			b.serveConn(conn)
		}()
	}
}

// serveConn answers what comes on a connection, in any order, RFC 7766. An asker
// that has closed its side still gets what is due.
func (b *box) serveConn(conn *net.TCPConn) {
	var due sync.WaitGroup
	defer conn.Close()
	defer due.Wait()
	var writing sync.Mutex
	to := asker{tcp: true, due: &due, respond: func(a []byte) {
		writing.Lock()
		defer writing.Unlock()
		_ = conn.SetWriteDeadline(time.Now().Add(tcpIdle))
		_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...))
	}}
	buf := make([]byte, maxQuery)
	for {
		_ = conn.SetReadDeadline(time.Now().Add(tcpIdle))
		if _, err := io.ReadFull(conn, buf[:2]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(buf))
		if n > maxQuery {
			return
		}
		if _, err := io.ReadFull(conn, buf[:n]); err != nil {
			return
		}
		b.handle(buf[:n], to)
	}
}
