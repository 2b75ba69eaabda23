package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/plugin"
	"github.com/tarehq/tare/client"
)

const completionHelp = `Usage:  tare completion SHELL

Generate the autocompletion script for a shell

Shells:
  bash        source <(tare completion bash)
  fish        tare completion fish | source
  zsh         source <(tare completion zsh)
`

// The scripts hand the words before the cursor, and the one at it, to
// tare __complete, which prints one candidate a line.
const (
	bashCompletion = `# bash completion for tare
_tare() {
	local cur words cword
	if declare -F _get_comp_words_by_ref >/dev/null 2>&1; then
		_get_comp_words_by_ref -n =: cur words cword
	else
		cur=${COMP_WORDS[COMP_CWORD]} words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
	fi
	local candidates
	candidates=$("${words[0]}" __complete -- "${words[@]:1:cword-1}" "$cur" 2>/dev/null) || return
	if [[ -z $candidates ]]; then
		compopt -o default 2>/dev/null
		COMPREPLY=()
		return
	fi
	local IFS=$'\n'
	COMPREPLY=($(compgen -W "$candidates" -- "$cur"))
	if declare -F __ltrim_colon_completions >/dev/null 2>&1; then
		__ltrim_colon_completions "$cur"
	fi
}
complete -F _tare tare
`
	zshCompletion = `#compdef tare
_tare() {
	local -a candidates
	candidates=("${(@f)$("${words[1]}" __complete -- "${(@)words[2,CURRENT-1]}" "${words[CURRENT]}" 2>/dev/null)}")
	if [[ -z ${candidates[1]} ]]; then
		_files
	else
		compadd -- $candidates
	fi
}
if [[ ${funcstack[1]} = _tare ]]; then
	_tare "$@"
else
	compdef _tare tare
fi
`
	fishCompletion = `# fish completion for tare
function __tare_complete
	set -l words (commandline -opc) (commandline -ct)
	$words[1] __complete -- $words[2..-1] 2>/dev/null
end
complete -c tare -e
complete -c tare -a '(__tare_complete)'
`
)

func completion(s *command.Session, args []string) error {
	script := ""
	switch {
	case len(args) == 1 && args[0] == "bash":
		script = bashCompletion
	case len(args) == 1 && args[0] == "zsh":
		script = zshCompletion
	case len(args) == 1 && args[0] == "fish":
		script = fishCompletion
	case len(args) == 1 && args[0] == "--help", len(args) == 0:
		script = completionHelp
	default:
		return fmt.Errorf("tare: unknown command: tare completion %s\n\n%s", strings.Join(args, " "), completionHelp)
	}
	_, err := io.WriteString(s.Out, script)
	return err
}

// complete prints the candidates for the last of the words. Errors are silent:
// there is nothing to complete then.
func complete(ctx context.Context, s *command.Session, args []string) error {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		args = []string{""}
	}
	globals := command.NewFlags()
	globals.SetInterspersed(false)
	globalFlags(globals, &s.Options)
	last := args[len(args)-1]
	if globals.Parse(args[:len(args)-1]) != nil {
		return nil
	}
	var b strings.Builder
	for _, c := range candidates(ctx, s, globals, globals.Args(), last) {
		if strings.HasPrefix(c, last) {
			b.WriteString(c + "\n")
		}
	}
	_, err := io.WriteString(s.Out, b.String())
	return err
}

func candidates(ctx context.Context, s *command.Session, globals *pflag.FlagSet, words []string, last string) []string {
	e, used, noun := find(words)
	switch {
	case len(words) == 0 && strings.HasPrefix(last, "-"):
		return flagNames(globals)
	case len(words) == 0:
		names := append(topNames(), "completion", "help")
		for _, p := range plugin.List(s, known) {
			names = append(names, p.Name)
		}
		return names
	case words[0] == "completion":
		return []string{"bash", "fish", "zsh"}
	case words[0] == "help":
		return topNames()
	case noun:
		var verbs []string
		for i := range table {
			if table[i].noun == words[0] {
				verbs = append(verbs, table[i].verb)
			}
		}
		return verbs
	case e == nil:
		return completePlugin(s, words, last)
	}
	c := e.build()
	if len(words) > used && takesValue(c.Flags, words[len(words)-1]) {
		return nil
	}
	rest := words[used:]
	parsed := c.Flags.Parse(rest) == nil
	if c.Program && parsed && c.Flags.NArg() >= max(1, c.MinArgs-1) && c.Flags.NArg() > 0 {
		return nil
	}
	if strings.HasPrefix(last, "-") {
		return flagNames(c.Flags)
	}
	if c.MaxArgs >= 0 && c.Flags.NArg() >= c.MaxArgs {
		return nil
	}
	return objects(ctx, s, e, c)
}

// takesValue is true for a flag whose value is the next word.
func takesValue(f *pflag.FlagSet, word string) bool {
	var flag *pflag.Flag
	if name, ok := strings.CutPrefix(word, "--"); ok && !strings.Contains(name, "=") && name != "" {
		flag = f.Lookup(name)
	} else if len(word) >= 2 && word[0] == '-' && word[1] != '-' {
		flag = f.ShorthandLookup(word[len(word)-1:])
	}
	return flag != nil && flag.NoOptDefVal == ""
}

func flagNames(f *pflag.FlagSet) []string {
	names := []string{"--help"}
	f.VisitAll(func(flag *pflag.Flag) {
		if !flag.Hidden {
			names = append(names, "--"+flag.Name)
		}
	})
	slices.Sort(names)
	return slices.Compact(names)
}

func topNames() []string {
	var names []string
	for i := range table {
		names = append(names, table[i].names()...)
	}
	for _, g := range groups {
		names = append(names, g.noun)
	}
	slices.Sort(names)
	return names
}

// objects names what the command's argument can be: containers, images or
// both, or registries, by what its usage line calls it.
func objects(ctx context.Context, s *command.Session, e *entry, c *command.Command) []string {
	if strings.Contains(c.Usage, "SERVER") {
		return s.Config().Servers()
	}
	cl, err := s.Client()
	if err != nil {
		return nil
	}
	var names []string
	container := strings.Contains(c.Usage, "CONTAINER")
	if container && c.Flags.NArg() > 0 && c.MaxArgs == 2 {
		return nil // what comes after a container is a new name
	}
	if container || strings.Contains(c.Usage, "NAME|ID") {
		all := !slices.Contains([]string{"exec", "attach", "stop", "kill", "top", "port"}, e.verb)
		list, _ := cl.ContainerList(ctx, client.ListOptions{All: all})
		for i := range list {
			for _, name := range list[i].Names {
				names = append(names, strings.TrimPrefix(name, "/"))
			}
		}
	}
	if strings.Contains(c.Usage, "IMAGE") || strings.Contains(c.Usage, "REPOSITORY") && e.verb == "ls" || strings.Contains(c.Usage, "NAME") {
		list, _ := cl.ImageList(ctx, client.ImageListOptions{Brief: true})
		for i := range list {
			for _, name := range list[i].RepoTags {
				names = append(names, name, strings.TrimSuffix(name, ":latest"))
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
