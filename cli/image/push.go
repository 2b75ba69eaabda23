package image

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/progress"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// Push is the command push.
func Push() *command.Command {
	f := command.NewFlags()
	o := &push{compression: newCompression(f)}
	f.BoolVarP(&o.all, "all-tags", "a", false, "Push all tags of an image to the repository")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress verbose output")
	f.StringVar(&o.platform, "platform", "", "Push a platform-specific manifest as a single-platform image to the registry.\n"+
		"Image index won't be pushed, meaning that other manifests, including attestations won't be preserved.\n"+
		"'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)")
	f.Bool("disable-content-trust", true, "Skip image signing")
	f.Lookup("disable-content-trust").Hidden = true // Docker accepts it and does nothing
	return &command.Command{Usage: "[OPTIONS] NAME[:TAG]", MinArgs: 1, MaxArgs: 1, Flags: f,
		Long: "Upload an image to a registry", Example: "tare push registry.example/web:1", Run: o.run}
}

type push struct {
	all, quiet  bool
	platform    string
	compression *compression
}

func (o *push) run(ctx context.Context, s *command.Session, args []string) error {
	packed, err := o.compression.check()
	if err != nil {
		return err
	}
	if err := checkPlatform(o.platform); err != nil {
		return err
	}
	if o.platform != "" {
		const note = "Using --platform pushes only the specified platform manifest of a multi-platform image index.\n" +
			"Other components, like attestations, will not be included.\nTo push the complete multi-platform image, remove the --platform flag."
		fmt.Fprintf(s.Out, "\n Info -> %s\n\n", strings.ReplaceAll(note, "\n", "\n         "))
	}
	ref, err := named(s.Out, args[0], o.all, o.quiet)
	if err != nil {
		return err
	}
	cl, err := s.Client()
	if err != nil {
		return err
	}
	options := client.PushOptions{Tag: ref.Tag, Platform: o.platform, Compression: packed}
	var notes []string
	err = progress.Follow(ctx, s.Out, o.quiet, func(ctx context.Context, each func(client.Progress) error) error {
		return cl.ImagePush(ctx, ref.FamiliarRepository(), options, s.Credentials(ref.Domain), func(p client.Progress) error {
			notes = append(notes, pushNote(p.Aux)...)
			return each(p)
		})
	})
	for _, note := range notes {
		fmt.Fprintln(s.Err, "\nInfo -> "+note)
	}
	if err == nil && o.quiet {
		_, err = fmt.Fprintln(s.Out, ref)
	}
	return err
}

// pushNote reads what a push did otherwise than the user may think.
func pushNote(aux json.RawMessage) []string {
	var note struct {
		ManifestPushedInsteadOfIndex bool `json:"manifestPushedInsteadOfIndex"`
		ContentMissing               bool `json:"contentMissing"`
	}
	if len(aux) == 0 || json.Unmarshal(aux, &note) != nil {
		return nil
	}
	switch {
	case note.ContentMissing:
		return []string{"You're trying to push a manifest list/index which references multiple platform specific manifests, " +
			"but not all of them are available locally or available to the remote repository.\n\n" +
			"Make sure you have all the referenced content and try again.\n\n" +
			"You can also push only a single platform specific manifest directly by specifying the platform you want to push with the --platform flag."}
	case note.ManifestPushedInsteadOfIndex:
		return []string{"Not all multiplatform-content is present and only the available single-platform image was pushed"}
	}
	return nil
}

// compression is the pair of flags that say how layers are packed.
type compression struct {
	algorithm string
	level     int
}

func newCompression(f *pflag.FlagSet) *compression {
	c := &compression{}
	f.StringVar(&c.algorithm, "compression", "", "Pack the layers anew (\"gzip\", \"zstd\", \"none\"); else they stay as they are stored")
	f.IntVar(&c.level, "compression-level", 0, "Level of --compression: 1 to 9 for gzip, 1 to 22 for zstd")
	return c
}

func (c *compression) check() (client.Compression, error) {
	most := 0
	switch c.algorithm {
	case "gzip":
		most = 9
	case "zstd":
		most = 22
	case "", "none":
	default:
		return client.Compression{}, fault.New(fault.Invalid, "invalid --compression %q: must be one of \"gzip\", \"zstd\" or \"none\"", c.algorithm)
	}
	switch {
	case c.level != 0 && most == 0:
		return client.Compression{}, fault.New(fault.Invalid, "--compression-level needs --compression gzip or zstd")
	case c.level < 0 || c.level > most:
		return client.Compression{}, fault.New(fault.Invalid, "invalid --compression-level %d: %s takes 1 to %d", c.level, c.algorithm, most)
	}
	return client.Compression{Algorithm: c.algorithm, Level: c.level}, nil
}
