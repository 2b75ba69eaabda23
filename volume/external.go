package volume

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/plugin"
)

// A driver that is not Local is a plugin that speaks Docker's volume protocol:
// https://docs.docker.com/engine/extend/plugins_volume/

const (
	driverKind = "VolumeDriver"
	// glance bounds the calls that only ask, so that a plugin that hangs keeps
	// nobody waiting who wants to look.
	glance = 5 * time.Second
)

// external is a volume as its plugin tells of it.
type external struct {
	Name       string
	Mountpoint string
	CreatedAt  time.Time
	Status     map[string]any

	driver, scope string
}

// driver finds a plugin, and starts to use it.
func (s *Service) driver(ctx context.Context, name string) (*plugin.Plugin, error) {
	if s.plugins == nil {
		return nil, fault.New(fault.NotFound, "error looking up volume plugin %s: plugin %q not found", name, name)
	}
	p, err := s.plugins.Get(ctx, name, driverKind)
	if err != nil {
		return nil, fault.New(pluginFault(err), "error looking up volume plugin %s: %w", name, err)
	}
	return p, nil
}

func pluginFault(err error) fault.Kind {
	switch {
	case errors.Is(err, plugin.NotFound):
		return fault.NotFound
	case errors.Is(err, plugin.Invalid):
		return fault.Invalid
	case errors.Is(err, plugin.Unavailable):
		return fault.Unavailable
	}
	return fault.Internal
}

// Drivers are the names of those that are in use, Local first.
func (s *Service) Drivers() []string {
	list := []string{Local}
	if s.plugins != nil {
		list = append(list, s.plugins.Known(driverKind)...)
	}
	return list
}

type volumeName struct{ Name string }

// ask has a plugin do something with a volume.
func (s *Service) ask(ctx context.Context, driver, method string, args, result any) error {
	p, err := s.driver(ctx, driver)
	if err != nil {
		return err
	}
	if err := p.Call(ctx, driverKind+"."+method, args, result); err != nil {
		return fault.New(pluginFault(err), "%w", err)
	}
	return nil
}

// getExternal asks for a volume; nil if the plugin does not have it.
func getExternal(ctx context.Context, p *plugin.Plugin, name string) (*external, error) {
	ctx, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	var answer struct{ Volume *external }
	err := p.CallOnce(ctx, driverKind+".Get", volumeName{name}, &answer)
	var refusal *plugin.Refusal
	if errors.As(err, &refusal) || answer.Volume == nil && err == nil { // it speaks, and has none
		return nil, nil
	}
	if err != nil {
		return nil, fault.New(pluginFault(err), "%w", err)
	}
	answer.Volume.driver = p.Name
	return answer.Volume, nil
}

// lookupExternal asks a volume's own plugin; nil if that has it no more.
func (s *Service) lookupExternal(ctx context.Context, driver, name string) (*external, error) {
	ctx, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	p, err := s.driver(ctx, driver)
	if err != nil {
		return nil, err
	}
	v, err := getExternal(ctx, p, name)
	if v != nil {
		v.scope = scopeOf(ctx, p)
	}
	return v, err
}

// scopeOf is "global" for the volumes of a plugin that says so, else "local".
func scopeOf(ctx context.Context, p *plugin.Plugin) string {
	ctx, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	var answer struct{ Capabilities struct{ Scope string } }
	if p.CallOnce(ctx, driverKind+".Capabilities", nil, &answer) == nil && strings.EqualFold(answer.Capabilities.Scope, "global") {
		return "global"
	}
	return "local"
}

// probe looks for a volume that is not known here in all plugins.
func (s *Service) probe(ctx context.Context, name string) *external {
	if s.plugins == nil {
		return nil
	}
	list, _ := s.plugins.All(ctx, driverKind)
	for _, p := range list {
		if v, err := getExternal(ctx, p, name); err == nil && v != nil {
			v.scope = scopeOf(ctx, p)
			return v
		}
	}
	return nil
}

// listed is what a plugin told of all its volumes.
type listed struct {
	driver  string
	volumes map[string]*external
	err     error
}

// listExternal asks all plugins at once, none for long.
func (s *Service) listExternal(ctx context.Context) (list []listed, warnings []string) {
	if s.plugins == nil {
		return nil, nil
	}
	plugins, errs := s.plugins.All(ctx, driverKind)
	for _, err := range errs {
		warnings = append(warnings, err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	list = make([]listed, len(plugins))
	var asked sync.WaitGroup
	for i, p := range plugins {
		asked.Go(func() {
			l := listed{driver: p.Name, volumes: map[string]*external{}}
			var answer struct{ Volumes []*external }
			l.err = p.CallOnce(ctx, driverKind+".List", nil, &answer)
			scope := ""
			for _, v := range answer.Volumes {
				if v == nil || v.Name == "" {
					continue
				}
				if scope == "" {
					scope = scopeOf(ctx, p)
				}
				v.driver, v.scope = p.Name, scope
				l.volumes[v.Name] = v
			}
			list[i] = l
		})
	}
	asked.Wait()
	for _, l := range list {
		if l.err != nil {
			warnings = append(warnings, "list "+l.driver+": "+l.err.Error())
		}
	}
	return list, warnings
}

// createExternal has the plugin make the volume, unless it has it.
func (s *Service) createExternal(ctx context.Context, r *Record) error {
	p, err := s.driver(ctx, r.Driver)
	if err != nil {
		return err
	}
	if v, err := getExternal(ctx, p, r.Name); err == nil && v != nil {
		return nil
	}
	args := struct {
		Name string
		Opts map[string]string
	}{r.Name, r.Options}
	if err := p.Call(ctx, driverKind+".Create", args, nil); err != nil {
		return fault.New(pluginFault(err), "%w", err)
	}
	return nil
}

// Each use of a plugin's volume is written down before the plugin is asked for
// it and until it has taken it back: a plugin that counts is told of the end of
// each use, whatever happens to the daemon in between.

func (s *Service) useFile(name, user string) string {
	return filepath.Join(s.dir(name), usePrefix+user)
}

type mountRequest struct{ Name, ID string }

func (s *Service) mountExternal(ctx context.Context, r *Record, user string) (string, error) {
	if err := os.WriteFile(s.useFile(r.Name, user), nil, 0o600); err != nil {
		return "", err
	}
	var answer struct{ Mountpoint string }
	err := s.ask(ctx, r.Driver, "Mount", mountRequest{r.Name, user}, &answer)
	if err == nil && !filepath.IsAbs(answer.Mountpoint) {
		err = fault.New(fault.Internal, "plugin %q mounted it at %q, which is no absolute path", r.Driver, answer.Mountpoint)
		err = errors.Join(err, s.ask(ctx, r.Driver, "Unmount", mountRequest{r.Name, user}, nil))
	}
	if err != nil {
		// The plugin may have done it and failed to say so: it is asked to take it back.
		var refusal *plugin.Refusal
		if errors.As(err, &refusal) || errors.Is(err, fault.NotFound) {
			err = errors.Join(err, os.Remove(s.useFile(r.Name, user)))
		}
		return "", fault.New(fault.KindOf(err), "error while mounting volume '%s': %w", r.Name, err)
	}
	return answer.Mountpoint, nil
}

// unmountExternal tells a plugin that a container has ended, which does not wait for
// long: a plugin that does not answer is told again later.
func (s *Service) unmountExternal(ctx context.Context, r *Record, user string) error {
	err := s.tellEnd(ctx, r, user)
	if errors.Is(err, plugin.Unavailable) || errors.Is(err, plugin.NotFound) {
		s.background.Go(func() { s.settleExternal(context.WithoutCancel(ctx), *r, nil) })
		return nil
	}
	return err
}

// tellEnd tells a plugin of the end of a use, and forgets it then.
func (s *Service) tellEnd(ctx context.Context, r *Record, user string) error {
	ctx, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	p, err := s.driver(ctx, r.Driver)
	if err == nil {
		err = p.CallOnce(ctx, driverKind+".Unmount", mountRequest{r.Name, user}, nil)
	}
	var refusal *plugin.Refusal
	if err != nil && !errors.As(err, &refusal) {
		return fault.New(pluginFault(err), "error unmounting volume %s: %w", r.Name, err)
	}
	if e := os.Remove(s.useFile(r.Name, user)); e != nil && !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}

// settleExternal tells a plugin of the ends that it was not told of. It is tried
// again for half a minute: the plugin may be starting.
func (s *Service) settleExternal(ctx context.Context, r Record, running []string) {
	for wait := time.Second; ; wait *= 2 {
		err := s.tellEnds(ctx, &r, running)
		if err == nil {
			return
		}
		s.log.Warn("a plugin cannot be told that a volume is used no more", "volume", r.Name, "driver", r.Driver, "err", err)
		if wait > 16*time.Second {
			return
		}
		time.Sleep(wait)
	}
}

func (s *Service) tellEnds(ctx context.Context, r *Record, running []string) error {
	entries, err := os.ReadDir(s.dir(r.Name))
	if errors.Is(err, fs.ErrNotExist) { // it was removed meanwhile
		return nil
	}
	for _, e := range entries {
		user, is := strings.CutPrefix(e.Name(), usePrefix)
		if !is || slices.Contains(running, user) {
			continue
		}
		unlock, lockErr := s.ops.Lock(ctx, r.Name)
		if lockErr != nil {
			return lockErr
		}
		// It may have begun to run meanwhile, or the plugin may have been told.
		if _, statErr := os.Stat(s.useFile(r.Name, user)); statErr == nil && !s.has(r.Name, user) {
			err = errors.Join(err, s.tellEnd(ctx, r, user))
		}
		unlock()
	}
	return err
}
