package cli_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

var verbLine = regexp.MustCompile(`(?m)^([a-z, -]+):(.*)$`)

// TestDockersVerbs walks Docker's commands under all their names: each is there
// with all its flags, long and short, or is refused by its name.
func TestDockersVerbs(t *testing.T) {
	text, err := os.ReadFile("testdata/docker.txt")
	if err != nil {
		t.Fatal(err)
	}
	f := newFake(t)
	there, refused := 0, 0
	for _, m := range verbLine.FindAllStringSubmatch(string(text), -1) {
		names, flags := strings.Split(m[1], ", "), strings.Fields(m[2])
		for _, name := range names {
			words := strings.Fields(name)
			help := f.call(nil, append(words, "--help")...)
			if help.code == 0 && strings.HasPrefix(help.out, "Usage:  tare "+name) && !strings.HasPrefix(help.out, "Usage:  tare "+name+" COMMAND") {
				there++
				checkFlags(t, f, words, flags, help.out)
				continue
			}
			refused++
			noun := words[0]
			if r := f.call(nil, append(words, "x")...); r.code == 0 || strings.Contains(r.err, "unknown command") || !strings.Contains(r.err, "tare "+noun) {
				t.Errorf("%s is neither there nor refused: %+v", name, r)
			}
		}
	}
	if there < 80 {
		t.Errorf("%d commands are there, %d refused", there, refused)
	}
	if asked := f.asked(); len(asked) != 0 {
		t.Errorf("the daemon was asked: %v", asked)
	}
}

// checkFlags finds each flag, written as -s/--long or --long.
func checkFlags(t *testing.T, f *fake, words, flags []string, help string) {
	for _, flag := range flags {
		short, long, both := strings.Cut(flag, "/")
		if !both {
			short, long = "", flag
		}
		r := f.call(nil, append(words, long+"=1", "--help")...)
		known := !strings.Contains(r.err, "unknown flag: "+long)
		if !known {
			t.Errorf("%s lacks %s", strings.Join(words, " "), long)
		}
		if known && both && !strings.Contains(help, "\n  "+short+", "+long+" ") {
			t.Errorf("%s: %s is not the short form of %s", strings.Join(words, " "), short, long)
		}
	}
}

// Every command answers --help with its synopsis and its flags; those of daily use
// with an example.
func TestHelpHasExamples(t *testing.T) {
	f := newFake(t)
	for _, name := range []string{"run", "create", "exec", "ps", "start", "stop", "restart", "rm", "kill", "logs", "attach", "port", "wait", "inspect",
		"images", "pull", "push", "events", "info", "version", "network ls", "volume ls", "context create"} {
		if help := f.call(nil, append(strings.Fields(name), "--help")...).out; !strings.Contains(help, "\nExample:\n  $ tare "+name+" ") &&
			!strings.Contains(help, "\nExample:\n  $ tare "+name+"\n") {
			t.Errorf("tare %s --help has no example of it:\n%s", name, help)
		}
	}
}
