package cli

import (
	"errors"
	"path/filepath"
	"strings"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/plugin"
	"github.com/tarehq/tare/fault"
)

// plugins are commands that usually are one.
var plugins = [...]string{"buildx", "compose"}

// builds are the commands that a plugin carries out under another name: buildx
// builds, as it does for Docker's client.
var builds = [...]struct{ from, to []string }{
	{[]string{"build"}, []string{"buildx", "build"}},
	{[]string{"image", "build"}, []string{"buildx", "build"}},
	{[]string{"builder"}, []string{"buildx"}},
	{[]string{"bake"}, []string{"buildx", "bake"}},
}

// pluginArgs gives what a plugin would be called with for words that name no
// command: its name and the arguments. nil is for no plugin.
func pluginArgs(words []string, noun bool) []string {
	for _, b := range builds {
		if len(words) >= len(b.from) && strings.Join(words[:len(b.from)], " ") == strings.Join(b.from, " ") {
			return append(append([]string{}, b.to...), words[len(b.from):]...)
		}
	}
	if noun || strings.HasPrefix(words[0], "-") {
		return nil
	}
	return words
}

// byPlugin tells whether a command of our own is carried out by a plugin: build is
// by buildx where that is installed, or else by our own program that is called as
// it is, unless DOCKER_BUILDKIT is 0; builder is buildx's where that is installed.
func byPlugin(s *command.Session, words []string) bool {
	if words[0] == "builder" {
		_, err := plugin.Find(s, "buildx")
		return err == nil
	}
	if words[0] != "build" && (len(words) < 2 || words[0] != "image" || words[1] != "build") {
		return false
	}
	if s.Getenv("DOCKER_BUILDKIT") == "0" {
		return false
	}
	_, err := builder(s)
	return err == nil
}

// lists tells whether the words ask for the commands of builder, which buildx
// answers where it is installed.
func lists(s *command.Session, words []string) bool {
	return words[0] == "builder" && (len(words) == 1 || strings.HasPrefix(words[1], "-")) && !byPlugin(s, words)
}

// builder is buildx, or what stands in for it.
func builder(s *command.Session) (*plugin.Plugin, error) {
	p, err := plugin.Find(s, "buildx")
	if errors.Is(err, fault.NotFound) {
		return plugin.Own()
	}
	return p, err
}

// runPlugin becomes the plugin that carries out the words as args. A word that
// names none is no command.
func runPlugin(s *command.Session, words, args []string) error {
	p, err := plugin.Find(s, args[0])
	if errors.Is(err, fault.NotFound) && len(args) > 1 && args[0] == "buildx" && args[1] == "build" {
		p, err = plugin.Own()
	}
	said := words[0]
	if said == "builder" && len(words) > 1 {
		said += " " + words[1]
	}
	switch {
	case errors.Is(err, fault.NotFound) && args[0] == words[0] && !has(plugins[:], args[0]):
		return unknown(s, words, false)
	case errors.Is(err, fault.NotFound):
		return fault.New(fault.NotFound, "tare: 'tare %s' needs a plugin that is not installed: put the program docker-%s into %s",
			said, args[0], filepath.Join(s.ConfigDir(), "cli-plugins"))
	case err != nil:
		return err
	}
	return p.Run(s, args)
}

// known is true for a word that a plugin cannot take, for it is a command.
func known(name string) bool {
	e, _, noun := find([]string{name})
	return e != nil || noun || name == "completion" || name == "help"
}

// completePlugin asks a plugin for the candidates, the way that the library for
// commands which plugins are made with understands.
func completePlugin(s *command.Session, words []string, last string) []string {
	p, err := plugin.Find(s, words[0])
	if err != nil {
		return nil
	}
	out, err := p.Output(s, append(append([]string{"__complete"}, words...), last))
	if err != nil {
		return nil
	}
	var list []string
	for _, line := range strings.Split(string(out), "\n") {
		if candidate, _, _ := strings.Cut(line, "\t"); candidate != "" && candidate[0] != ':' {
			list = append(list, candidate)
		}
	}
	return list
}
