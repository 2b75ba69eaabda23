package command

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/tarehq/tare/cli/config"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// hostVariables name a daemon, and so outdo the current context, in this order.
var hostVariables = [...]string{"TARE_HOST", "DOCKER_HOST"}

// HostVariable names the variable of the environment that chooses the daemon,
// and its value; both are "" when none does.
func (s *Session) HostVariable() (name, value string) {
	for _, name := range hostVariables {
		if value := s.Getenv(name); value != "" {
			return name, value
		}
	}
	return "", ""
}

// ContextName names the context in use; "default" is none of the stored ones.
// What is nearer to the command wins: --context, --host, the variables of a
// host, DOCKER_CONTEXT, then what context use has chosen.
func (s *Session) ContextName() string {
	if s.Options.Context != "" {
		return s.Options.Context
	}
	if len(s.Options.Hosts) > 0 {
		return config.DefaultContext
	}
	if name, _ := s.HostVariable(); name != "" {
		return config.DefaultContext
	}
	for _, name := range []string{s.Getenv("DOCKER_CONTEXT"), s.Config().CurrentContext} {
		if name != "" {
			return name
		}
	}
	return config.DefaultContext
}

// CheckHost refuses flags that contradict each other.
func (s *Session) CheckHost() error {
	switch o := s.Options; {
	case len(o.Hosts) > 1:
		return fault.New(fault.Invalid, "specify only one -H")
	case len(o.Hosts) == 1 && o.Context != "":
		return fault.New(fault.Invalid, "conflicting options: cannot specify both --host and --context")
	}
	return nil
}

// Endpoint is where the daemon of the context in use is.
func (s *Session) Endpoint() (client.Endpoint, error) {
	if err := s.CheckHost(); err != nil {
		return client.Endpoint{}, err
	}
	name := s.ContextName()
	if name == config.DefaultContext {
		return s.DefaultEndpoint()
	}
	e, err := config.NewContexts(s.ConfigDir()).Endpoint(name)
	if errors.Is(err, fault.NotFound) {
		return client.Endpoint{}, fault.New(fault.NotFound, "%w: see tare context ls, and choose one by tare context use", err)
	}
	if err != nil {
		return client.Endpoint{}, err
	}
	e.Host, err = client.ParseHost(e.Host, e.TLS != nil)
	return e, err
}

// DefaultEndpoint is what the flags and the environment say, else tared's own
// socket.
func (s *Session) DefaultEndpoint() (client.Endpoint, error) {
	_, host := s.HostVariable()
	if len(s.Options.Hosts) > 0 {
		host = s.Options.Hosts[0]
	}
	if host == "" {
		host = client.DefaultHost
	}
	tls := s.tlsFiles()
	host, err := client.ParseHost(host, tls != nil)
	if err != nil {
		return client.Endpoint{}, err
	}
	if !strings.HasPrefix(host, "tcp://") {
		tls = nil
	}
	return client.Endpoint{Host: host, TLS: tls}, nil
}

// Platform is the one that a flag names, or else the user's usual one.
func (s *Session) Platform(flag string) string {
	return cmp.Or(flag, s.Getenv("DOCKER_DEFAULT_PLATFORM"))
}

// headers are what the user wants with every request: DOCKER_CUSTOM_HEADERS,
// name=value by commas, takes the place of HttpHeaders.
func (s *Session) headers() (map[string]string, error) {
	given := s.Getenv("DOCKER_CUSTOM_HEADERS")
	if given == "" {
		return s.Config().HTTPHeaders, nil
	}
	headers := map[string]string{}
	for _, pair := range strings.Split(given, ",") {
		name, value, ok := strings.Cut(pair, "=")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return nil, fault.New(fault.Invalid, "failed to parse custom headers from DOCKER_CUSTOM_HEADERS environment variable: "+
				"%q is not name=value", pair)
		}
		headers[name] = value
	}
	return headers, nil
}

// tlsFiles follows --tls, --tlsverify and the files' flags, or Docker's
// variables; the default files are used as far as they exist.
func (s *Session) tlsFiles() *client.TLSFile {
	o := s.Options
	verify := s.Getenv("DOCKER_TLS_VERIFY") != ""
	if o.TLSVerify != nil {
		verify = *o.TLSVerify
	}
	if !verify && !o.TLS && s.Getenv("DOCKER_TLS") == "" && o.TLSVerify == nil {
		return nil
	}
	dir := s.Getenv("DOCKER_CERT_PATH")
	if dir == "" {
		dir = s.ConfigDir()
	}
	pick := func(given, name string) string {
		if given != "" {
			return given
		}
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			return ""
		}
		return path
	}
	return &client.TLSFile{CA: pick(o.CA, "ca.pem"), Cert: pick(o.Cert, "cert.pem"), Key: pick(o.Key, "key.pem"), Verify: verify}
}
