package system

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/format"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
)

// Version is the command version.
func Version() *command.Command {
	f := command.NewFlags()
	var text string
	var clientOnly bool
	f.StringVarP(&text, "format", "f", "", option.FormatPlain)
	f.BoolVar(&clientOnly, "client", false, "Show the client's version only")
	return &command.Command{
		Usage: "[OPTIONS]", Flags: f, Example: `tare version -f "{{.Server.Version}}"`,
		Run: func(ctx context.Context, s *command.Session, _ []string) error {
			return version(ctx, s, text, clientOnly)
		},
	}
}

// versions is what --format sees.
type versions struct {
	Client clientVersion
	Server *client.ServerVersion
}

type clientVersion struct {
	Version           string
	ApiVersion        string
	DefaultAPIVersion string
	GitCommit         string
	GoVersion         string
	Os                string
	Arch              string
	Context           string
}

// APIVersion is the name that templates use.
func (c clientVersion) APIVersion() string { return c.ApiVersion }

func version(ctx context.Context, s *command.Session, text string, clientOnly bool) error {
	if _, err := format.Parse(text); err != nil {
		return command.BadTemplate(fmt.Errorf("template parsing error: %w", err))
	}
	v := versions{Client: clientVersion{Version: s.Version, ApiVersion: client.APIVersion, DefaultAPIVersion: client.APIVersion, GitCommit: s.Commit,
		GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH, Context: s.ContextName()}}
	var failed error
	if !clientOnly {
		cl, err := s.Client()
		if err != nil {
			return err
		}
		var server client.ServerVersion
		if server, failed = cl.ServerVersion(ctx); failed == nil {
			v.Server = &server
		}
		v.Client.ApiVersion = cl.Version()
	}
	if text != "" {
		out, err := format.Execute(text, v)
		if err != nil {
			return cmp.Or(failed, err) // without a server the template may fail for that
		}
		fmt.Fprintln(s.Out, out)
		return failed
	}
	io.WriteString(s.Out, v.text())
	return failed
}

func (v *versions) text() string {
	var b strings.Builder
	line := func(indent, name, value string) {
		fmt.Fprintf(&b, "%s%-*s %s\n", indent, 19-len(indent), name+":", value)
	}
	api := v.Client.ApiVersion
	if api != v.Client.DefaultAPIVersion {
		api += " (downgraded from " + v.Client.DefaultAPIVersion + ")"
	}
	b.WriteString("Client: Tare\n")
	line(" ", "Version", v.Client.Version)
	line(" ", "API version", api)
	line(" ", "Go version", v.Client.GoVersion)
	line(" ", "Git commit", v.Client.GitCommit)
	line(" ", "OS/Arch", v.Client.Os+"/"+v.Client.Arch)
	line(" ", "Context", v.Client.Context)
	if v.Server == nil {
		return b.String()
	}
	b.WriteString("\nServer:")
	if v.Server.Platform.Name != "" {
		b.WriteString(" " + v.Server.Platform.Name)
	}
	b.WriteByte('\n')
	components := v.Server.Components
	if len(components) == 0 {
		s := v.Server
		components = []client.VersionComponent{{Name: "Engine", Version: s.Version, Details: map[string]string{"ApiVersion": s.ApiVersion,
			"MinAPIVersion": s.MinAPIVersion, "GoVersion": s.GoVersion, "GitCommit": s.GitCommit, "BuildTime": s.BuildTime, "Os": s.Os, "Arch": s.Arch}}}
	}
	for _, c := range components {
		fmt.Fprintf(&b, " %s:\n", c.Name)
		line("  ", "Version", c.Version)
		v.component(c, line)
	}
	return b.String()
}

// component shows a component's details: the engine's in a fixed order, others
// by name.
func (v *versions) component(c client.VersionComponent, line func(indent, name, value string)) {
	d := c.Details
	if c.Name != "Engine" {
		names := make([]string, 0, len(d))
		for name := range d {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			line("  ", name, d[name])
		}
		return
	}
	line("  ", "API version", d["ApiVersion"]+" (minimum version "+d["MinAPIVersion"]+")")
	line("  ", "Go version", d["GoVersion"])
	line("  ", "Git commit", d["GitCommit"])
	if d["BuildTime"] != "" {
		line("  ", "Built", builtAt(d["BuildTime"]))
	}
	line("  ", "OS/Arch", d["Os"]+"/"+d["Arch"])
	line("  ", "Experimental", d["Experimental"])
}

func builtAt(s string) string {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.Format(time.ANSIC)
	}
	return s
}

// rawClient renders the client's half for info.
func rawClient(s *command.Session) json.RawMessage {
	raw, _ := json.Marshal(map[string]any{"Version": s.Version, "Context": s.ContextName(), "Debug": s.Options.Debug})
	return raw
}
