// Package reply is how requests about builds are answered over plain HTTP.
package reply

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/fault"
)

// Stream is an answer: JSON objects, one after the other.
type Stream struct {
	w     http.ResponseWriter
	enc   *json.Encoder
	began bool
}

// New begins an answer.
func New(w http.ResponseWriter) *Stream { return &Stream{w: w, enc: json.NewEncoder(w)} }

// Send answers with one object.
func (s *Stream) Send(v any) {
	if !s.began {
		s.began = true
		s.w.Header().Set("Content-Type", "application/json")
	}
	_ = s.enc.Encode(v) // who does not read has gone: the context ends
	_ = http.NewResponseController(s.w).Flush()
}

// Say tells a client to print a text.
func (s *Stream) Say(text string) { s.Send(map[string]string{"stream": text}) }

// Aux tells the ID of the image.
func (s *Stream) Aux(id string) { s.Send(map[string]any{"aux": map[string]string{"ID": id}}) }

// Fail ends the answer with an error: by its status, if nothing was said yet.
func (s *Stream) Fail(err error) {
	if !s.began {
		Error(s.w, err)
		return
	}
	detail := map[string]any{"message": err.Error()}
	var exit *build.ExitError
	if errors.As(err, &exit) {
		detail["code"] = exit.Code
	}
	s.Send(map[string]any{"errorDetail": detail, "error": err.Error()})
}

// Error answers with an error alone.
func Error(w http.ResponseWriter, err error) {
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

// JSON answers with one object.
func JSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // who does not read has gone
}

// Truth reads a flag of a query.
func Truth(q url.Values, name string) bool {
	v := strings.ToLower(strings.TrimSpace(q.Get(name)))
	return v != "" && v != "0" && v != "no" && v != "false" && v != "none"
}
