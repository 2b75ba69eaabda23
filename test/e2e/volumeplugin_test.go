package e2e

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// volumePlugin keeps volumes in directories, and counts who uses them.
type volumePlugin struct {
	dir string

	mu      sync.Mutex
	volumes map[string]map[string]string // options by name
	users   map[string][]string          // IDs of mounts
	calls   []string
}

func (p *volumePlugin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var args struct {
		Name, ID string
		Opts     map[string]string
	}
	json.NewDecoder(r.Body).Decode(&args)
	method := strings.TrimPrefix(r.URL.Path, "/")
	p.calls = append(p.calls, strings.TrimPrefix(method, "VolumeDriver.")+" "+args.Name)
	opts, known := p.volumes[args.Name]
	path := filepath.Join(p.dir, args.Name)
	answer := map[string]any{"Err": ""}
	switch method {
	case "Plugin.Activate":
		answer = map[string]any{"Implements": []string{"VolumeDriver"}}
	case "VolumeDriver.Capabilities":
		answer["Capabilities"] = map[string]string{"Scope": "global"}
	case "VolumeDriver.Create":
		if args.Opts["refuse"] != "" {
			answer["Err"] = "not today"
			break
		}
		p.volumes[args.Name] = args.Opts
		os.Mkdir(path, 0o755)
	case "VolumeDriver.List":
		var list []map[string]any
		for name := range p.volumes {
			list = append(list, map[string]any{"Name": name})
		}
		answer["Volumes"] = list
	case "VolumeDriver.Get", "VolumeDriver.Path", "VolumeDriver.Mount", "VolumeDriver.Unmount", "VolumeDriver.Remove":
		if !known {
			answer["Err"] = "no such volume"
			break
		}
		switch method {
		case "VolumeDriver.Get":
			answer["Volume"] = map[string]any{"Name": args.Name, "Mountpoint": path, "Status": map[string]any{"opts": len(opts)}}
		case "VolumeDriver.Mount":
			p.users[args.Name] = append(p.users[args.Name], args.ID)
			answer["Mountpoint"] = path
		case "VolumeDriver.Unmount":
			p.users[args.Name] = slices.DeleteFunc(p.users[args.Name], func(id string) bool { return id == args.ID })
		case "VolumeDriver.Remove":
			delete(p.volumes, args.Name)
			os.RemoveAll(path)
		}
	default:
		w.WriteHeader(http.StatusNotFound)
	}
	json.NewEncoder(w).Encode(answer)
}

func (p *volumePlugin) inUse(name string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.users[name])
}

// TestVolumePlugin has a volume kept by another program, from its making to its
// end, over a daemon that is killed.
func TestVolumePlugin(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.New(t)
	p := &volumePlugin{dir: filepath.Join(d.Dir, "plugin"), volumes: map[string]map[string]string{}, users: map[string][]string{}}
	sockets, driver := filepath.Join(d.Dir, "sockets"), "keeper"
	for _, dir := range []string{sockets, p.dir} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	d.Add("--plugin-dir", sockets)
	l, err := net.Listen("unix", filepath.Join(sockets, driver+".sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: p}
	go server.Serve(l)
	d.AtEnd(server.Close)
	d.Up(t)
	d.ImportBusybox(t)

	d.Tare(t, "volume", "create", "-d", driver, "-o", "a=b", "kept")
	if out := d.Tare(t, "volume", "inspect", "-f", "{{.Driver}} {{.Scope}} {{.Mountpoint}} {{.Status.opts}}", "kept"); out != driver+" global "+p.dir+"/kept 1" {
		t.Errorf("inspect: %s", out)
	}
	if _, err := d.Try("volume", "create", "-d", driver, "-o", "refuse=yes", "other"); err == nil || !strings.Contains(err.Error(), "create other: not today") {
		t.Errorf("what the plugin refuses: %v", err)
	}
	if _, err := d.Try("volume", "create", "kept"); err == nil || !strings.Contains(err.Error(), "create kept: driver '"+driver+"' already has volume 'kept'") {
		t.Errorf("the name of another driver's volume: %v", err)
	}
	d.Tare(t, "run", "--rm", "--volume-driver", driver, "-v", "kept:/k", "busybox", "sh", "-c", "echo text > /k/f")
	if text, err := os.ReadFile(filepath.Join(p.dir, "kept/f")); string(text) != "text\n" {
		t.Errorf("the plugin has %q, %v", text, err)
	}
	if users := p.inUse("kept"); len(users) != 0 {
		t.Errorf("used after the end of a run by %v", users)
	}
	if out := d.Tare(t, "volume", "ls", "--format", "{{.Driver}} {{.Name}} {{.Scope}}"); out != driver+" kept global" {
		t.Errorf("ls: %s", out)
	}

	// A run goes on over the daemon's death, and one that ends meanwhile is told of.
	d.Tare(t, "run", "-d", "--name", "lives", "-v", "kept:/k", "busybox", "sleep", "1000")
	d.Tare(t, "run", "-d", "--name", "ends", "-v", "kept:/k", "busybox", "sh", "-c", "while ! test -e /k/end; do sleep 0.05; done")
	if users := p.inUse("kept"); len(users) != 2 {
		t.Errorf("used by %v", users)
	}
	d.Signal(t, syscall.SIGKILL)
	if err := os.WriteFile(filepath.Join(p.dir, "kept/end"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	d.Up(t)
	d.Tare(t, "wait", "ends")
	testutil.Eventually(t, 10*time.Second, "the plugin is told of the end", func() bool { return len(p.inUse("kept")) == 1 })
	if _, err := d.Try("volume", "rm", "kept"); err == nil || !strings.Contains(err.Error(), "volume is in use") {
		t.Errorf("removed while it is used: %v", err)
	}
	d.Tare(t, "rm", "-f", "lives", "ends")
	if users := p.inUse("kept"); len(users) != 0 {
		t.Errorf("used after all by %v", users)
	}
	d.Tare(t, "volume", "rm", "kept")
	if out := d.Tare(t, "volume", "ls", "-q"); out != "" {
		t.Errorf("left: %s", out)
	}

	// What the plugin has made without us is there, too, and what hangs hides nothing.
	p.mu.Lock()
	p.volumes["theirs"] = nil
	p.mu.Unlock()
	if out := d.Tare(t, "volume", "ls", "-q"); out != "theirs" {
		t.Errorf("ls: %s", out)
	}
	d.Tare(t, "volume", "rm", "theirs")
}
