package client

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"github.com/tarehq/tare/fault"
)

// ErrBroken is what a request meets whose daemon dies before it has answered.
var ErrBroken = fault.New(fault.Unavailable, "the connection to the daemon broke")

// statusFault turns a status and its message into a fault.
func statusFault(status int, message string) error {
	return fault.New(statusKind(status), "Error response from daemon: %s", message)
}

// statusKind is the kind of fault that the daemon gave the status for.
func statusKind(status int) fault.Kind {
	switch {
	case status == 304:
		return fault.NotModified
	case status == 401:
		return fault.Unauthorized
	case status == 403:
		return fault.Forbidden
	case status == 404:
		return fault.NotFound
	case status == 409:
		return fault.Conflict
	case status == 501:
		return fault.NotImplemented
	case status == 503:
		return fault.Unavailable
	case status >= 400 && status < 500:
		return fault.Invalid
	}
	return fault.Internal
}

// errorMessage reads the message of an error answer: JSON's "message", or the
// text as it is.
func errorMessage(resp *response) string {
	defer resp.body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.body, 1<<20))
	// A further read finds the end, which frees the connection.
	resp.body.Read(make([]byte, 1))
	var answer struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(text, &answer) == nil && answer.Message != "" {
		return strings.TrimSpace(answer.Message)
	}
	if s := strings.TrimSpace(string(text)); s != "" {
		return s
	}
	return "status " + itoa(resp.status) + " without a message"
}

// explainDial says what to do when the daemon cannot be reached.
func (c *Client) explainDial(err error) error {
	host := c.endpoint.Host
	if c.endpoint.Context != "" {
		host += " (context " + strconv.Quote(c.endpoint.Context) + ")"
	}
	switch {
	case errors.Is(err, syscall.EACCES) && c.network == "unix":
		if group := socketGroup(c.address); group != "" {
			return fault.New(fault.Forbidden, "permission denied on the daemon's socket %s: it belongs to group %s; "+
				"join it with: sudo usermod -aG %s $USER, then log in again", host, group, group)
		}
		return fault.New(fault.Forbidden, "permission denied on the daemon's socket %s: use sudo or ask for access to it", host)
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
		if host == DefaultHost {
			return fault.New(fault.Unavailable, "cannot connect to tared at %s: is it running? start it with: sudo tared, or name another one by TARE_HOST", host)
		}
		return fault.New(fault.Unavailable, "cannot connect to the daemon at %s: is it running?", host)
	}
	return fault.New(fault.Unavailable, "cannot connect to the daemon at %s: %w", host, err)
}

// socketGroup names the group of a socket that its group may write.
func socketGroup(path string) string {
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&0o060 != 0o060 {
		return ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Gid == 0 {
		return ""
	}
	gid := strconv.FormatUint(uint64(st.Gid), 10)
	if g, err := user.LookupGroupId(gid); err == nil {
		return g.Name
	}
	return gid
}

func isClosedByPeer(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}
