// Package listing shows containers: all of them by filters, and the parts that lists and
// inspect have in common.
package listing

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	wire "github.com/moby/moby/api/types/container"
	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/container/links"
	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/network"
)

// Listing shows containers. It keeps each one's summary in JSON until that changes. It
// is safe for concurrent use.
type Listing struct {
	Store    *record.Store
	Networks *network.Service
	Links    *links.Table
	Images   imageNames
	Layers   layerSizes
	texts    texts
}

// imageNames tell what a name of an image means now.
type imageNames interface {
	ID(ref string) digest.Digest
}

// layerSizes tell how much a container has written, and that with its image, in bytes.
type layerSizes interface {
	Usage(ctx context.Context, containerID string) (changed, all int64, err error)
}

// texts are the summaries that are kept. What changes by itself, the sentence of how
// long a container has been up, is left out of them.
type texts struct {
	mu    sync.Mutex
	byKey map[textKey]*listText
	swept int // how many there were when those of removed containers were dropped
}

// textKey is a container and what its reader wants.
type textKey struct{ id, form string }

// listText is the summary of one record, as a reader of one form wants it.
type listText struct {
	record     *record.Record // never changed, but replaced
	image      string
	names      []string
	head, tail []byte // around the sentence's text
}

// Text is List as JSON text, without sizes. Shape makes of a summary what
// the reader understands; the same form has the same shape.
func (s *Listing) Text(ctx context.Context, o Options, form string, shape func(*wire.Summary)) ([]byte, error) {
	records, err := s.listed(o)
	if err != nil {
		return nil, err
	}
	images := map[string]string{} // most containers have few images
	out := make([]byte, 0, 2+len(records)*s.texts.size(form))
	out = append(out, '[')
	for i, r := range records {
		named := r.Config.Image + " " + string(r.Image.ID)
		image, known := images[named]
		if !known {
			image = s.imageName(*r)
			images[named] = image
		}
		text, err := s.listText(ctx, r, form, image, shape)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, text.head...)
		out = append(out, status(*r)...)
		out = append(out, text.tail...)
	}
	s.texts.sweep(s.Store.Has)
	return append(out, "]\n"...), nil
}

// listText is what is kept of the record, made anew if it is of another one.
func (s *Listing) listText(ctx context.Context, r *record.Record, form, image string, shape func(*wire.Summary)) (*listText, error) {
	names := s.shownNames(r)
	key := textKey{r.ID, form}
	if t := s.texts.of(key); t != nil && t.record == r && t.image == image && slices.Equal(t.names, names) {
		return t, nil
	}
	item, err := s.summary(ctx, *r, false)
	if err != nil {
		return nil, err
	}
	item.Image, item.Names = image, names
	item.Status = rand.Text() // stands nowhere else, whatever labels say
	if shape(&item); item.Status == "" {
		return nil, fmt.Errorf("a list without the status of %s", r.ID)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(item); err != nil {
		return nil, err
	}
	head, tail, _ := bytes.Cut(bytes.TrimSuffix(b.Bytes(), []byte("\n")), []byte(item.Status))
	t := &listText{record: r, image: image, names: names, head: head, tail: tail}
	s.texts.keep(key, t)
	return t, nil
}

func (l *texts) of(key textKey) *listText {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byKey[key]
}

func (l *texts) keep(key textKey, t *listText) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byKey == nil {
		l.byKey = map[textKey]*listText{}
	}
	l.byKey[key] = t
}

// size is about what one summary of the form takes.
func (l *texts) size(form string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, t := range l.byKey {
		if key.form != form {
			continue
		}
		return len(t.head) + len(t.tail) + 64
	}
	return 1024
}

// sweep drops what is kept of containers that are gone, whenever there is twice
// as much as after the last time.
func (l *texts) sweep(has func(id string) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.byKey) < 2*l.swept+64 {
		return
	}
	for key := range l.byKey {
		if !has(key.id) {
			delete(l.byKey, key)
		}
	}
	l.swept = len(l.byKey)
}
