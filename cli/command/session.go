package command

import (
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"golang.org/x/term"

	"github.com/tarehq/tare/cli/config"
	"github.com/tarehq/tare/client"
)

// Session is what one call of tare works with: its streams, its environment
// and the daemon that its flags and environment name.
type Session struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	Options  Options
	Program  string // how this program was called, by its path or name
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

// Name is what this program is called: docker when it takes Docker's place.
func (s *Session) Name() string {
	if filepath.Base(s.Program) == "docker" {
		return "docker"
	}
	return "tare"
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
		home = "/" // never the working directory: the files name daemons and programs
		if u, err := user.LookupId(strconv.Itoa(os.Getuid())); err == nil {
			home = u.HomeDir
		}
	}
	return filepath.Join(home, ".docker")
}

// Config reads config.json once. A file that cannot be read is warned about.
func (s *Session) Config() *config.File {
	if s.config == nil {
		var err error
		if s.config, err = config.Load(s.ConfigDir()); err != nil {
			io.WriteString(s.Err, "WARNING: "+err.Error()+"\n")
		}
	}
	return s.config
}

// Client returns the client of the daemon that is meant. It does not connect.
func (s *Session) Client() (*client.Client, error) {
	if s.client != nil {
		return s.client, nil
	}
	endpoint, err := s.Endpoint()
	if err != nil {
		return nil, err
	}
	if endpoint.Header, err = s.headers(); err != nil {
		return nil, err
	}
	s.client, err = client.New(endpoint, s.Getenv("DOCKER_API_VERSION"))
	return s.client, err
}
