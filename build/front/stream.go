package front

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/fault"
)

// stream is the answer: JSON objects, one after the other.
type stream struct {
	w     http.ResponseWriter
	enc   *json.Encoder
	began bool
}

func (s *stream) send(v any) {
	if !s.began {
		s.began = true
		s.w.Header().Set("Content-Type", "application/json")
	}
	_ = s.enc.Encode(v) // who does not read has gone: the context ends
	_ = http.NewResponseController(s.w).Flush()
}

func (s *stream) say(text string) { s.send(map[string]string{"stream": text}) }

func (s *stream) aux(id string) { s.send(map[string]any{"aux": map[string]string{"ID": id}}) }

// fail ends the answer with an error: by its status, if nothing was said yet.
func (s *stream) fail(err error) {
	if !s.began {
		writeError(s.w, err)
		return
	}
	detail := map[string]any{"message": err.Error()}
	var exit *build.ExitError
	if errors.As(err, &exit) {
		detail["code"] = exit.Code
	}
	s.send(map[string]any{"errorDetail": detail, "error": err.Error()})
}

func writeError(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch fault.KindOf(err) {
	case fault.Invalid:
		status = http.StatusBadRequest
	case fault.NotFound:
		status = http.StatusNotFound
	case fault.NotImplemented:
		status = http.StatusNotImplemented
	case fault.Forbidden:
		status = http.StatusForbidden
	case fault.Unavailable:
		status = http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": err.Error()})
}
