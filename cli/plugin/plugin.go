// Package plugin finds and runs the programs that are commands of Docker's
// client, and of tare:
//
//	<dir>/docker-<name>, <dir>/tare-<name>
//
// where <dir> is one of cliPluginsExtraDirs in config.json, cli-plugins beside
// it, and the system's directories, in this order; tare- goes before docker-. A
// plugin called with docker-cli-plugin-metadata describes itself in JSON; as a
// command it is called with its name and the arguments.
package plugin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/fault"
)

// systemDirs are where packages put plugins.
var systemDirs = [...]string{"/usr/local/lib/docker/cli-plugins", "/usr/local/libexec/docker/cli-plugins",
	"/usr/lib/docker/cli-plugins", "/usr/libexec/docker/cli-plugins"}

// prefixes of the programs' names.
var prefixes = [...]string{"tare-", "docker-"}

// metadataArg asks a plugin to describe itself.
const metadataArg = "docker-cli-plugin-metadata"

// Plugin is one program.
type Plugin struct {
	Name, Path string
	Metadata
	Err error // why it cannot be run
}

// Metadata is what a plugin says of itself.
type Metadata struct {
	SchemaVersion, Vendor, Version, ShortDescription string
}

// dirs are the directories, the first ones first.
func dirs(s *command.Session) []string {
	list := slices.Clone(s.Config().PluginDirs)
	return append(append(list, filepath.Join(s.ConfigDir(), "cli-plugins")), systemDirs[:]...)
}

// isName is true for what a plugin can be called.
func isName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// own is the program beside this one that builds where nobody has installed
// buildx. It is called as that is.
const own = "tare-buildx"

// Own finds that program; fault.NotFound if it is not there.
func Own() (*Plugin, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(filepath.Dir(self), own)
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return nil, fault.New(fault.NotFound, "the program %s is not installed", own)
	}
	return &Plugin{Name: "buildx", Path: path}, nil
}

// Find looks for the plugin of a name, and asks it for its description.
func Find(s *command.Session, name string) (*Plugin, error) {
	if isName(name) {
		for _, dir := range dirs(s) {
			for _, prefix := range prefixes {
				path := filepath.Join(dir, prefix+name)
				if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
					p := &Plugin{Name: name, Path: path}
					p.describe()
					return p, p.Err
				}
			}
		}
	}
	return nil, fault.New(fault.NotFound, "no plugin %q", name)
}

// List finds all plugins, by name, apart from those that skip wants out. Their
// descriptions are asked for beside each other.
func List(s *command.Session, skip func(name string) bool) []*Plugin {
	found := map[string]*Plugin{}
	for _, dir := range dirs(s) {
		entries, _ := os.ReadDir(dir) // a directory that is not there has none
		for _, prefix := range prefixes {
			for _, e := range entries {
				name, ok := strings.CutPrefix(e.Name(), prefix)
				if ok && isName(name) && found[name] == nil && !skip(name) && !e.IsDir() {
					found[name] = &Plugin{Name: name, Path: filepath.Join(dir, e.Name())}
				}
			}
		}
	}
	list := make([]*Plugin, 0, len(found))
	done := make(chan struct{})
	for _, p := range found {
		list = append(list, p)
		go func() { p.describe(); done <- struct{}{} }()
	}
	for range list {
		<-done
	}
	slices.SortFunc(list, func(a, b *Plugin) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// describeTime is how long a plugin may take to describe itself, and
// maxMetadata how many bytes that may have.
const (
	describeTime = 10 * time.Second
	maxMetadata  = 1 << 20
)

func (p *Plugin) metadata() ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), describeTime)
	defer cancel()
	c := exec.CommandContext(ctx, p.Path, metadataArg)
	c.WaitDelay = time.Second // what it has started may hold its output open
	var out metadata
	c.Stdout = &out
	err := c.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return out, err
}

// metadata collects so much and refuses the rest.
type metadata []byte

func (m *metadata) Write(p []byte) (int, error) {
	if len(*m)+len(p) > maxMetadata {
		return 0, errors.New("it says too much")
	}
	*m = append(*m, p...)
	return len(p), nil
}

// describe fills in what the plugin says, or Err.
func (p *Plugin) describe() {
	out, err := p.metadata()
	if err == nil {
		err = json.Unmarshal(out, &p.Metadata)
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		p.Err = fault.New(fault.Invalid, "plugin %s cannot be executed: chmod +x %s", p.Path, p.Path)
	case err != nil:
		p.Err = fault.New(fault.Invalid, "plugin %s does not describe itself when it is called with %s: %w", p.Path, metadataArg, err)
	case p.SchemaVersion != "0.1.0":
		p.Err = fault.New(fault.Invalid, "plugin %s: plugin SchemaVersion %q is not valid, must be 0.1.0", p.Path, p.SchemaVersion)
	case p.Vendor == "":
		p.Err = fault.New(fault.Invalid, "plugin %s: plugin metadata does not define a vendor", p.Path)
	}
}
