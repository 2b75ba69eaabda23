package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/moby/moby/api/types"

	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/fault"
)

type eventHandlers struct{ events *event.Log }

func (h *eventHandlers) routes() []route {
	return []route{{method: "GET", pattern: "/events", handle: h.stream}}
}

// lateTime is how long a client that was too slow has for what it was left.
const lateTime = 10 * time.Second

// stream sends each event the moment it is published, until the time until,
// the end of the connection or that of the daemon.
func (h *eventHandlers) stream(w http.ResponseWriter, r *request) error {
	since, until, filter, err := eventQuery(r)
	if err != nil {
		return err
	}
	sub := h.events.Subscribe(since, until, filter)
	defer sub.Close()

	contentType := negotiate(r.Header.Values("Accept"), r.version.EventTypes())
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	if err := control.Flush(); err != nil {
		return err
	}
	sub.OnSlow(func() { _ = control.SetWriteDeadline(time.Now().Add(lateTime)) }) // a client that reads nothing holds up the write
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	for {
		msg, err := sub.Next(r.Context())
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		out := r.version.Event(msg)
		if out == nil {
			continue
		}
		line.Reset()
		if contentType == types.MediaTypeJSONSequence {
			line.WriteByte('\x1e') // RFC 7464: the record separator goes in front
		}
		if err := enc.Encode(out); err != nil {
			return err
		}
		if _, err := w.Write(line.Bytes()); err != nil {
			return err
		}
		if err := control.Flush(); err != nil {
			return err
		}
	}
}

func eventQuery(r *request) (since, until time.Time, filter event.Filter, err error) {
	if err = r.form(); err != nil {
		return since, until, nil, err
	}
	if since, err = r.moment("since"); err != nil {
		return since, until, nil, err
	}
	if until, err = r.moment("until"); err != nil {
		return since, until, nil, err
	}
	if !until.IsZero() && until.Before(since) {
		return since, until, nil, fault.New(fault.Invalid, "`since` time (%s) cannot be after `until` time (%s)", r.Form.Get("since"), r.Form.Get("until"))
	}
	sets, err := r.filters()
	if err != nil {
		return since, until, nil, err
	}
	filter = event.Filter{}
	for key, values := range sets {
		for v := range values {
			filter[key] = append(filter[key], v)
		}
	}
	return since, until, filter, filter.Check()
}

// negotiate gives the offer that the client names first in its Accept headers,
// the first offer if it names none.
func negotiate(accept, offers []string) string {
	for _, header := range accept {
		for want := range strings.SplitSeq(header, ",") {
			mediaType, _, err := mime.ParseMediaType(want)
			if err != nil {
				continue
			}
			for _, offer := range offers {
				if offer == mediaType {
					return offer
				}
			}
		}
	}
	return offers[0]
}
