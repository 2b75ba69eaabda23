// Command tare-build builds images for a tared, which starts it, hands it the
// connections of clients that want something built, and lends it its store. See
// package build/launch for the daemon's side.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/log"

	"github.com/tarehq/tare/build/front"
	"github.com/tarehq/tare/build/keep"
	"github.com/tarehq/tare/build/lend"
	"github.com/tarehq/tare/container/device"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/internal/handoff"
	"github.com/tarehq/tare/internal/userns"
	"github.com/tarehq/tare/supervise"
)

// idleTime is how long the process waits for somebody before it ends.
const idleTime = time.Minute

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "tare-build:", err)
		os.Exit(1)
	}
}

func run() error {
	// BuildKit's session manager has an error to tell of each client that goes away.
	if err := log.SetLevel("fatal"); err != nil {
		return err
	}
	dir := flag.String("dir", "", "where the daemon keeps what belongs to this boot")
	root := flag.String("root", "", "where the cache lies")
	parent := flag.String("cgroup-parent", "", "control group of the steps")
	gateway := flag.String("host-gateway", "", "address that host-gateway stands for in --add-host")
	var rules []keep.Rule
	flag.Func("keep", "rules of what of the cache is kept, JSON", func(text string) error { return json.Unmarshal([]byte(text), &rules) })
	var users *userns.Map
	flag.Func("users", "what the IDs of the steps are outside, JSON", func(text string) error { return json.Unmarshal([]byte(text), &users) })
	grants := flag.String("grants", "", "what clients may grant to their builds, separated by commas")
	var devices device.CDI
	flag.Func("devices", "directory of files that describe devices (CDI)", func(dir string) error { devices.Dirs = append(devices.Dirs, dir); return nil })
	flag.Parse()
	in, err := inherited(3)
	if err != nil {
		return fmt.Errorf("this program is started by tared: %w", err)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	go func() { // the daemon's end is ours
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	launcher, err := newLauncher(*parent)
	if err != nil {
		return err
	}
	defer launcher.Close()
	return front.Serve(ctx, handoff.Receive(in), front.Config{
		Store: lend.NewClient(filepath.Join(*dir, "lend.sock")), Steps: filepath.Join(*dir, "steps"), Root: *root,
		CgroupParent: *parent, Users: users, Launcher: launcher, HostGateway: *gateway, Idle: idleTime, Rules: rules, Grants: strings.Split(*grants, ","), Devices: devices,
		Failed: func(err error) {
			fmt.Fprintln(os.Stderr, "the cache of builds:", err)
		},
	})
}

// inherited is the socket that the daemon listens at.
func inherited(fd uintptr) (*net.UnixListener, error) {
	file := os.NewFile(fd, "socket")
	if file == nil {
		return nil, errors.New("there is no descriptor 3")
	}
	defer file.Close()
	l, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	unix, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, errors.New("descriptor 3 is no unix socket")
	}
	return unix, nil
}

// newLauncher starts the processes that supervise steps; the program lies beside
// this one.
func newLauncher(parent string) (*supervise.Launcher, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	sample, err := spec.Sample(parent)
	if err != nil {
		return nil, err
	}
	return supervise.NewLauncher(filepath.Join(filepath.Dir(self), "tare-supervise"), 2, sample)
}
