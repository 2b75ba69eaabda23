package client

import (
	"encoding/json"
	"io"

	"github.com/tarehq/tare/fault"
)

// Progress is one line of a long operation's answer.
type Progress struct {
	Stream string          `json:"stream,omitempty"`
	Status string          `json:"status,omitempty"`
	Detail *ProgressDetail `json:"progressDetail,omitempty"`
	ID     string          `json:"id,omitempty"` // of the layer or the tag that the status is about
	Error  *ProgressError  `json:"errorDetail,omitempty"`
	Aux    json.RawMessage `json:"aux,omitempty"`
}

// ProgressDetail says how far one thing has come.
type ProgressDetail struct {
	Current    int64  `json:"current,omitempty"`
	Total      int64  `json:"total,omitempty"` // 0: not known
	Start      int64  `json:"start,omitempty"` // Unix seconds
	HideCounts bool   `json:"hidecounts,omitempty"`
	Units      string `json:"units,omitempty"` // "" is bytes
}

// ProgressError ends a long operation.
type ProgressError struct {
	Code    int    `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
}

// progress reads the lines; an error line ends it as a fault.
func progress(r io.ReadCloser, each func(Progress) error) error {
	defer r.Close()
	return decodeStream(r, func(p Progress) error {
		if p.Error == nil {
			return each(p)
		}
		if p.Error.Code >= 400 {
			return fault.New(statusKind(p.Error.Code), "%s", p.Error.Message)
		}
		return fault.New(fault.Internal, "%s", p.Error.Message)
	})
}
