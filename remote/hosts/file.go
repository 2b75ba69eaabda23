// Package hosts is what the administrator says of registries: hosts.toml in containerd's
// layout, Docker's certificates beside it, and the list of those that are insecure.
package hosts

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"github.com/tarehq/tare/fault"
)

// File is a hosts.toml as containerd documents it (docs/hosts.md there):
//
//	server = "https://registry-1.docker.io"   # the last to be asked; its own settings stand beside it
//	[host."https://mirror.example:5000"]      # asked before it, in the order of the file
//	  capabilities = ["pull", "resolve", "push"]
//	  ca = "ca.pem"                           # or a list; relative to the file
//	  client = [["client.cert", "client.key"]] # or one file, or a list of files that hold both
//	  skip_verify = false
//	  override_path = false                   # the URL's path stands in the place of /v2
//	  dial_timeout = "5s"
//	  [host."https://mirror.example:5000".header]
//	    x-team = "a"
//	  [host."https://mirror.example:5000".rewrite]
//	    "^library/(.*)" = "hub/$1"            # of repository paths, as in k3s' registries.yaml
type File struct {
	Server string `toml:"server"`
	Fields
	Host map[string]Fields `toml:"host"`

	Order []string `toml:"-"` // the keys of Host as they stand in the file
}

// Fields are the settings of one address.
type Fields struct {
	Capabilities []string          `toml:"capabilities"`
	CA           any               `toml:"ca"`
	Client       any               `toml:"client"`
	SkipVerify   bool              `toml:"skip_verify"`
	Header       map[string]any    `toml:"header"`
	OverridePath bool              `toml:"override_path"`
	DialTimeout  string            `toml:"dial_timeout"`
	Rewrite      map[string]string `toml:"rewrite"`
}

// Capability is what an address is asked for.
type Capability uint8

const (
	Pull    Capability = 1 << iota // manifests by digest, blobs
	Resolve                        // what changes: tags, lists
	Push
)

var capabilities = map[string]Capability{"pull": Pull, "resolve": Resolve, "push": Push, "referrers": Resolve}

// Settings is Fields, understood.
type Settings struct {
	Can        Capability
	SkipVerify bool
	Header     http.Header
	Override   bool          // the path of the address stands in the place of /v2
	Dial       time.Duration // 0: the default
	Rewrites   Rewrites

	ca    []string
	pairs [][2]string // certificate, key; the same file twice if it holds both
}

// Rewrites change the paths of repositories at one address.
type Rewrites []rewrite

// Apply gives the path that is asked for.
func (list Rewrites) Apply(path string) string {
	for _, r := range list {
		if r.pattern.MatchString(path) {
			return r.pattern.ReplaceAllString(path, r.to)
		}
	}
	return path
}

type rewrite struct {
	pattern *regexp.Regexp
	to      string
}

// Parse reads a hosts.toml. Errors name the place, not the file.
func Parse(data []byte) (*File, error) {
	var f File
	dec := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return nil, fault.New(fault.Invalid, "%w", readable(err))
	}
	f.Order = orderOf(data, f.Host)
	if f.Server != "" {
		if _, err := Address(f.Server); err != nil {
			return nil, fault.New(fault.Invalid, "server: %w", err)
		}
	}
	if _, err := f.Settings(); err != nil {
		return nil, err
	}
	for _, name := range f.Order {
		if _, err := Address(name); err != nil {
			return nil, fault.New(fault.Invalid, "host %q: %w", name, err)
		}
		if _, err := f.Host[name].Settings(); err != nil {
			return nil, fault.New(fault.Invalid, "host %q: %w", name, err)
		}
	}
	return &f, nil
}

// readable gives the decoder's errors with their line and key.
func readable(err error) error {
	var missing *toml.StrictMissingError
	if errors.As(err, &missing) && len(missing.Errors) > 0 {
		row, _ := missing.Errors[0].Position()
		return fmt.Errorf("line %d: unknown key %s", row, strings.Join(missing.Errors[0].Key(), "."))
	}
	var wrong *toml.DecodeError
	if errors.As(err, &wrong) {
		row, _ := wrong.Position()
		return fmt.Errorf("line %d: %s", row, strings.TrimPrefix(wrong.Error(), "toml: "))
	}
	return err
}

// orderOf lists the hosts as they stand in the file, which a map forgets.
// Those that an inline table holds follow by name.
func orderOf(data []byte, hosts map[string]Fields) []string {
	var order []string
	seen := map[string]bool{}
	note := func(name string) {
		if _, ok := hosts[name]; ok && !seen[name] {
			seen[name] = true
			order = append(order, name)
		}
	}
	p := unstable.Parser{}
	table := false // below [host] alone
	for p.Reset(data); p.NextExpression(); {
		e := p.Expression()
		if e.Kind != unstable.Table && e.Kind != unstable.KeyValue {
			continue
		}
		var keys []string
		for it := e.Key(); it.Next(); {
			keys = append(keys, string(it.Node().Data))
		}
		if e.Kind == unstable.Table {
			table = len(keys) == 1 && keys[0] == "host"
		} else if table {
			keys = append([]string{"host"}, keys...)
		}
		if len(keys) > 1 && keys[0] == "host" {
			note(keys[1])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(hosts)) {
		note(name)
	}
	return order
}

// Address reads the URL of an address; https is meant where no scheme
// stands, and Scheme is "" then.
func Address(text string) (*url.URL, error) {
	full := text
	if !strings.Contains(text, "://") {
		full = "//" + text
	}
	u, err := url.Parse(full)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "":
		return nil, fault.New(fault.Invalid, "%q is not the URL of a host", shown(text))
	case u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https":
		return nil, fault.New(fault.Invalid, "%q has the scheme %s: want http or https", shown(text), u.Scheme)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, fault.New(fault.Invalid, "%q has a user, a query or a fragment, which is not supported: use a header", shown(text))
	}
	return u, nil
}

// shown is an address for an error: without what may be a secret.
func shown(text string) string {
	text, _, _ = strings.Cut(text, "?")
	return text[strings.LastIndexByte(text, '@')+1:]
}

// TokenChars are those of a token, RFC 9110, section 5.6.2.
const TokenChars = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// Settings checks the fields.
func (f Fields) Settings() (Settings, error) {
	s := Settings{SkipVerify: f.SkipVerify, Override: f.OverridePath}
	for _, c := range f.Capabilities {
		bit, ok := capabilities[strings.ToLower(c)]
		if !ok {
			return s, fault.New(fault.Invalid, "unknown capability %q: want pull, resolve or push", c)
		}
		s.Can |= bit
	}
	if len(f.Capabilities) == 0 {
		s.Can = Pull | Resolve | Push
	}
	var err error
	if s.ca, err = stringList("ca", f.CA); err != nil {
		return s, err
	}
	if s.pairs, err = clientPairs(f.Client); err != nil {
		return s, err
	}
	if s.Header, err = headerFields(f.Header); err != nil {
		return s, err
	}
	if f.DialTimeout != "" {
		if s.Dial, err = time.ParseDuration(f.DialTimeout); err != nil || s.Dial <= 0 {
			return s, fault.New(fault.Invalid, "invalid dial_timeout %q: want a time such as 5s", f.DialTimeout)
		}
	}
	s.Rewrites, err = parseRewrites(f.Rewrite)
	return s, err
}

// stringList is a string or a list of strings.
func stringList(key string, v any) ([]string, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{v}, nil
	case []any:
		var out []string
		for _, one := range v {
			s, ok := one.(string)
			if !ok {
				return nil, fault.New(fault.Invalid, "%s: want a string or a list of strings", key)
			}
			out = append(out, s)
		}
		return out, nil
	}
	return nil, fault.New(fault.Invalid, "%s: want a string or a list of strings", key)
}

// clientPairs is a file, a list of files, or a list of pairs of files.
func clientPairs(v any) ([][2]string, error) {
	list, ok := v.([]any)
	if !ok && v != nil {
		list = []any{v}
	}
	var out [][2]string
	for _, one := range list {
		files, err := stringList("client", one)
		switch {
		case err != nil || len(files) == 0 || len(files) > 2:
			return nil, fault.New(fault.Invalid, "client: want a file, or a list of files or of pairs of a certificate and a key")
		case len(files) == 1 || files[1] == "":
			out = append(out, [2]string{files[0], files[0]})
		default:
			out = append(out, [2]string{files[0], files[1]})
		}
	}
	return out, nil
}

// headerFields checks names and values: they go out as they are.
func headerFields(fields map[string]any) (http.Header, error) {
	h := http.Header{}
	for name, v := range fields {
		values, err := stringList("header "+name, v)
		if err != nil {
			return nil, err
		}
		if name == "" || strings.TrimLeft(name, TokenChars) != "" {
			return nil, fault.New(fault.Invalid, "header %q: this is no name of a header", name)
		}
		for _, value := range values {
			if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
				return nil, fault.New(fault.Invalid, "header %s: its value has a control character", name)
			}
			h.Add(name, value)
		}
	}
	return h, nil
}

// parseRewrites compiles the patterns. The longest is tried first, and the
// first that matches is the only one applied.
func parseRewrites(rules map[string]string) (Rewrites, error) {
	patterns := slices.SortedFunc(maps.Keys(rules), func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	var out Rewrites
	for _, p := range patterns {
		re, err := regexp.Compile(p)
		if err != nil {
			return nil, fault.New(fault.Invalid, "rewrite %q: %w", p, err)
		}
		out = append(out, rewrite{re, rules[p]})
	}
	return out, nil
}
