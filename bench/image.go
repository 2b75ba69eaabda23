package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/test/images"
	"github.com/tarehq/tare/test/registry"
)

// The image that is pulled: 400 MB in 20,000 files and ten layers, which gzip
// makes about a quarter of.
var pulled = images.Spec{Layers: 10, Files: 2000, Size: 20_000, Seed: 1, Docker: true}

const (
	many     = 1000             // images to list
	patience = 60 * time.Second // with who lists them
)

// imageBench is what the measurements of images share.
type imageBench struct {
	dir   string
	image *images.Image
	added int // images with a new layer so far
}

// site is an engine with the registries in its network namespace.
type site struct {
	*engine
	from *registry.Registry // has the image, all engines' is on the same directory
	to   *registry.Registry // what is pushed to
}

// benchImages measures the pulling, pushing, listing and removing of images.
func benchImages(t *table, dir string, list []*engine, runs int) error {
	b := &imageBench{dir: dir}
	var err error
	if b.image, err = images.Write(filepath.Join(dir, "layout"), pulled); err != nil {
		return err
	}
	if err := b.limits(t); err != nil {
		return err
	}
	var sites []*site
	for _, e := range list {
		s := &site{engine: e}
		defer s.end()
		if err := b.settle(s); err != nil {
			t.note("images, %s: %v", e.name, err)
			continue
		}
		sites = append(sites, s)
	}
	b.pulls(t, sites, runs)
	b.pushes(t, sites, runs)
	return b.lists(t, sites, runs)
}

// settle starts the engine's registries. The first one's storage is shared.
func (b *imageBench) settle(s *site) (err error) {
	within := s.inside().Args
	shared := filepath.Join(b.dir, "registry")
	if s.from, err = registry.Run(registry.Options{Within: within, Storage: shared}); err != nil {
		return err
	}
	if s.to, err = registry.Run(registry.Options{Within: within}); err != nil {
		return err
	}
	if err := b.copy(s, b.image.Ref(), s.from.Host+"/big:1"); err != nil {
		return err
	}
	return b.copy(s, b.image.Ref(), s.to.Host+"/known:base")
}

func (s *site) end() {
	for _, r := range []*registry.Registry{s.from, s.to} {
		if r != nil {
			_ = r.Remove()
		}
	}
}

// copy puts an image into a registry of the engine's namespace.
func (b *imageBench) copy(s *site, source, target string) error {
	cmd := s.inside("skopeo", "--insecure-policy", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false", source, "docker://"+target)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("skopeo: %w: %s", err, out)
	}
	return nil
}

// transfer is a pull or push command.
func (s *site) transfer(verb, ref string) []string {
	if s.name == "podman" {
		return []string{verb, "--quiet", "--tls-verify=false", ref}
	}
	return []string{verb, "--quiet", ref}
}

// calm waits until what was removed is gone, and what was written is on disk.
func (s *site) calm() {
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		left, _ := os.ReadDir(filepath.Join(s.dir, "data", "snapshot", "trash"))
		if len(left) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	syscall.Sync()
	time.Sleep(rest)
}

// pulls measures pull and rmi by turns.
func (b *imageBench) pulls(t *table, sites []*site, runs int) {
	costs, removed := map[*site][]cost{}, map[*site][]float64{}
	for range runs {
		for _, s := range slices.Clone(sites) {
			c, took, err := b.pull(s)
			if err != nil {
				t.note("pull, %s: %v", s.name, err)
				sites = slices.DeleteFunc(sites, func(o *site) bool { return o == s })
				continue
			}
			costs[s], removed[s] = append(costs[s], c), append(removed[s], took)
		}
	}
	for _, s := range sites {
		t.add("pull of 400 MB, 20,000 files", "ms", s.name, medianOf(costs[s], func(c cost) float64 { return c.wall }))
		t.add("the same, CPU of client and daemon", "ms", s.name, medianOf(costs[s], func(c cost) float64 { return c.cpu }))
		t.add("the same, peak memory", "MB", s.name, medianOf(costs[s], func(c cost) float64 { return c.peak }))
		t.add("rmi of it", "ms", s.name, median(removed[s]))
	}
}

func (b *imageBench) pull(s *site) (c cost, removal float64, err error) {
	ref := s.from.Host + "/big:1"
	s.calm()
	if c, err = s.costOf(s.transfer("pull", ref)...); err != nil {
		return c, 0, err
	}
	s.calm()
	removal, err = try(s.command("rmi", ref))
	return c, removal, err
}

func medianOf(list []cost, of func(cost) float64) float64 {
	var values []float64
	for _, c := range list {
		values = append(values, of(c))
	}
	return median(values)
}

// pushes measures the push of the image with a new layer of a megabyte, whose
// other layers the registry has.
func (b *imageBench) pushes(t *table, sites []*site, runs int) {
	for _, s := range slices.Clone(sites) {
		if _, err := try(s.command(s.transfer("pull", s.from.Host+"/big:1")...)); err != nil {
			t.note("push, %s: %v", s.name, err)
			sites = slices.DeleteFunc(sites, func(o *site) bool { return o == s })
		}
	}
	costs := map[*site][]cost{}
	for range runs {
		for _, s := range slices.Clone(sites) {
			c, err := b.push(s)
			if err != nil {
				t.note("push, %s: %v", s.name, err)
				sites = slices.DeleteFunc(sites, func(o *site) bool { return o == s })
				continue
			}
			costs[s] = append(costs[s], c)
		}
	}
	for _, s := range sites {
		t.add("push of a new layer of 1 MB on it", "ms", s.name, medianOf(costs[s], func(c cost) float64 { return c.wall }))
		t.add("the same push, CPU of client and daemon", "ms", s.name, medianOf(costs[s], func(c cost) float64 { return c.cpu }))
	}
}

func (b *imageBench) push(s *site) (cost, error) {
	b.added++
	tag := strconv.Itoa(b.added)
	grown, err := images.Write(b.image.Dir, images.Spec{On: b.image, Files: 50, Size: 20_000, Seed: 1000 + uint64(b.added), Docker: true, Tag: tag})
	if err != nil {
		return cost{}, err
	}
	source, target := s.from.Host+"/big:plus"+tag, s.to.Host+"/known:plus"+tag
	if err := b.copy(s, grown.Ref(), source); err != nil {
		return cost{}, err
	}
	for _, args := range [][]string{s.transfer("pull", source), {"tag", source, target}} {
		if _, err := try(s.command(args...)); err != nil {
			return cost{}, err
		}
	}
	s.calm()
	return s.costOf(s.transfer("push", target)...)
}

// lists measures the listing of many images.
func (b *imageBench) lists(t *table, sites []*site, runs int) error {
	archive := filepath.Join(b.dir, "many.tar")
	if err := writeMany(archive); err != nil {
		return err
	}
	var subjects []subject
	for _, s := range sites {
		var err error
		for _, args := range [][]string{{"load", "-q", "-i", archive}, {"images"}} {
			if _, err = tryFor(patience, s.command(args...)); err != nil {
				break
			}
		}
		if err != nil {
			t.note("%d images, %s: %v", many, s.name, err)
			continue
		}
		subjects = append(subjects, subject{s.name, func() (float64, error) { return try(s.command("images")) }})
	}
	t.compare(fmt.Sprintf("images, of %d", many), 4*runs, 0, subjects)
	return nil
}

// writeMany makes a docker-archive of many images over one small layer.
func writeMany(path string) error {
	var layer bytes.Buffer
	tw := tar.NewWriter(&layer)
	if err := tw.WriteHeader(&tar.Header{Name: "file", Typeflag: tar.TypeReg, Mode: 0o644}); err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return err
	}
	diff := digest.FromBytes(layer.Bytes())
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	out := tar.NewWriter(f)
	file := func(name string, data []byte) error {
		if err := out.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data))}); err != nil {
			return err
		}
		_, err := out.Write(data)
		return err
	}
	if err := file("layer.tar", layer.Bytes()); err != nil {
		return err
	}
	type archived struct {
		Config           string
		RepoTags, Layers []string
	}
	var manifest []archived
	for i := range many {
		config, err := json.Marshal(map[string]any{
			"created": "2026-01-01T00:00:00Z", "architecture": "amd64", "os": "linux",
			"config":  map[string]any{"Labels": map[string]string{"number": strconv.Itoa(i)}},
			"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{diff.String()}},
			"history": []map[string]any{{"created": "2026-01-01T00:00:00Z"}},
		})
		if err != nil {
			return err
		}
		name := digest.FromBytes(config).Encoded() + ".json"
		if err := file(name, config); err != nil {
			return err
		}
		manifest = append(manifest, archived{name, []string{fmt.Sprintf("many/image%d:latest", i)}, []string{"layer.tar"}})
	}
	data, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	if err := file("manifest.json", data); err != nil {
		return err
	}
	return out.Close()
}
