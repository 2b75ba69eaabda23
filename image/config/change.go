package config

import (
	"encoding/json"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/tarehq/tare/fault"
)

// Change sets the config by Dockerfile instructions, those that
// `docker import --change` takes. A text may hold several lines, and a line
// ending with a backslash goes on in the next.
func Change(c *dockerspec.DockerOCIImageConfig, changes []string) error {
	text := strings.ReplaceAll(strings.Join(changes, "\n"), "\r\n", "\n")
	text = strings.ReplaceAll(text, "\\\n", "")
	cmdGiven := false
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		given, rest := cutWord(line)
		word := strings.ToLower(given)
		cmdGiven = cmdGiven || word == "cmd"
		if word == "entrypoint" && !cmdGiven { // a command of before belongs to another one
			c.Cmd = nil
		}
		if err := applyChange(c, given, rest); err != nil {
			return err
		}
	}
	return nil
}

func cutWord(line string) (word, rest string) {
	end := strings.IndexAny(line, " \t")
	if end < 0 {
		return line, ""
	}
	return line[:end], strings.TrimSpace(line[end:])
}

func applyChange(c *dockerspec.DockerOCIImageConfig, given, rest string) error {
	instruction := strings.ToLower(given)
	apply := map[string]func(*dockerspec.DockerOCIImageConfig, string) error{
		"cmd": changeCmd, "entrypoint": changeEntrypoint, "env": changeEnv, "expose": changeExpose,
		"healthcheck": changeHealthcheck, "label": changeLabel, "onbuild": changeOnbuild, "stopsignal": changeStopSignal,
		"user": changeUser, "volume": changeVolume, "workdir": changeWorkdir,
	}[instruction]
	if apply == nil {
		return fault.New(fault.Invalid, "%s is not a valid change command", given)
	}
	if rest == "" && instruction != "cmd" && instruction != "entrypoint" {
		return fault.New(fault.Invalid, "%s requires at least one argument", strings.ToUpper(instruction))
	}
	return apply(c, rest)
}

// command reads the exec form, a JSON array of strings, or else the shell form.
func command(rest string) []string {
	if args, ok := jsonArray(rest); ok {
		return args
	}
	if rest == "" {
		return nil
	}
	return []string{"/bin/sh", "-c", rest}
}

func jsonArray(s string) ([]string, bool) {
	if !strings.HasPrefix(s, "[") {
		return nil, false
	}
	args := []string{}
	err := json.Unmarshal([]byte(s), &args)
	return args, err == nil
}

func changeCmd(c *dockerspec.DockerOCIImageConfig, rest string) error {
	c.Cmd = command(rest)
	return nil
}

func changeEntrypoint(c *dockerspec.DockerOCIImageConfig, rest string) error {
	c.Entrypoint = command(rest)
	return nil
}

func changeEnv(c *dockerspec.DockerOCIImageConfig, rest string) error {
	pairs, err := pairs(c.Env, "ENV", rest)
	for _, p := range pairs {
		i := slices.IndexFunc(c.Env, func(have string) bool { return strings.HasPrefix(have, p[0]+"=") })
		if i < 0 {
			c.Env = append(c.Env, "")
			i = len(c.Env) - 1
		}
		c.Env[i] = p[0] + "=" + p[1]
	}
	return err
}

func changeLabel(c *dockerspec.DockerOCIImageConfig, rest string) error {
	pairs, err := pairs(c.Env, "LABEL", rest)
	for _, p := range pairs {
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		c.Labels[p[0]] = p[1]
	}
	return err
}

func changeExpose(c *dockerspec.DockerOCIImageConfig, rest string) error {
	list, err := expandWords(c.Env, rest)
	if err != nil {
		return err
	}
	for _, word := range list {
		ports, proto, ok := strings.Cut(word, "/")
		if !ok {
			proto = "tcp"
		}
		first, last, isRange := strings.Cut(ports, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		proto = strings.ToLower(proto)
		if err1 != nil || err2 != nil || to < from || proto != "tcp" && proto != "udp" && proto != "sctp" {
			return fault.New(fault.Invalid, "invalid containerPort: %s", word)
		}
		if c.ExposedPorts == nil {
			c.ExposedPorts = map[string]struct{}{}
		}
		for port := from; port <= to; port++ {
			c.ExposedPorts[strconv.FormatUint(port, 10)+"/"+proto] = struct{}{}
		}
	}
	return nil
}

func changeUser(c *dockerspec.DockerOCIImageConfig, rest string) (err error) {
	c.User, err = single(c.Env, "USER", rest)
	return err
}

func changeWorkdir(c *dockerspec.DockerOCIImageConfig, rest string) error {
	dir, err := expand(c.Env, rest)
	if err != nil {
		return err
	}
	if !path.IsAbs(dir) {
		dir = path.Join("/", c.WorkingDir, dir)
	}
	c.WorkingDir = path.Clean(dir)
	return nil
}

func changeStopSignal(c *dockerspec.DockerOCIImageConfig, rest string) (err error) {
	c.StopSignal, err = single(c.Env, "STOPSIGNAL", rest)
	return err
}

func changeVolume(c *dockerspec.DockerOCIImageConfig, rest string) error {
	list, ok := jsonArray(rest)
	if !ok {
		var err error
		if list, err = expandWords(c.Env, rest); err != nil {
			return err
		}
	}
	if len(list) == 0 {
		return fault.New(fault.Invalid, "VOLUME requires at least one argument")
	}
	for _, v := range list {
		if v = strings.TrimSpace(v); v == "" {
			return fault.New(fault.Invalid, "VOLUME specified can not be an empty string")
		}
		if c.Volumes == nil {
			c.Volumes = map[string]struct{}{}
		}
		c.Volumes[v] = struct{}{}
	}
	return nil
}

func changeOnbuild(c *dockerspec.DockerOCIImageConfig, rest string) error {
	switch word, _ := cutWord(rest); strings.ToUpper(word) {
	case "ONBUILD":
		return fault.New(fault.Invalid, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
	case "MAINTAINER", "FROM":
		return fault.New(fault.Invalid, "%s isn't allowed as an ONBUILD trigger", strings.ToUpper(word))
	}
	c.OnBuild = append(c.OnBuild, rest)
	return nil
}

func changeHealthcheck(c *dockerspec.DockerOCIImageConfig, rest string) error {
	check := &dockerspec.HealthcheckConfig{}
	for strings.HasPrefix(rest, "--") {
		var flag string
		flag, rest = cutWord(rest)
		if err := healthFlag(check, flag); err != nil {
			return err
		}
	}
	kind, args := cutWord(rest)
	switch strings.ToUpper(kind) {
	case "NONE":
		if args != "" {
			return fault.New(fault.Invalid, "HEALTHCHECK NONE takes no arguments")
		}
		check = &dockerspec.HealthcheckConfig{Test: []string{"NONE"}}
	case "CMD":
		if args == "" {
			return fault.New(fault.Invalid, "Missing command after HEALTHCHECK CMD")
		}
		if list, ok := jsonArray(args); ok {
			check.Test = append([]string{"CMD"}, list...)
		} else {
			check.Test = []string{"CMD-SHELL", args}
		}
	default:
		return fault.New(fault.Invalid, "Unknown type %q in HEALTHCHECK (try CMD)", kind)
	}
	c.Healthcheck = check
	return nil
}

func healthFlag(check *dockerspec.HealthcheckConfig, flag string) error {
	name, value, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
	if name == "retries" {
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return fault.New(fault.Invalid, "--retries cannot be %q in HEALTHCHECK", value)
		}
		check.Retries = n
		return nil
	}
	field := map[string]*time.Duration{"interval": &check.Interval, "timeout": &check.Timeout,
		"start-period": &check.StartPeriod, "start-interval": &check.StartInterval}[name]
	if field == nil {
		return fault.New(fault.Invalid, "unknown flag: %s in HEALTHCHECK", flag)
	}
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 || d > 0 && d < time.Millisecond {
		return fault.New(fault.Invalid, "--%s cannot be %q in HEALTHCHECK: it is a duration of at least 1ms", name, value)
	}
	*field = d
	return nil
}
