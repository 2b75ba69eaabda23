package image

import (
	"context"
	"strings"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
)

// Tag is the command tag.
func Tag() *command.Command {
	return &command.Command{
		Usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", MinArgs: 2, MaxArgs: 2, Flags: command.NewFlags(),
		Run: func(ctx context.Context, s *command.Session, args []string) error {
			cl, err := s.Client()
			if err != nil {
				return err
			}
			if _, err := reference.Parse(args[1]); err != nil {
				return fault.New(fault.Invalid, "error parsing reference: %q is not a valid repository/tag: %w", args[1], err)
			}
			if strings.Contains(args[1], "@") {
				return fault.New(fault.Invalid, "refusing to create a tag with a digest reference")
			}
			repo, tag := splitTag(args[1])
			return cl.ImageTag(ctx, args[0], repo, tag)
		},
	}
}

// splitTag splits a name and its tag, which may be missing.
func splitTag(name string) (repo, tag string) {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i], name[i+1:]
	}
	return name, ""
}
