package notify

import (
	"net/http"
	"time"

	"github.com/tarehq/tare/registry"
)

// MediaType is that of what a webhook gets.
const MediaType = "application/vnd.docker.distribution.events.v1+json"

// envelope is the document of Docker's registry, as it is: receivers know it.
type envelope struct {
	Events []*event `json:"events"`
}

type event struct {
	ID        string    `json:"id"`
	Timestamp time.Time `json:"timestamp"`
	Action    string    `json:"action"` // push, pull, delete, mount
	Target    target    `json:"target"`
	Request   request   `json:"request"`
	Actor     actor     `json:"actor"`
	Source    source    `json:"source"`
}

type target struct {
	MediaType  string `json:"mediaType,omitempty"`
	Digest     string `json:"digest,omitempty"`
	Size       int64  `json:"size,omitempty"`
	Length     int64  `json:"length,omitempty"` // the same, as older receivers call it
	Repository string `json:"repository"`
	From       string `json:"fromRepository,omitempty"`
	URL        string `json:"url,omitempty"`
	Tag        string `json:"tag,omitempty"`
}

type request struct {
	ID        string `json:"id,omitempty"`
	Addr      string `json:"addr,omitempty"`
	Host      string `json:"host,omitempty"`
	Method    string `json:"method,omitempty"`
	UserAgent string `json:"useragent,omitempty"`
}

type actor struct {
	Name string `json:"name,omitempty"`
}

type source struct {
	Addr string `json:"addr,omitempty"` // the registry's host and port
}

const octets = "application/octet-stream"

// describe writes an event as receivers know it. base is where clients see the
// registry.
func describe(e *registry.Event, id, base, from string) *event {
	d := &event{
		ID: id, Timestamp: e.Time, Action: string(e.Action),
		Target: target{
			MediaType: e.MediaType, Digest: string(e.Digest), Size: e.Size, Length: e.Size,
			Repository: e.Repository, From: e.From, Tag: e.Tag,
		},
		Request: request{e.RequestID, e.RemoteAddr, e.Host, e.Method, e.UserAgent},
		Actor:   actor{e.User},
		Source:  source{from},
	}
	if e.From != "" {
		d.Action = "mount"
	}
	if e.Action != registry.Delete && e.Digest != "" && base != "" {
		noun := "manifests"
		if e.MediaType == octets {
			noun = "blobs"
		}
		d.Target.URL = base + "/v2/" + e.Repository + "/" + noun + "/" + string(e.Digest)
	}
	return d
}

// refusal tells whether the receiver will never take the event: what it calls
// the sender's fault, but for what time heals.
func refusal(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests,
		http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound: // that may be set right
		return false
	}
	return status >= 400 && status < 500
}
