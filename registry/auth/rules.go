package auth

import (
	"slices"
	"strings"

	"github.com/tarehq/tare/registry"
	"github.com/tarehq/tare/registry/pattern"
)

// Rule says who may do what with the repositories that it is the first to
// match; later rules do not matter for these. Who is a user's name, "@group",
// "authenticated" for whoever is known, or "*" for everybody. Who may push may
// pull.
type Rule struct {
	Match              pattern.List
	Pull, Push, Delete []string
}

// rules are in the order of the configuration. Without any, whoever is known
// may do everything; with some, what none matches is for nobody.
type rules struct {
	list   []Rule
	groups map[string][]string
}

func (r *rules) allow(user string, want registry.Access) bool {
	if len(r.list) == 0 {
		return user != ""
	}
	for _, rule := range r.list {
		if !rule.Match.Match(want.Repository) {
			continue
		}
		switch want.Action {
		case registry.Pull:
			return r.among(rule.Pull, user) || r.among(rule.Push, user)
		case registry.Push:
			return r.among(rule.Push, user)
		case registry.Delete:
			return r.among(rule.Delete, user)
		}
		return false
	}
	return false
}

func (r *rules) among(who []string, user string) bool {
	for _, w := range who {
		group, isGroup := strings.CutPrefix(w, "@")
		switch {
		case w == "*":
			return true
		case user == "":
		case isGroup && slices.Contains(r.groups[group], user):
			return true
		case w == "authenticated" || !isGroup && w == user:
			return true
		}
	}
	return false
}

// public tells whether there is something for everybody.
func (r *rules) public() bool {
	for _, rule := range r.list {
		if slices.Contains(rule.Pull, "*") || slices.Contains(rule.Push, "*") || slices.Contains(rule.Delete, "*") {
			return true
		}
	}
	return false
}
