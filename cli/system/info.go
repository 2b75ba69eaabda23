package system

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/format"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
)

// Info is the command info.
func Info() *command.Command {
	f := command.NewFlags()
	var text string
	f.StringVarP(&text, "format", "f", "", option.FormatPlain)
	return &command.Command{
		Usage: "[OPTIONS]", Flags: f, Example: `tare info -f "{{.Driver}} {{.CgroupVersion}}"`,
		Run: func(ctx context.Context, s *command.Session, _ []string) error { return info(ctx, s, text) },
	}
}

func info(ctx context.Context, s *command.Session, text string) error {
	cl, err := s.Client()
	if err != nil {
		return err
	}
	inspector, err := format.NewInspector(text)
	if err != nil {
		return command.BadTemplate(err)
	}
	if text == "" {
		fmt.Fprintf(s.Out, "Client: Tare\n Version:    %s\n Context:    %s\n Debug Mode: %t\n\nServer:\n", s.Version, s.ContextName(), s.Options.Debug)
	}
	if strings.Contains(text, ".ClientInfo") { // of the client alone it tells without a daemon
		if out, err := inspector.One(slices.Concat([]byte(`{"ClientInfo":`), rawClient(s), []byte{'}'})); err == nil {
			_, err = io.WriteString(s.Out, out)
			return err
		}
	}
	raw, err := cl.InfoRaw(ctx)
	if err != nil {
		return err
	}
	if text != "" {
		return infoTemplate(s, inspector, raw)
	}
	var i client.Info
	if err := json.Unmarshal(raw, &i); err != nil {
		return err
	}
	if _, err := io.WriteString(s.Out, infoText(&i)); err != nil {
		return err
	}
	for _, w := range i.Warnings {
		fmt.Fprintln(s.Err, w)
	}
	return nil
}

// infoTemplate renders the daemon's fields and the client's, ClientInfo.
func infoTemplate(s *command.Session, inspector *format.Inspector, raw []byte) error {
	raw = []byte(strings.TrimSpace(string(raw)))
	if len(raw) > 2 && raw[0] == '{' {
		raw = slices.Concat(raw[:len(raw)-1], []byte(`,"ClientInfo":`), rawClient(s), []byte{'}'})
	}
	out, err := inspector.One(raw)
	if err != nil {
		return err
	}
	_, err = io.WriteString(s.Out, out)
	return err
}

func infoText(i *client.Info) string {
	var b strings.Builder
	line := func(name string, value any) { fmt.Fprintf(&b, " %s: %v\n", name, value) }
	line("Containers", i.Containers)
	line(" Running", i.ContainersRunning)
	line(" Paused", i.ContainersPaused)
	line(" Stopped", i.ContainersStopped)
	line("Images", i.Images)
	line("Server Version", i.ServerVersion)
	line("Storage Driver", i.Driver)
	for _, pair := range i.DriverStatus {
		line(" "+pair[0], pair[1])
	}
	line("Logging Driver", i.LoggingDriver)
	line("Cgroup Driver", i.CgroupDriver)
	line("Cgroup Version", i.CgroupVersion)
	b.WriteString(" Plugins:\n")
	line(" Volume", strings.Join(i.Plugins.Volume, " "))
	line(" Network", strings.Join(i.Plugins.Network, " "))
	if len(i.Plugins.Authorization) > 0 {
		line(" Authorization", strings.Join(i.Plugins.Authorization, " "))
	}
	line(" Log", strings.Join(i.Plugins.Log, " "))
	line("Runtimes", strings.Join(slices.Sorted(maps.Keys(i.Runtimes)), " "))
	line("Default Runtime", i.DefaultRuntime)
	if len(i.SecurityOptions) > 0 {
		b.WriteString(" Security Options:\n")
		for _, o := range i.SecurityOptions {
			securityOption(&b, o)
		}
	}
	line("Kernel Version", i.KernelVersion)
	line("Operating System", i.OperatingSystem)
	line("OSType", i.OSType)
	line("Architecture", i.Architecture)
	line("CPUs", i.NCPU)
	line("Total Memory", format.BinarySize(float64(i.MemTotal)))
	line("Name", i.Name)
	line("ID", i.ID)
	line("Docker Root Dir", i.DockerRootDir)
	line("Debug Mode", i.Debug)
	if i.Debug {
		line(" File Descriptors", i.NFd)
		line(" Goroutines", i.NGoroutines)
		line(" System Time", i.SystemTime)
		line(" EventsListeners", i.NEventsListener)
	}
	if len(i.Labels) > 0 {
		b.WriteString(" Labels:\n")
		for _, l := range i.Labels {
			b.WriteString("  " + l + "\n")
		}
	}
	line("Experimental", i.ExperimentalBuild)
	registries(&b, i.RegistryConfig)
	line("Live Restore Enabled", i.LiveRestoreEnabled)
	if f := i.FirewallBackend; f != nil {
		line("Firewall Backend", f.Driver)
		for _, pair := range f.Info {
			line(" "+pair[0], pair[1])
		}
	}
	b.WriteByte('\n')
	return b.String()
}

// registries lists the insecure ones and the mirrors, where there are any.
func registries(b *strings.Builder, r *client.InfoRegistries) {
	if r == nil {
		return
	}
	var insecure []string
	for _, host := range slices.Sorted(maps.Keys(r.IndexConfigs)) {
		if index := r.IndexConfigs[host]; index != nil && !index.Secure {
			insecure = append(insecure, host)
		}
	}
	for _, list := range []struct {
		name    string
		entries []string
	}{{"Insecure Registries", append(insecure, r.InsecureRegistryCIDRs...)}, {"Registry Mirrors", r.Mirrors}} {
		if len(list.entries) > 0 {
			fmt.Fprintf(b, " %s:\n  %s\n", list.name, strings.Join(list.entries, "\n  "))
		}
	}
}

// securityOption shows name=seccomp,profile=builtin as a name and its parts.
func securityOption(b *strings.Builder, o string) {
	for _, field := range strings.Split(o, ",") {
		switch key, value, ok := strings.Cut(field, "="); {
		case !ok:
			b.WriteString("  " + field + "\n")
		case key == "name":
			b.WriteString("  " + value + "\n")
		default:
			b.WriteString("   " + strings.ToUpper(key[:1]) + key[1:] + ": " + value + "\n")
		}
	}
}
