package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// What is built.
const (
	steps     = 20
	bigFiles  = 50
	bigSize   = 10_000_000
	manyDirs  = 200
	manyFiles = 100 // in each
)

// builder is a command that builds, on an engine.
type builder struct {
	name   string
	engine *engine
	dir    string // of its own contexts
	build  func(args ...string) *exec.Cmd
}

// benchBuilds measures builds: by ours with our command and with docker's, and by
// BuildKit in docker, of the tree if there is one.
func benchBuilds(t *table, dir string, bin, image string, runs int) error {
	list := engines(dir, bin)[:2]
	if e := treeEngine(dir); e != nil {
		list[1] = e
	}
	ready, stop := startEngines(t, list, image)
	defer stop()
	var builders []*builder
	for i, e := range ready {
		own := &builder{name: e.name, engine: e, dir: filepath.Join(dir, fmt.Sprintf("contexts%d", i))}
		own.build = func(args ...string) *exec.Cmd { return e.command(append([]string{"build", "-q"}, args...)...) }
		if e.daemon[0] == "dockerd" {
			own.build = func(args ...string) *exec.Cmd { return buildx(e, e.client[2], args) }
		}
		builders = append(builders, own)
	}
	if len(ready) == 2 {
		foreign := &builder{name: "docker's client, tare", engine: ready[0], dir: filepath.Join(dir, "contexts2")}
		foreign.build = func(args ...string) *exec.Cmd { return buildx(ready[1], ready[0].client[2], args) }
		builders = []*builder{builders[0], foreign, builders[1]}
	}
	for _, b := range builders {
		if err := b.write(); err != nil {
			return err
		}
	}
	measureBuilds(t, builders, runs)
	return nil
}

// buildx is a build by docker's client of the engine e, with any daemon.
func buildx(e *engine, socket string, args []string) *exec.Cmd {
	args = append([]string{"docker", "-H", socket, "build", "-q"}, args...)
	if e.tree != "" {
		return e.inTree(args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=1")
	return cmd
}

// write makes the contexts.
func (b *builder) write() error {
	files := map[string]string{
		"steps/Dockerfile":  "FROM busybox\n" + strings.Repeat("RUN true\n", steps),
		"big/Dockerfile":    "FROM busybox\nCOPY . /c\n",
		"many/Dockerfile":   "FROM busybox\nCOPY . /c\n",
		"stages/Dockerfile": stages(4), "stage/Dockerfile": stages(1),
		"end/Dockerfile": lastStep,
	}
	for d := range manyDirs {
		for f := range manyFiles {
			files[fmt.Sprintf("many/d%d/f%d", d, f)] = strings.Repeat(fmt.Sprintf("%d %d ", d, f), 400)
		}
	}
	for name, text := range files {
		path := filepath.Join(b.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	for n := range bigFiles {
		if err := b.renew(n); err != nil {
			return err
		}
	}
	return nil
}

// loop is what a stage computes.
const loop = "i=0; while [ $i -lt 1000000 ]; do i=$((i+1)); done"

// bareLoops does what n stages do without a build, two at a time: two processors of a
// machine need not be twice one.
func bareLoops(n int) (float64, error) {
	var g errgroup.Group
	g.SetLimit(2)
	begin := time.Now()
	for range n {
		g.Go(exec.Command("sh", "-c", loop).Run)
	}
	err := g.Wait()
	return ms(time.Since(begin)), err
}

// stages is a Dockerfile of stages that work beside each other, each with one thread:
// a pipe would have two.
func stages(n int) string {
	var from, end strings.Builder
	for i := range n {
		fmt.Fprintf(&from, "FROM busybox AS s%d\nRUN : %[1]d; %[2]s; echo $i > /sum\n", i, loop)
		fmt.Fprintf(&end, "COPY --from=s%d /sum /sum%d\n", i, i)
	}
	return from.String() + "FROM busybox\n" + end.String()
}

// renew gives a big file new content.
func (b *builder) renew(n int) error {
	data := make([]byte, bigSize)
	_, _ = rand.Read(data) // never fails
	return os.WriteFile(filepath.Join(b.dir, "big", fmt.Sprintf("f%d", n)), data, 0o644)
}

func measureBuilds(t *table, builders []*builder, runs int) {
	each := func(run func(b *builder) (float64, error)) (list []subject) {
		for _, b := range builders {
			list = append(list, subject{b.name, func() (float64, error) { return run(b) }})
		}
		return list
	}
	once := func(context string, args ...string) []subject {
		return each(func(b *builder) (float64, error) { return try(b.build(append(args, filepath.Join(b.dir, context))...)) })
	}
	t.compare("build: 20 steps RUN true, nothing cached", blocks, 0, once("steps", "--no-cache"))
	t.compare("the same, all cached", runs, 0, once("steps"))
	t.compare("build: COPY of 50 x 10 MB, one changed", blocks, 0, each(func(b *builder) (float64, error) {
		// Half of the files come before it in the archive, half behind it.
		if err := b.renew(3); err != nil {
			return 0, err
		}
		return try(b.build(filepath.Join(b.dir, "big")))
	}))
	t.compare("build: COPY of 20,000 files", blocks, 0, once("many", "--no-cache"))
	t.compare("build: one stage that computes", blocks, 0, once("stage", "--no-cache"))
	t.compare("build: four such stages", blocks, 0, once("stages", "--no-cache"))
	for _, n := range []int{1, 4} {
		if t.only != "" {
			break
		}
		if took, err := bareLoops(n); err == nil {
			t.add(fmt.Sprintf("the work of %d stages by sh, without a build, two at a time", n), "ms", builders[0].name, took)
		}
	}
	measureLast(t, builders)
}
