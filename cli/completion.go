package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/config"
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
// NAME __complete, which prints one candidate a line. NAME is what the program is
// called.
const (
	bashCompletion = `# bash completion for tare
_tare() {
	# Bash parts words at = and : too. What stands together is one word, and of a
	# candidate it takes only what follows the last part.
	local line=${COMP_LINE:0:COMP_POINT} part cur= i
	local -a words=()
	for ((i = 0; i <= COMP_CWORD; i++)); do
		part=${COMP_WORDS[i]}
		if [[ $i = 0 || $line = [[:space:]]* || -z $line ]]; then
			line=${line#"${line%%[![:space:]]*}"}
			words+=("")
		fi
		((i < COMP_CWORD)) || part=$line
		line=${line#"$part"}
		words[${#words[@]}-1]+=$part
	done
	cur=${words[${#words[@]}-1]}
	[[ $part = [=:]* ]] && part=
	local candidates
	candidates=$("${words[0]}" __complete -- "${words[@]:1}" 2>/dev/null) || return
	if [[ -z $candidates ]]; then
		compopt -o default 2>/dev/null
		COMPREPLY=()
		return
	fi
	# A name is whatever the daemon says: the shell must not take it for its own words.
	local candidate
	COMPREPLY=()
	while IFS= read -r candidate; do
		candidate=${candidate#"${cur%"$part"}"}
		printf -v candidate %q "$candidate"
		COMPREPLY+=("$candidate")
	done <<<"$candidates"
	if [[ ${#COMPREPLY[@]} = 1 && ${COMPREPLY[0]} = *[=:] ]]; then
		compopt -o nospace 2>/dev/null # a value follows
	fi
}
complete -F _tare NAME
`
	zshCompletion = `#compdef NAME
_tare() {
	local -a candidates
	candidates=("${(@f)$("${words[1]}" __complete -- "${(@)words[2,CURRENT-1]}" "${words[CURRENT]}" 2>/dev/null)}")
	if [[ -z ${candidates[1]} ]]; then
		_files
	else
		compadd -S '' -- ${(M)candidates:#*[=:]} # a value follows
		compadd -- ${candidates:#*[=:]}
	fi
}
if [[ ${funcstack[1]} = _tare ]]; then
	_tare "$@"
else
	compdef _tare NAME
fi
`
	fishCompletion = `# fish completion for tare
function __tare_complete
	set -l words (commandline -opc) (commandline -ct)
	set -l candidates ($words[1] __complete -- $words[2..-1] 2>/dev/null)
	if set -q candidates[1]
		printf '%s\n' $candidates
	else
		__fish_complete_path $words[-1]
	end
end
complete -c NAME -e
complete -c NAME -f -a '(__tare_complete)'
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
	_, err := io.WriteString(s.Out, strings.ReplaceAll(script, "NAME", s.Name()))
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
	before := args[:len(args)-1]
	var list []string
	if name, value, ok := strings.Cut(last, "="); ok && strings.HasPrefix(name, "--") && len(before) == 0 {
		list = afterName(name, flagValues(ctx, s, "", name[2:], value))
	} else if globals.Parse(before) == nil {
		list = candidates(ctx, s, globals, globals.Args(), last)
	} else if flag := valueOf(globals, before[len(before)-1]); flag != nil {
		list = flagValues(ctx, s, "", flag.Name, last) // it lacks its value
	}
	var b strings.Builder
	for _, c := range list {
		if strings.HasPrefix(c, last) && strings.IndexFunc(c, unicode.IsControl) < 0 { // a line is a candidate
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
	if len(words) > used {
		if flag := valueOf(c.Flags, words[len(words)-1]); flag != nil {
			return flagValues(ctx, s, e.noun, flag.Name, last)
		}
	}
	if name, value, ok := strings.Cut(last, "="); ok && strings.HasPrefix(name, "--") {
		return afterName(name, flagValues(ctx, s, e.noun, name[2:], value))
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

// afterName are the values of a flag in one word with its name.
func afterName(name string, values []string) []string {
	var list []string
	for _, v := range values {
		list = append(list, name+"="+v)
	}
	return list
}

// valueOf is the flag whose value is the next word, or nil.
func valueOf(f *pflag.FlagSet, word string) *pflag.Flag {
	var flag *pflag.Flag
	if name, ok := strings.CutPrefix(word, "--"); ok && !strings.Contains(name, "=") && name != "" {
		flag = f.Lookup(name)
	} else if len(word) >= 2 && word[0] == '-' && word[1] != '-' {
		flag = f.ShorthandLookup(word[len(word)-1:])
	}
	if flag != nil && flag.NoOptDefVal != "" {
		return nil
	}
	return flag
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

// objects names what the command's argument can be, by what its usage line calls
// it.
func objects(ctx context.Context, s *command.Session, e *entry, c *command.Command) []string {
	switch {
	case strings.Contains(c.Usage, "SERVER"):
		return s.Config().Servers()
	case e.noun == "context":
		return contextNames(s)
	}
	n := namer{ctx: ctx, session: s}
	if strings.HasSuffix(c.Usage, "NETWORK CONTAINER") {
		if c.Flags.NArg() == 0 {
			n.networks()
		} else {
			n.containers(true)
		}
		return n.sorted()
	}
	container, all := strings.Contains(c.Usage, "CONTAINER"), strings.Contains(c.Usage, "NAME|ID")
	if container && c.Flags.NArg() > 0 && c.MaxArgs == 2 {
		return nil // what comes after a container is a new name
	}
	if container || all {
		n.containers(!slices.Contains([]string{"exec", "attach", "stop", "kill", "top", "port"}, e.verb))
	}
	if strings.Contains(c.Usage, "IMAGE") || strings.Contains(c.Usage, "REPOSITORY") && e.verb == "ls" || strings.Contains(c.Usage, "NAME") {
		n.images()
	}
	if strings.Contains(c.Usage, "NETWORK") && e.verb != "create" || all {
		n.networks()
	}
	if strings.Contains(c.Usage, "VOLUME") && e.verb != "create" || all {
		n.volumes()
	}
	return n.sorted()
}

func contextNames(s *command.Session) []string {
	names := []string{config.DefaultContext}
	list, _ := config.NewContexts(s.ConfigDir()).List()
	for _, c := range list {
		names = append(names, c.Name)
	}
	slices.Sort(names)
	return names
}

// namer collects the names of objects. What cannot be asked for has no names.
type namer struct {
	ctx     context.Context
	session *command.Session
	names   []string
}

func (n *namer) sorted() []string {
	slices.Sort(n.names)
	return slices.Compact(n.names)
}

func (n *namer) containers(all bool) {
	if cl, err := n.session.Client(); err == nil {
		list, _ := cl.ContainerList(n.ctx, client.ListOptions{All: all})
		for i := range list {
			for _, name := range list[i].Names {
				n.names = append(n.names, strings.TrimPrefix(name, "/"))
			}
		}
	}
}

func (n *namer) images() {
	if cl, err := n.session.Client(); err == nil {
		list, _ := cl.ImageList(n.ctx, client.ImageListOptions{Brief: true})
		for i := range list {
			for _, name := range list[i].RepoTags {
				n.names = append(n.names, name, strings.TrimSuffix(name, ":latest"))
			}
		}
	}
}

func (n *namer) networks() {
	if cl, err := n.session.Client(); err == nil {
		list, _ := cl.NetworkList(n.ctx, nil)
		for i := range list {
			n.names = append(n.names, list[i].Name)
		}
	}
}

func (n *namer) volumes() {
	if cl, err := n.session.Client(); err == nil {
		list, _, _ := cl.VolumeLines(n.ctx, nil)
		for i := range list {
			n.names = append(n.names, list[i].Name)
		}
	}
}
