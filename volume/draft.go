package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/internal/idgen"
	"github.com/tarehq/tare/internal/treecopy"
)

// Draft is a local volume without a name of its own that is made for a container.
// It is there from Publish on, when the container is: what a crash leaves of it
// before has no name and goes.
type Draft struct {
	Record

	volumes *Service
	dir     string
	durable bool
}

// Draft begins a volume; the request's name is not used. Either Publish or Discard
// follows.
func (s *Service) Draft(req CreateRequest) (*Draft, error) {
	req.Name, req.Driver = "", Local
	req.anonymous()
	r := Record{Name: req.Name, Driver: Local, Options: req.Options, Labels: req.Labels, Created: time.Now()}
	if err := s.check(&r); err != nil {
		return nil, err
	}
	dir, err := s.stage(r, !req.Volatile)
	if err != nil {
		return nil, err
	}
	return &Draft{r, s, dir, !req.Volatile}, nil
}

// anonymous gives a request without a name one that nobody else has.
func (req *CreateRequest) anonymous() {
	if req.Name != "" {
		return
	}
	labels := map[string]string{AnonymousLabel: ""}
	for k, v := range req.Labels {
		labels[k] = v
	}
	req.Name, req.Labels = idgen.New(), labels
	if req.Driver == "" {
		req.Driver = Local
	}
}

// Path is where the volume will lie.
func (d *Draft) Path() string { return d.volumes.data(d.Name) }

// Fill is Populate for what nobody else knows yet.
func (d *Draft) Fill(ctx context.Context, from *os.File) error {
	if needsMount(&d.Record) {
		return nil // when it is there
	}
	to, err := os.Open(filepath.Join(d.dir, dataName))
	if err != nil {
		return err
	}
	defer to.Close()
	return treecopy.Copy(ctx, to, from)
}

// Publish gives the volume its name.
func (d *Draft) Publish() error {
	if err := d.volumes.publish(d.dir, d.Record, d.durable); err != nil {
		return errors.Join(err, d.Discard())
	}
	d.volumes.tell(d.Record, events.ActionCreate)
	return nil
}

// Discard takes it back.
func (d *Draft) Discard() error { return d.volumes.scrap(d.dir) }
