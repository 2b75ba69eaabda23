package build

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/openat"
)

// checkout is one fetch of a git repository, by the host's git. The repository is
// hostile: no configuration, hook or filter of it or of the host is used, its
// submodules come by the network alone, and what is taken of it lies in it.
type checkout struct {
	job    *Job
	remote string
	ref    string // a branch, tag or commit; "" is what the remote says
	subdir string
	attrs  map[string]string
	dir    string   // where the directories of the checkout are
	env    []string // beside what each git has
}

var (
	commitName = regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`)
	goodRemote = regexp.MustCompile(`^(https?|ssh|git)://[^-]|^[A-Za-z0-9_.]+@[A-Za-z0-9][^:]*:[^-]`)
)

// git has the files of a repository here.
func (j *Job) git(ctx context.Context, rest string, attrs map[string]string) (*output, error) {
	for name := range attrs {
		if strings.HasPrefix(name, "git.sig.") || name == pb.AttrGitBundle || name == pb.AttrGitCheckoutBundle {
			return nil, fault.New(fault.NotImplemented, "%s of a git repository is not supported yet", name)
		}
	}
	where, fragment, _ := strings.Cut(rest, "#")
	c := &checkout{job: j, attrs: attrs}
	if c.remote = attrs[pb.AttrFullRemoteURL]; c.remote == "" {
		c.remote = "https://" + where
	}
	if !goodRemote.MatchString(c.remote) {
		return nil, fault.New(fault.Invalid, "%s is no git repository that can be fetched: use http, https, ssh or git", shown(c.remote))
	}
	c.ref, c.subdir, _ = strings.Cut(fragment, ":")
	if strings.HasPrefix(c.ref, "-") || strings.ContainsAny(c.ref, " \t\n:^~?*[\\") {
		return nil, fault.New(fault.Invalid, "invalid git reference %q", c.ref)
	}
	key, err := json.Marshal(attrs)
	if err != nil {
		return nil, err
	}
	return j.keptDir(ctx, "git source "+shown(c.remote), rest+string(key), true, func(dir string, a *about) error {
		c.dir = filepath.Dir(dir)
		return c.bring(ctx, dir, a)
	})
}

// shown is an address without what it may hold of credentials.
func shown(remote string) string {
	if u, err := url.Parse(remote); err == nil {
		return u.Redacted()
	}
	return remote
}

// bring makes tree what the reference names, unless it is.
func (c *checkout) bring(ctx context.Context, tree string, a *about) error {
	end, err := c.authorize(ctx)
	if err != nil {
		return err
	}
	defer end()
	err = c.update(ctx, tree, a)
	if errors.Is(err, errMoved) { // between the question and the fetch
		err = c.update(ctx, tree, a)
	}
	return err
}

// errMoved is the failure of a fetch whose reference is not the commit any more that
// it was.
var errMoved = errors.New("the git reference moves while it is fetched: build again")

// update does so once.
func (c *checkout) update(ctx context.Context, tree string, a *about) error {
	commit, ref, err := c.find(ctx)
	if err != nil || a.Facts["commit"] == commit {
		return err
	}
	a.Facts = nil
	work := filepath.Join(c.dir, "checkout")
	if err := errors.Join(os.RemoveAll(work), os.Mkdir(work, 0o755)); err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := c.fetch(ctx, work, commit, ref); err != nil {
		return err
	}
	part, err := within(work, c.subdir)
	if err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(tree), os.Rename(part, tree), os.Chmod(tree, 0o755)); err != nil {
		return err
	}
	a.Facts = map[string]string{"commit": commit}
	return nil
}

// within finds a directory of a tree, to which no link leads from outside.
func within(work, subdir string) (string, error) {
	if filepath.Join("/", subdir) == "/" {
		return work, nil
	}
	top, err := os.Open(work)
	if err != nil {
		return "", err
	}
	defer top.Close()
	fd, err := openat.Open(int(top.Fd()), strings.Trim(subdir, "/"), unix.O_PATH|unix.O_DIRECTORY, openat.Beneath)
	if err != nil {
		return "", fault.New(fault.Invalid, "the git repository has no directory %s: %w", subdir, err)
	}
	f := os.NewFile(uintptr(fd), subdir)
	defer f.Close()
	path, err := os.Readlink(fdPath(f))
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(path+"/", filepath.Join(work, ".git")+"/") {
		return "", fault.New(fault.Invalid, "the directory %s is git's own", subdir)
	}
	return path, nil
}

// find asks the remote which commit the reference is. A commit is itself, and one that
// the client names beside the reference can be had without it.
func (c *checkout) find(ctx context.Context) (commit, ref string, err error) {
	want := c.attrs[pb.AttrGitChecksum]
	if commitName.MatchString(c.ref) {
		return c.ref, "", fits(want, c.ref, "")
	}
	if c.attrs[pb.AttrGitFetchByCommit] == "true" {
		if !commitName.MatchString(want) {
			return "", "", fault.New(fault.Invalid, "fetch-by-commit requires a full commit SHA checksum, got %q", want)
		}
		return want, "", nil
	}
	name := c.ref
	if name == "" {
		name = "HEAD"
	}
	out, err := c.git(ctx, c.dir, "ls-remote", "--", c.remote, name, name+"^{}")
	if err != nil {
		return "", "", err
	}
	found := map[string]string{}
	for line := range strings.Lines(out) {
		if id, full, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok && commitName.MatchString(id) {
			found[full] = id
		}
	}
	names := []string{name}
	if name != "HEAD" {
		names = []string{"refs/" + strings.TrimPrefix(name, "refs/"), "refs/heads/" + name, "refs/tags/" + name} // a branch goes first, as with git checkout
	}
	for _, full := range names {
		if id := found[full]; id != "" {
			tag := ""
			if peeled := found[full+"^{}"]; peeled != "" { // what an annotated tag is of
				id, tag = peeled, id
			}
			return id, full, fits(want, id, tag)
		}
	}
	return "", "", fault.New(fault.NotFound, "repository does not contain ref %s", name)
}

// fits holds a commit, and the tag that it was found by, to what the client says that it is.
func fits(want, commit, tag string) error {
	switch {
	case strings.HasPrefix(commit, want) || tag != "" && strings.HasPrefix(tag, want):
		return nil
	case tag != "":
		return fault.New(fault.Invalid, "expected checksum to match %s, got %s or %s", want, tag, commit)
	}
	return fault.New(fault.Invalid, "expected checksum to match %s, got %s", want, commit)
}

func (c *checkout) fetch(ctx context.Context, work, commit, ref string) error {
	if _, err := c.git(ctx, work, "init", "--quiet", "--template="); err != nil {
		return err
	}
	want := ref
	if ref == "" {
		want = commit
	}
	_, err := c.git(ctx, work, "fetch", "--quiet", "--depth=1", "--no-tags", "--", c.remote, want)
	if err != nil && ref == "" { // not all servers give a commit by its name
		_, err = c.git(ctx, work, "fetch", "--quiet", "--", c.remote, "+refs/*:refs/remotes/origin/*")
	}
	if err != nil {
		return err
	}
	if ref != "" {
		if got, err := c.git(ctx, work, "rev-parse", "FETCH_HEAD^{commit}"); err != nil || strings.TrimSpace(got) != commit {
			return errors.Join(err, errMoved)
		}
	}
	if _, err := c.git(ctx, work, "remote", "add", "origin", "--", c.remote); err != nil { // submodules may be named relative to it
		return err
	}
	if _, err := c.git(ctx, work, "checkout", "--quiet", "--detach", commit); err != nil {
		return err
	}
	if c.attrs[pb.AttrGitSkipSubmodules] != "true" {
		if _, err := os.Lstat(filepath.Join(work, ".gitmodules")); err == nil {
			if _, err := c.git(ctx, work, "submodule", "update", "--init", "--recursive", "--depth=1", "--quiet"); err != nil {
				return err
			}
		}
	}
	var when string
	if c.attrs[pb.AttrGitMTime] == "commit" {
		if when, err = c.git(ctx, work, "show", "--no-patch", "--format=%ct", commit); err != nil {
			return err
		}
	}
	if c.attrs[pb.AttrKeepGitDir] != "true" || strings.Trim(c.subdir, "/") != "" {
		err = dropGit(work)
	} else {
		err = c.forgetUser(work)
	}
	if err != nil {
		return err
	}
	return setAll(work, strings.TrimSpace(when))
}

// dropGit removes git's own files, those of submodules too.
func dropGit(work string) error {
	return filepath.WalkDir(work, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != ".git" {
			return err
		}
		if err := os.RemoveAll(path); err != nil || !d.IsDir() {
			return err
		}
		return fs.SkipDir
	})
}

// forgetUser takes the user and password of the remote out of git's own files,
// which become the image's.
func (c *checkout) forgetUser(work string) error {
	scheme, rest, _ := strings.Cut(c.remote, "://")
	host, _, _ := strings.Cut(rest, "/")
	i := strings.LastIndexByte(host, '@')
	if i < 0 || scheme == "ssh" && !strings.Contains(host[:i], ":") { // of ssh the user is no secret
		return nil
	}
	root, err := os.OpenRoot(filepath.Join(work, ".git"))
	if err != nil {
		return err
	}
	defer root.Close()
	with, without := []byte(scheme+"://"+host[:i+1]), []byte(scheme+"://")
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "config" && d.Name() != "FETCH_HEAD" || !d.Type().IsRegular() {
			return err
		}
		text, err := root.ReadFile(name)
		if err != nil || !bytes.Contains(text, with) {
			return err
		}
		return root.WriteFile(name, bytes.ReplaceAll(text, with, without), 0o644)
	})
}

// setAll gives all files the time of the commit, in seconds.
func setAll(work, when string) error {
	seconds, err := strconv.ParseInt(when, 10, 64)
	if err != nil {
		return nil // it is not asked for
	}
	ts := unix.Timespec{Sec: seconds}
	return filepath.WalkDir(work, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// authorize finds the client's credentials for the remote.
func (c *checkout) authorize(ctx context.Context) (end func(), err error) {
	end = func() {}
	header := ""
	u, err := url.Parse(c.remote)
	for attr, form := range map[string]func(string) string{
		pb.AttrAuthTokenSecret: func(s string) string {
			return "basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:"+s))
		},
		pb.AttrAuthHeaderSecret: func(s string) string { return s },
	} {
		if id := c.attrs[attr]; id != "" && err == nil && (u.Scheme == "http" || u.Scheme == "https") {
			if data, serr := c.job.session.Secret(ctx, id+"."+u.Host); serr == nil {
				header = form(string(data))
			} else if data, serr := c.job.session.Secret(ctx, id); serr == nil {
				header = form(string(data))
			}
		}
	}
	if header != "" { // in the environment, where ps does not show it, and for this host alone
		c.env = append(c.env, "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http."+u.Scheme+"://"+u.Host+"/.extraheader", "GIT_CONFIG_VALUE_0=Authorization: "+header)
	}
	id := c.attrs[pb.AttrMountSSHSock]
	if id == "" {
		return end, nil
	}
	dir, err := os.MkdirTemp(c.job.solver.Steps, ".ssh")
	if err != nil {
		return end, err
	}
	known := filepath.Join(dir, "known_hosts")
	stop, err := c.job.listenAgent(ctx, id, filepath.Join(dir, "agent"))
	if err == nil {
		err = os.WriteFile(known, []byte(c.attrs[pb.AttrKnownSSHHosts]), 0o600)
	} else {
		stop = func() error { return nil }
	}
	strict := "yes"
	if c.attrs[pb.AttrKnownSSHHosts] == "" {
		strict = "accept-new"
	}
	c.env = append(c.env, "SSH_AUTH_SOCK="+filepath.Join(dir, "agent"),
		"GIT_SSH_COMMAND=ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking="+strict+" -o UserKnownHostsFile="+known)
	return func() { _ = stop(); os.RemoveAll(dir) }, err
}

// settings are given to each git.
var settings = []string{
	"-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.symlinks=true", "-c", "advice.detachedHead=false",
	"-c", "protocol.allow=never", "-c", "protocol.http.allow=always", "-c", "protocol.https.allow=always",
	"-c", "protocol.ssh.allow=always", "-c", "protocol.git.allow=always", "-c", "gc.auto=0", "-c", "maintenance.auto=false",
}

// git runs one git in a directory, and returns what it says.
func (c *checkout) git(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append(append([]string{}, settings...), args...)...)
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_TERMINAL_PROMPT=0", "GIT_CEILING_DIRECTORIES=" + c.dir, "LC_ALL=C"}, c.env...)
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"} {
		if v := os.Getenv(name); v != "" {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	switch {
	case err == nil:
		return out.String(), nil
	case errors.Is(err, exec.ErrNotFound):
		return "", fault.New(fault.Unavailable, "building from a git repository needs the program git on this machine: install it")
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	}
	text := strings.ReplaceAll(strings.TrimSpace(said.String()), c.remote, shown(c.remote))
	return "", fault.New(fault.Invalid, "git %s of %s failed: %s", args[0], shown(c.remote), text)
}
