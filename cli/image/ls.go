package image

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/format"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
	"github.com/tarehq/tare/fault"
)

// Ls is the command image ls, or images.
//
// By itself it shows one line for each name, with what the image takes on the
// disk, what it is on the way, and whether a container uses it; --tree shows the
// platforms below it. The flags of the older table of repositories and tags
// still give that table, and so does imagesFormat of config.json.
func Ls() *command.Command {
	f := command.NewFlags()
	o := &ls{filter: option.NewFilter(f)}
	f.BoolVar(&o.tree, "tree", false, "List multi-platform images as a tree")
	f.BoolVarP(&o.all, "all", "a", false, "Show all images (default hides intermediate images)")
	f.BoolVar(&o.digests, "digests", false, "Show digests")
	f.StringVar(&o.format, "format", "", option.FormatTable)
	f.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Only show image IDs")
	return &command.Command{Usage: "[OPTIONS] [REPOSITORY[:TAG]]", MaxArgs: 1, Flags: f, Example: "tare images --filter dangling=true -q", Run: o.run}
}

type ls struct {
	all, digests, noTrunc, quiet, tree bool
	format                             string
	filter                             *option.Filter
}

func (o *ls) run(ctx context.Context, s *command.Session, args []string) error {
	cl, err := s.Client()
	if err != nil {
		return err
	}
	if len(args) == 1 {
		o.filter.Filters["reference"] = append(o.filter.Filters["reference"], args[0])
	}
	text := o.format
	if text == "" && !o.quiet {
		text = s.Config().ImagesFormat
	}
	asTable := text != "" || o.quiet || o.noTrunc || o.digests
	if o.tree {
		if asTable, err = false, o.checkTree(); err != nil {
			return err
		}
	}
	images, err := cl.ImageList(ctx, client.ImageListOptions{All: o.all, Manifests: !asTable, Brief: !o.tree && !o.byDigest(text), Filters: o.filter.Filters})
	if err != nil {
		return err
	}
	if !o.all && o.filter.Filters["dangling"] == nil {
		images = slices.DeleteFunc(images, func(i client.ImageSummary) bool { return untagged(&i) })
	}
	if !asTable {
		return o.view(s, images)
	}
	slices.SortStableFunc(images, func(a, b client.ImageSummary) int { return cmp.Compare(b.Created, a.Created) })
	var rows []any
	for i := range images {
		for _, r := range o.rows(&images[i], text) {
			rows = append(rows, r)
		}
	}
	return o.table().Write(s.Out, text, o.quiet, rows)
}

// checkTree refuses the flags that only the table knows.
func (o *ls) checkTree() error {
	for name, set := range map[string]bool{"quiet": o.quiet, "no-trunc": o.noTrunc, "digests": o.digests, "format": o.format != ""} {
		if set {
			return fault.New(fault.Invalid, "--%s is not yet supported with --tree", name)
		}
	}
	return nil
}

// untagged is true for an image that has no name at all.
func untagged(i *client.ImageSummary) bool {
	for _, names := range [][]string{i.RepoTags, i.RepoDigests} {
		for _, name := range names {
			if !strings.HasPrefix(name, none) {
				return false
			}
		}
	}
	return true
}

func (o *ls) table() format.Table {
	t := format.Table{
		Columns: map[string]string{"ID": "IMAGE ID", "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST",
			"CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "Size": "SIZE", "Containers": "CONTAINERS",
			"VirtualSize": "SIZE", "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE"},
		Default: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
		Quiet:   "{{.ID}}",
		Raw:     "repository=Repository tag=Tag image_id=ID created_at=CreatedAt virtual_size=Size",
	}
	if o.digests {
		t.Raw = "repository=Repository tag=Tag digest=Digest image_id=ID created_at=CreatedAt virtual_size=Size"
		t.Default = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
	}
	return t
}

// Row is one name of an image as a template sees it. The fields are those of
// docker images --format json.
type Row struct {
	Containers, CreatedAt, CreatedSince, Digest, ID, Repository, SharedSize, Size, Tag, UniqueSize, VirtualSize string
}

const none = "<none>"

// NewRow renders an image by the first of its names; short cuts its ID.
func NewRow(i *client.ImageSummary, short bool) Row {
	o := ls{noTrunc: !short}
	r := o.rows(i, "")[0]
	r.Digest = ""
	return r
}

// base is what the rows of an image have in common.
func (o *ls) base(i *client.ImageSummary) Row {
	r := Row{ID: i.Id, CreatedAt: time.Unix(i.Created, 0).String(), Containers: count(i.Containers), Repository: none, Tag: none,
		Digest: none, Size: format.Size(float64(i.Size)), VirtualSize: format.SizeFine(float64(i.Size)), SharedSize: "N/A", UniqueSize: "N/A"}
	if i.Created > 0 {
		r.CreatedSince = format.Ago(i.Created)
	} else {
		r.CreatedSince = "N/A"
	}
	if !o.noTrunc {
		r.ID = format.ShortID(i.Id)
	}
	if i.SharedSize >= 0 {
		r.SharedSize = format.Size(float64(i.SharedSize))
		r.UniqueSize = format.Size(float64(i.Size - i.SharedSize))
	}
	return r
}

// byDigest tells whether the digests of names are shown.
func (o *ls) byDigest(text string) bool { return o.digests || strings.Contains(text, ".Digest") }

// rows makes one row for every name of an image, and for every digest of a
// name where digests are shown.
func (o *ls) rows(i *client.ImageSummary, text string) []Row {
	digests := o.byDigest(text)
	base := o.base(i)
	byRepo := map[string][]string{}
	for _, name := range i.RepoDigests {
		repo, digest, _ := strings.Cut(name, "@")
		if repo != none {
			byRepo[repo] = append(byRepo[repo], digest)
		}
	}
	var out []Row
	add := func(repo, tag, digest string) {
		r := base
		r.Repository, r.Tag, r.Digest = repo, tag, digest
		out = append(out, r)
	}
	tagged := map[string]bool{}
	for _, name := range i.RepoTags {
		at := strings.LastIndexByte(name, ':')
		if at < 0 || name == "<none>:<none>" {
			continue
		}
		repo, tag := name[:at], name[at+1:]
		tagged[repo] = true
		if !digests || len(byRepo[repo]) == 0 {
			add(repo, tag, none)
			continue
		}
		for _, digest := range byRepo[repo] {
			add(repo, tag, digest)
		}
	}
	for _, name := range i.RepoDigests {
		repo, digest, _ := strings.Cut(name, "@")
		if repo == none || tagged[repo] {
			continue
		}
		if !digests {
			digest = none
			tagged[repo] = true
		}
		add(repo, none, digest)
	}
	if len(out) == 0 {
		out = append(out, base)
	}
	return out
}

func count(n int64) string {
	if n < 0 {
		return "N/A"
	}
	return strconv.FormatInt(n, 10)
}
