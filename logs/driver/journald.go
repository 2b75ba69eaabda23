package driver

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// journalSocket is where systemd-journald(8) takes messages in.
const journalSocket = "/run/systemd/journal/socket"

// newJournald speaks journald's native protocol
// (systemd.io/JOURNAL_NATIVE_PROTOCOL) with Docker's fields.
func newJournald(_ map[string]string, info Info) (*Receiver, error) {
	tag, err := info.tag(defaultTag)
	if err != nil {
		return nil, err
	}
	fields, err := info.ExtraAttributes(journalField)
	if err != nil {
		return nil, err
	}
	delete(fields, "")
	maps.Copy(fields, map[string]string{
		"CONTAINER_ID": info.ID(), "CONTAINER_ID_FULL": info.ContainerID, "CONTAINER_NAME": info.Name(),
		"CONTAINER_TAG": tag, "IMAGE_NAME": info.ImageName(), "SYSLOG_IDENTIFIER": tag,
	})
	var fixed []byte
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		fixed = appendField(fixed, key, []byte(fields[key]))
	}
	return &Receiver{
		sure: true, send: sendJournal,
		dial: func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unixgram", journalSocket)
		},
		format: func(b []byte, m *Message) []byte {
			b = append(b, fixed...)
			b = appendField(b, "PRIORITY", strconv.AppendInt(nil, int64(severity(m.Stream)), 10))
			b = appendField(b, "SYSLOG_TIMESTAMP", m.Time.AppendFormat(nil, time.RFC3339Nano))
			if p := m.Partial; p != nil {
				b = appendField(b, "CONTAINER_PARTIAL_ID", []byte(p.ID))
				b = appendField(b, "CONTAINER_PARTIAL_ORDINAL", strconv.AppendInt(nil, int64(p.Ordinal), 10))
				b = appendField(b, "CONTAINER_PARTIAL_LAST", strconv.AppendBool(nil, p.Last))
				if !p.Last {
					b = appendField(b, "CONTAINER_PARTIAL_MESSAGE", []byte("true"))
				}
			}
			return appendField(b, "MESSAGE", m.Line)
		},
	}, nil
}

// journalField makes the name of a field: capitals, digits and underscores,
// none of these at its beginning.
func journalField(name string) string {
	return strings.TrimLeft(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, name), "_")
}

// appendField appends NAME=value, or where the value has a newline its length
// and itself.
func appendField(b []byte, name string, value []byte) []byte {
	b = append(b, name...)
	if bytes.IndexByte(value, '\n') < 0 {
		b = append(append(b, '='), value...)
	} else {
		b = binary.LittleEndian.AppendUint64(append(b, '\n'), uint64(len(value)))
		b = append(b, value...)
	}
	return append(b, '\n')
}

// sendJournal sends one entry: one that is too large for a datagram in a
// sealed file in memory.
func sendJournal(c net.Conn, entry []byte) error {
	_, err := c.Write(entry)
	if !errors.Is(err, unix.EMSGSIZE) && !errors.Is(err, unix.ENOBUFS) {
		return err
	}
	fd, err := unix.MemfdCreate("log", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "log")
	defer f.Close()
	if _, err := f.Write(entry); err != nil {
		return err
	}
	seals := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	rc, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return err
	}
	rights := unix.UnixRights(int(f.Fd()))
	var serr error
	if err := rc.Write(func(to uintptr) bool {
		serr = unix.Sendmsg(int(to), nil, rights, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		return serr != unix.EAGAIN
	}); err != nil {
		return err
	}
	return os.NewSyscallError("sendmsg", serr)
}
