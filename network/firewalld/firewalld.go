// Package firewalld has firewalld, where it runs, let through what containers
// send and receive. Its own rules end with a refusal of all that is forwarded
// between interfaces of which it knows nothing, and no rule of ours can take that
// back. So, as Docker does and under Docker's names, the bridges are put into a zone
// of their own, docker, whose target is to accept, and a policy, docker-forwarding,
// lets packets from all zones into it; which of them reach a container is decided by
// our rules alone. Zone and policy are made permanently, what is in the zone lasts as
// long as firewalld runs without being reloaded: see Watch.
//
// It is asked by D-Bus, https://firewalld.org/documentation/man-pages/firewalld.dbus.html,
// each time over a connection of its own, and never started for it.
package firewalld

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/tarehq/tare/internal/dbus"
)

// Docker's names, which administrators know.
const (
	zone   = "docker"
	policy = "docker-forwarding"
)

const (
	service    = "org.fedoraproject.FirewallD1"
	object     = dbus.Path("/org/fedoraproject/FirewallD1")
	objectConf = dbus.Path("/org/fedoraproject/FirewallD1/config")
	busName    = "org.freedesktop.DBus"
	busObject  = dbus.Path("/org/freedesktop/DBus")
)

// socket is the system bus's.
func socket() string {
	if path, ok := strings.CutPrefix(os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"), "unix:path="); ok {
		return path
	}
	return "/run/dbus/system_bus_socket"
}

// session is one connection.
type session struct{ *dbus.Conn }

// open connects; nil where there is no bus or firewalld does not run.
func open() (*session, error) {
	path := socket()
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	c, err := dbus.Bus(path)
	if err != nil {
		return nil, fmt.Errorf("ask whether firewalld runs: %w", err)
	}
	_, err = c.Call(busName, busObject, busName, "GetNameOwner", service)
	if err != nil {
		c.Close()
		if named(err, "org.freedesktop.DBus.Error.NameHasNoOwner", "") {
			return nil, nil
		}
		return nil, fmt.Errorf("ask whether firewalld runs: %w", err)
	}
	return &session{c}, nil
}

// named tells whether the peer refused by that name, and with words that begin like
// this.
func named(err error, name, words string) bool {
	var refused *dbus.Error
	return errors.As(err, &refused) && refused.Name == name && strings.HasPrefix(refused.Text, words)
}

// said tells whether firewalld refused with one of its own codes.
func said(err error, code string) bool { return named(err, service+".Exception", code) }

// Running tells whether firewalld runs.
func Running() bool {
	s, err := open()
	if s != nil {
		s.Close()
	}
	return s != nil && err == nil
}

// Join puts the bridges into the zone, which is made first if it is not there. One
// that the administrator has put into another zone stays there.
func Join(bridges ...string) error {
	s, err := open()
	if s == nil || len(bridges) == 0 {
		return err
	}
	defer s.Close()
	if err := s.prepare(); err != nil {
		return err
	}
	for _, b := range bridges {
		_, err := s.Call(service, object, service+".zone", "addInterface", zone, b)
		if err != nil && !said(err, "ZONE_ALREADY_SET") && !said(err, "ZONE_CONFLICT") && !said(err, "ALREADY_ENABLED") {
			return fmt.Errorf("put the bridge %s into firewalld's zone %s: %w", b, zone, err)
		}
	}
	return nil
}

// prepare makes the zone and the policy, and has firewalld read them if they are
// new.
func (s *session) prepare() error {
	made := false
	_, err := s.Call(service, objectConf, service+".config", "addZone2", zone, dbus.Dict{
		{Name: "version", Value: "1.0"}, {Name: "short", Value: zone},
		{Name: "description", Value: "bridges of container networks"}, {Name: "target", Value: "ACCEPT"},
	})
	switch {
	case err == nil:
		made = true
	case !said(err, "NAME_CONFLICT"):
		return fmt.Errorf("make firewalld's zone %s: %w", zone, err)
	}
	_, err = s.Call(service, objectConf, service+".config", "addPolicy", policy, dbus.Dict{
		{Name: "version", Value: "1.0"}, {Name: "description", Value: "what may reach containers is for their engine to decide"},
		{Name: "ingress_zones", Value: []string{"ANY"}}, {Name: "egress_zones", Value: []string{zone}}, {Name: "target", Value: "ACCEPT"},
	})
	switch {
	case err == nil:
		made = true
	case !said(err, "NAME_CONFLICT"):
		return fmt.Errorf("make firewalld's policy %s: %w", policy, err)
	}
	if !made {
		return nil
	}
	if _, err := s.Call(service, object, service, "reload"); err != nil {
		return fmt.Errorf("have firewalld read its new zone %s: %w", zone, err)
	}
	return nil
}

// Leave takes a bridge out of the zone; one that is not in it is no error.
func Leave(bridge string) error {
	s, err := open()
	if s == nil {
		return err
	}
	defer s.Close()
	_, err = s.Call(service, object, service+".zone", "removeInterface", zone, bridge)
	if err != nil && !said(err, "NOT_ENABLED") && !said(err, "UNKNOWN_INTERFACE") && !said(err, "ZONE_CONFLICT") && !said(err, "INVALID_ZONE") {
		return fmt.Errorf("take the bridge %s out of firewalld's zone %s: %w", bridge, zone, err)
	}
	return nil
}

// again is how long a bus that is gone is waited for.
const again = 10 * time.Second

// Watch calls changed whenever firewalld has been started or reloaded, until ctx
// ends. Where there is no bus when it is called it returns at once.
func Watch(ctx context.Context, changed func()) {
	for ctx.Err() == nil {
		if _, err := os.Stat(socket()); errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err := watch(ctx, changed); err == nil {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(again):
		}
	}
}

// watch is Watch over one connection.
func watch(ctx context.Context, changed func()) error {
	c, err := dbus.Bus(socket())
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, c.Hangup)
	defer stop()
	for _, rule := range []string{
		"type='signal',interface='" + service + "',member='Reloaded'",
		"type='signal',interface='" + busName + "',member='NameOwnerChanged',arg0='" + service + "'",
	} {
		if _, err := c.Call(busName, busObject, busName, "AddMatch", rule); err != nil {
			return err
		}
	}
	for {
		member, texts, err := c.Signal()
		if err != nil {
			return err
		}
		started := member == "NameOwnerChanged" && len(texts) == 3 && texts[0] == service && texts[2] != ""
		if started || member == "Reloaded" {
			changed()
		}
	}
}
