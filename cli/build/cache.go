package build

import (
	"context"
	"fmt"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/format"
	"github.com/tarehq/tare/cli/option"
	"github.com/tarehq/tare/client"
)

// Prune is the command builder prune. Where buildx is installed it has the word.
func Prune() *command.Command {
	f := command.NewFlags()
	filter := option.NewPruneFilter(f, "until=24h")
	ceilings := map[string]*option.Bytes{"keep-storage": {}, "reserved-space": {}, "max-used-space": {}, "min-free-space": {}}
	all := f.BoolP("all", "a", false, "Remove all unused build cache, not just dangling ones")
	force := f.BoolP("force", "f", false, "Do not prompt for confirmation")
	f.Var(ceilings["keep-storage"], "keep-storage", "Amount of disk space to keep for cache; the same as --reserved-space")
	f.Var(ceilings["reserved-space"], "reserved-space", "Amount of disk space always allowed to keep for cache")
	f.Var(ceilings["max-used-space"], "max-used-space", "Maximum amount of disk space allowed to keep for cache")
	f.Var(ceilings["min-free-space"], "min-free-space", "Target amount of free disk space after pruning")
	return &command.Command{Usage: "[OPTIONS]", Flags: f, Long: "Remove build cache", Run: func(ctx context.Context, s *command.Session, _ []string) error {
		cl, err := s.Client()
		if err != nil {
			return err
		}
		if !*force {
			question := "WARNING! This will remove all dangling build cache. Are you sure you want to continue?"
			if *all {
				question = "WARNING! This will remove all build cache. Are you sure you want to continue?"
			}
			if yes, err := command.Confirm(ctx, s, question); err != nil || !yes {
				return err
			}
		}
		sizes := map[string]int64{}
		for name, v := range ceilings {
			if n := v.N; n > 0 {
				sizes[name] = n
			}
		}
		report, err := cl.BuildPruneTo(ctx, *all, sizes, filter.Filters)
		if err != nil {
			return err
		}
		if len(report.CachesDeleted) > 0 {
			fmt.Fprintln(s.Out, "Deleted build cache objects:")
			for _, id := range report.CachesDeleted {
				fmt.Fprintln(s.Out, id)
			}
			fmt.Fprintln(s.Out)
		}
		_, err = fmt.Fprintf(s.Out, "Total:\t%s\n", format.SizeFine(float64(report.SpaceReclaimed)))
		return err
	}}
}

// Du is the command builder du. Where buildx is installed it has the word.
func Du() *command.Command {
	return &command.Command{Flags: command.NewFlags(), Long: "Show the disk usage of the build cache", Run: func(ctx context.Context, s *command.Session, _ []string) error {
		cl, err := s.Client()
		if err != nil {
			return err
		}
		usage, err := cl.DiskUsage(ctx, true)
		if err != nil || usage.BuildCacheUsage == nil {
			return err
		}
		w := tabwriter.NewWriter(s.Out, 0, 0, 3, ' ', 0)
		fmt.Fprintln(w, "ID\tRECLAIMABLE\tSIZE\tLAST ACCESSED")
		var shared, total int64
		for i := range usage.BuildCacheUsage.Items {
			r := &usage.BuildCacheUsage.Items[i]
			size := format.Size(float64(r.Size))
			if total += r.Size; r.Shared {
				shared += r.Size
				size += "*"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.ID, strconv.FormatBool(!r.InUse), size, lastUsed(r))
		}
		fmt.Fprintf(w, "Shared:\t%s\nPrivate:\t%s\nReclaimable:\t%s\nTotal:\t%s\n", format.Size(float64(shared)), format.Size(float64(total-shared)),
			format.Size(float64(usage.BuildCacheUsage.Reclaimable)), format.Size(float64(total)))
		return w.Flush()
	}}
}

func lastUsed(r *client.CacheRecord) string {
	if r.LastUsedAt == nil {
		return ""
	}
	t, err := time.Parse(time.RFC3339Nano, *r.LastUsedAt)
	if err != nil {
		return ""
	}
	return format.Ago(t.Unix())
}
