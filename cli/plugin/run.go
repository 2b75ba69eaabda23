package plugin

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/config"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/thread"
)

// originalCommand is the variable by which a plugin calls its caller.
const originalCommand = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND"

// Run has the plugin take this process's place: its streams, its signals and its
// exit code are the plugin's own. It returns only when that fails.
func (p *Plugin) Run(s *command.Session, args []string) error {
	env, flags, err := handOver(s, os.Environ())
	if err != nil {
		return err
	}
	argv := append(append([]string{p.Path}, flags...), args...)
	thread.Settle()
	err = syscall.Exec(p.Path, argv, env)
	return fault.New(fault.Internal, "plugin %s cannot be executed: %w", p.Path, err)
}

// Output is what the plugin prints when it is called with the arguments.
func (p *Plugin) Output(s *command.Session, args []string) ([]byte, error) {
	env, flags, err := handOver(s, os.Environ())
	if err != nil {
		return nil, err
	}
	c := exec.Command(p.Path, append(flags, args...)...)
	c.Env = env
	return c.Output()
}

// handOver gives the environment and the flags by which a plugin finds the daemon
// that was chosen, and no other: DOCKER_HOST is always set, for by itself a plugin
// would go where Docker's daemon listens. TARE_HOST, which a plugin of ours or a
// tare that a plugin calls would read first, is not handed on.
func handOver(s *command.Session, environ []string) (env, flags []string, err error) {
	e, err := s.Endpoint()
	if err != nil {
		return nil, nil, err
	}
	for _, kv := range environ {
		switch name, _, _ := strings.Cut(kv, "="); name {
		case "TARE_HOST", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONFIG", originalCommand:
		default:
			env = append(env, kv)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	env = append(env, "DOCKER_HOST="+e.Host, "DOCKER_CONFIG="+s.ConfigDir(), originalCommand+"="+self)
	if name := s.ContextName(); name != config.DefaultContext {
		env = append(env, "DOCKER_CONTEXT="+name)
	}
	tlsEnv, flags := tlsSettings(e.TLS)
	if s.Options.Debug {
		flags = append(flags, "--debug")
	}
	if level := s.Options.LogLevel; level != "" && level != "info" {
		flags = append(flags, "--log-level="+level)
	}
	return append(env, tlsEnv...), flags, nil
}

// tlsSettings gives TLS files as variables, which want them under their usual
// names in one directory, or else as flags.
func tlsSettings(f *client.TLSFile) (env, flags []string) {
	if f == nil {
		return nil, nil
	}
	env = []string{"DOCKER_TLS=1"}
	if f.Verify {
		env = []string{"DOCKER_TLS_VERIFY=1"}
	}
	dir := ""
	for _, file := range []struct{ flag, path, usual string }{{"--tlscacert", f.CA, "ca.pem"}, {"--tlscert", f.Cert, "cert.pem"}, {"--tlskey", f.Key, "key.pem"}} {
		if file.path == "" {
			continue
		}
		path, err := filepath.Abs(file.path)
		if err != nil {
			path = file.path
		}
		if in := filepath.Dir(path); filepath.Base(path) == file.usual && (dir == "" || dir == in) {
			dir = in
			continue
		}
		flags = append(flags, file.flag+"="+path)
	}
	if dir != "" {
		env = append(env, "DOCKER_CERT_PATH="+dir)
	}
	return env, flags
}
