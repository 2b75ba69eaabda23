package command

import (
	"errors"
	"io"

	"github.com/tarehq/tare/cli/format"
)

// Inspect prints the JSON that get returns for each name by the template of
// --format. All are tried; the template is looked at first.
func Inspect(s *Session, template string, names []string, get func(name string) ([]byte, error)) error {
	inspector, err := format.NewInspector(template)
	if err != nil {
		return BadTemplate(err)
	}
	var found [][]byte
	failed := Each(names, func(name string) error {
		raw, err := get(name)
		if err == nil {
			found = append(found, raw)
		}
		return err
	})
	text, err := inspector.Render(found)
	if _, werr := io.WriteString(s.Out, text); err == nil {
		err = werr
	}
	return errors.Join(err, failed)
}
