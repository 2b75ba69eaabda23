package server

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/moby/moby/api/types/common"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/server/version"
)

// statuses maps the kinds of error to what Docker answers for them. The client
// reads the same table backwards.
var statuses = map[fault.Kind]int{
	fault.Internal:       http.StatusInternalServerError,
	fault.NotFound:       http.StatusNotFound,
	fault.Conflict:       http.StatusConflict,
	fault.Invalid:        http.StatusBadRequest,
	fault.NotModified:    http.StatusNotModified,
	fault.Unauthorized:   http.StatusUnauthorized,
	fault.Forbidden:      http.StatusForbidden,
	fault.Unavailable:    http.StatusServiceUnavailable,
	fault.NotImplemented: http.StatusNotImplemented,
}

var (
	errPageNotFound = fault.New(fault.NotFound, "page not found")
	errStopping     = fault.New(fault.Unavailable, "the daemon is stopping: the request was not carried out to its end")
	errPanicked     = errors.New("internal error, the daemon's log has the details")
)

func statusOf(err error) int {
	if status, ok := statuses[fault.KindOf(err)]; ok {
		return status
	}
	return http.StatusInternalServerError
}

// writeError answers with the error in Docker's shape. Clients older than the
// oldest version print the body as it is, so their refusal is plain text.
func writeError(w http.ResponseWriter, status int, err error) {
	var tooOld version.TooOldError
	switch {
	case status == http.StatusNotModified:
		w.WriteHeader(status)
	case errors.As(err, &tooOld):
		http.Error(w, err.Error(), status)
	default:
		writeJSON(w, status, common.ErrorResponse{Message: err.Error()})
	}
}

// writeJSON answers with v. An error of the connection is of no use to anyone
// here: the client that would read of it has gone.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.Encode(v)
	return nil
}

func noContent(w http.ResponseWriter) error {
	w.WriteHeader(http.StatusNoContent)
	return nil
}
