package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/tarehq/tare/internal/atomicfile"
)

// Record is where a schedule keeps what it knows for the next start, and for
// others that run the same one.
type Record interface {
	// Read gives what was kept, nil if nothing was.
	Read(ctx context.Context) ([]byte, error)
	// Change keeps what the function makes of that, unless it fails. It may be
	// called again where somebody else was faster.
	Change(ctx context.Context, f func([]byte) ([]byte, error)) error
}

// File is a record in a file that one process has.
type File string

// Read reads the file.
func (f File) Read(context.Context) ([]byte, error) {
	data, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// Change replaces the file.
func (f File) Change(ctx context.Context, change func([]byte) ([]byte, error)) error {
	data, err := f.Read(ctx)
	if err == nil {
		data, err = change(data)
	}
	if err != nil {
		return err
	}
	return atomicfile.Write(string(f), data, 0o600)
}

// runs is the content of a record, by the keys of the syncs.
type runs struct {
	Ran   map[string]time.Time `json:"ran"`             // when it began, of those that went well
	Begun map[string]time.Time `json:"begun,omitempty"` // by somebody who has not ended
}

func parseRuns(data []byte) (r runs, err error) {
	if len(data) > 0 {
		err = json.Unmarshal(data, &r)
	}
	if r.Ran == nil || err != nil {
		r.Ran = map[string]time.Time{}
	}
	if r.Begun == nil || err != nil {
		r.Begun = map[string]time.Time{}
	}
	return r, err
}
