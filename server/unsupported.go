package server

import (
	"net/http"
	"strings"

	"github.com/tarehq/tare/fault"
)

// notYet is the handler of an endpoint that is known and not there.
func notYet(what string) handler {
	return func(http.ResponseWriter, *request) error {
		return fault.New(fault.NotImplemented, "%s is not supported yet", what)
	}
}

// row makes a route of "METHOD /path".
func row(path string, h handler) route {
	method, pattern, _ := strings.Cut(path, " ")
	return route{method: method, pattern: pattern, handle: h}
}

// unsupportedRoutes names the rest of the API, so that what is missing does
// not look like a path that nobody knows. A row leaves when its noun learns it.
func unsupportedRoutes() []route {
	var rows []route
	for path, what := range map[string]string{
		"GET /debug/{name...}": "debugging over the API",
	} {
		rows = append(rows, row(path, notYet(what)))
	}
	return rows
}
