package command

import (
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/term"

	"github.com/tarehq/tare/cli/config"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// Session is what one call of tare works with: its streams, its environment
// and the daemon that its flags and environment name.
type Session struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	Options  Options
	Version  string // of this program
	Commit   string // of its source, "unknown" if nobody knows

	client *client.Client
	config *config.File
}

// Options are the flags before the command.
type Options struct {
	ConfigDir string
	Context   string
	Hosts     []string
	Debug     bool
	LogLevel  string
	TLS       bool
	TLSVerify *bool // nil: not given
	CA        string
	Cert      string
	Key       string
}

// Terminal returns the descriptor of a stream that is a terminal.
func Terminal(stream any) (fd int, ok bool) {
	f, isFile := stream.(*os.File)
	if !isFile {
		return 0, false
	}
	fd = int(f.Fd())
	return fd, term.IsTerminal(fd)
}

// ConfigDir is where Docker's client keeps its files.
func (s *Session) ConfigDir() string {
	if s.Options.ConfigDir != "" {
		return s.Options.ConfigDir
	}
	if dir := s.Getenv("DOCKER_CONFIG"); dir != "" {
		return dir
	}
	home := s.Getenv("HOME")
	if home == "" {
		home, _ = os.UserHomeDir()
	}
	return filepath.Join(home, ".docker")
}

// Config reads config.json once. A file that cannot be read is warned about.
func (s *Session) Config() *config.File {
	if s.config == nil {
		var err error
		if s.config, err = config.Load(s.ConfigDir()); err != nil {
			io.WriteString(s.Err, "WARNING: Error loading config file: "+err.Error()+"\n")
		}
	}
	return s.config
}

// Client returns the client of the daemon that is meant. It does not connect.
func (s *Session) Client() (*client.Client, error) {
	if s.client != nil {
		return s.client, nil
	}
	endpoint, err := s.endpoint()
	if err != nil {
		return nil, err
	}
	s.client, err = client.New(endpoint, s.Getenv("DOCKER_API_VERSION"))
	return s.client, err
}

// ContextName names the context in use; "default" is none of the stored ones.
func (s *Session) ContextName() string {
	if s.Options.Context != "" && len(s.Options.Hosts) == 0 {
		return s.Options.Context
	}
	return "default"
}

// endpoint obeys --host, --context, TARE_HOST and DOCKER_HOST, in this order,
// then takes tared's own socket.
func (s *Session) endpoint() (client.Endpoint, error) {
	o := s.Options
	if len(o.Hosts) > 1 {
		return client.Endpoint{}, fault.New(fault.Invalid, "specify only one -H")
	}
	host := ""
	switch {
	case len(o.Hosts) == 1 && o.Context != "":
		return client.Endpoint{}, fault.New(fault.Invalid, "conflicting options: cannot specify both --host and --context")
	case len(o.Hosts) == 1:
		host = o.Hosts[0]
	case o.Context != "" && o.Context != "default":
		e, err := config.Context(s.ConfigDir(), o.Context)
		if err != nil {
			return client.Endpoint{}, err
		}
		e.Host, err = client.ParseHost(e.Host, e.TLS != nil)
		return e, err
	case s.Getenv("TARE_HOST") != "":
		host = s.Getenv("TARE_HOST")
	case s.Getenv("DOCKER_HOST") != "":
		host = s.Getenv("DOCKER_HOST")
	default:
		host = client.DefaultHost
	}
	tls := s.tlsFiles()
	host, err := client.ParseHost(host, tls != nil)
	if err != nil {
		return client.Endpoint{}, err
	}
	if strings.HasPrefix(host, "unix://") {
		tls = nil
	}
	return client.Endpoint{Host: host, TLS: tls}, nil
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
