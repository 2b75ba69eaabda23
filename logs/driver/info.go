package driver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"text/template"
	"time"
)

// Info is what a log's tag and attributes are made of. Its exported names are
// what Docker's templates know.
type Info struct {
	Config              map[string]string // the log options
	ContainerID         string
	ContainerName       string // with its slash
	ContainerEntrypoint string
	ContainerArgs       []string
	ContainerImageID    string
	ContainerImageName  string
	ContainerCreated    time.Time
	ContainerEnv        []string
	ContainerLabels     map[string]string
	DaemonName          string
}

// ID is the container's short ID.
func (i *Info) ID() string { return short(i.ContainerID) }

// FullID is the container's ID.
func (i *Info) FullID() string { return i.ContainerID }

// Name is the container's name without its slash.
func (i *Info) Name() string { return strings.TrimPrefix(i.ContainerName, "/") }

// ImageID is the image's short ID, the algorithm included.
func (i *Info) ImageID() string { return short(i.ContainerImageID) }

// ImageFullID is the image's ID.
func (i *Info) ImageFullID() string { return i.ContainerImageID }

// ImageName is the image as the request named it.
func (i *Info) ImageName() string { return i.ContainerImageName }

// Command is the program with its arguments.
func (i *Info) Command() string {
	return strings.Join(append([]string{i.ContainerEntrypoint}, i.ContainerArgs...), " ")
}

// Hostname is the machine's.
func (i *Info) Hostname() (string, error) { return os.Hostname() }

func short(id string) string { return id[:min(12, len(id))] }

// ExtraAttributes are the labels and variables that the options ask for, under
// names that keyMod makes of theirs; nil leaves the names.
func (i *Info) ExtraAttributes(keyMod func(string) string) (map[string]string, error) {
	env := map[string]string{}
	for _, kv := range i.ContainerEnv {
		if key, value, ok := strings.Cut(kv, "="); ok {
			env[key] = value
		}
	}
	out := map[string]string{}
	for _, x := range []struct {
		option string
		from   map[string]string
	}{{"labels", i.ContainerLabels}, {"env", env}} {
		wanted, err := chosen(i.Config, x.option)
		if err != nil {
			return nil, err
		}
		for key, value := range x.from {
			if !wanted(key) {
				continue
			}
			if keyMod != nil {
				key = keyMod(key)
			}
			out[key] = value
		}
	}
	return out, nil
}

// chosen tells which names an option and its -regex twin ask for.
func chosen(opts map[string]string, option string) (func(string) bool, error) {
	names := map[string]bool{}
	for name := range strings.SplitSeq(opts[option], ",") {
		names[name] = name != ""
	}
	if opts[option+"-regex"] == "" {
		return func(name string) bool { return names[name] }, nil
	}
	re, err := regexp.Compile(opts[option+"-regex"])
	if err != nil {
		return nil, err
	}
	return func(name string) bool { return names[name] || re.MatchString(name) }, nil
}

// tag fills in the template of the option tag, or fallback without one.
func (i *Info) tag(fallback string) (string, error) {
	text := i.Config["tag"]
	if text == "" {
		text = fallback
	}
	if !strings.Contains(text, "{{") {
		return text, nil
	}
	t, err := parseTag(text)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	err = t.Execute(&b, i)
	return b.String(), err
}

const defaultTag = "{{.ID}}"

// sender is who speaks to a receiver: the container by its tag, on this host.
func (i *Info) sender() (tag, host string, err error) {
	if tag, err = i.tag(defaultTag); err == nil {
		host, err = os.Hostname()
	}
	return tag, host, err
}

func parseTag(text string) (*template.Template, error) {
	return template.New("log-tag").Funcs(template.FuncMap{
		"json": func(v any) string {
			var b bytes.Buffer
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false)
			_ = enc.Encode(v)
			return strings.TrimSpace(b.String())
		},
		"split": strings.Split, "join": strings.Join, "lower": strings.ToLower, "upper": strings.ToUpper,
		"title": func(s string) string {
			if s == "" {
				return s
			}
			return strings.ToUpper(s[:1]) + s[1:]
		},
		"pad": func(s string, before, after int) string {
			if s == "" {
				return s
			}
			return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
		},
		"truncate": func(s string, n int) string { return s[:min(n, len(s))] },
	}).Parse(text)
}

// checkAttributes tries the options that are made into attributes.
func checkAttributes(opts map[string]string) error {
	for _, option := range []string{"labels", "env"} {
		if _, err := chosen(opts, option); err != nil {
			return fmt.Errorf("invalid value for %s-regex: %w", option, err)
		}
	}
	if _, err := parseTag(opts["tag"]); err != nil {
		return fmt.Errorf("invalid value for tag: %w", err)
	}
	return nil
}

// Attributes is the JSON object that each record of the local log carries; nil
// for none.
func Attributes(info Info) ([]byte, error) {
	attrs, err := info.ExtraAttributes(nil)
	if err != nil {
		return nil, err
	}
	if info.Config["tag"] != "" {
		if attrs["tag"], err = info.tag(""); err != nil {
			return nil, err
		}
	}
	if len(attrs) == 0 {
		return nil, nil
	}
	return json.Marshal(attrs)
}
