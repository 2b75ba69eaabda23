package server

import (
	"net/http"
	"strings"

	"github.com/tarehq/tare/server/version"
)

// handler answers one kind of request. It either writes an answer or returns
// an error, whose text and kind become the answer.
type handler func(w http.ResponseWriter, r *request) error

// request is a request whose path was understood.
type request struct {
	*http.Request
	version version.Version
	params  map[string]string // the pattern's {name} parts
	hearing *hearing          // nil without authorization plugins
}

// route is a row of the routing table. A pattern's segments are literal words,
// {name} for any one segment, or at most one {name...} for any number of them,
// none included: image names contain slashes. Rows are tried in order.
type route struct {
	method, pattern string
	handle          handler
	decodes         bool // the handler has its body decoded by request.json
	segments        []string
}

// split cuts a path into its segments. Empty ones do not count, so that a
// container's name may be given as Docker shows it, with a slash in front.
func split(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

func (s *Server) find(method string, path []string) (*route, map[string]string) {
	if len(path) == 0 {
		return nil, nil
	}
	rows := s.routes[path[0]]
	for i := range rows {
		if rows[i].method != method {
			continue
		}
		if params, ok := match(rows[i].segments, path); ok {
			return &rows[i], params
		}
	}
	return nil, nil
}

// match compares a path with a pattern and returns the values of its names.
func match(pattern, path []string) (map[string]string, bool) {
	var params map[string]string
	set := func(name, value string) {
		if params == nil {
			params = map[string]string{}
		}
		params[name] = value
	}
	for i, segment := range pattern {
		name, isParam := strings.CutPrefix(segment, "{")
		name = strings.TrimSuffix(name, "}")
		name, greedy := strings.CutSuffix(name, "...")
		switch {
		case greedy:
			tail := pattern[i+1:]
			if len(path) < i+len(tail) {
				return nil, false
			}
			end := len(path) - len(tail)
			for j, literal := range tail {
				if path[end+j] != literal {
					return nil, false
				}
			}
			set(name, strings.Join(path[i:end], "/"))
			return params, true
		case i >= len(path):
			return nil, false
		case isParam:
			set(name, path[i])
		case path[i] != segment:
			return nil, false
		}
	}
	return params, len(path) == len(pattern)
}
