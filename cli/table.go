package cli

import (
	"github.com/tarehq/tare/cli/build"
	"github.com/tarehq/tare/cli/checkpoint"
	"github.com/tarehq/tare/cli/command"
	"github.com/tarehq/tare/cli/container"
	"github.com/tarehq/tare/cli/contexts"
	"github.com/tarehq/tare/cli/image"
	"github.com/tarehq/tare/cli/manifest"
	"github.com/tarehq/tare/cli/network"
	"github.com/tarehq/tare/cli/registry"
	"github.com/tarehq/tare/cli/system"
	"github.com/tarehq/tare/cli/volume"
)

// entry is one command: its names and what the lists say about it. The table
// is data that the linker lays out; the command itself is built when it is
// called.
type entry struct {
	noun    string // "" for a command that belongs to none
	verb    string
	aliases []string // further verbs
	top     []string // names without the noun
	short   string
	build   func() *command.Command
}

// group is a noun and what the list of nouns says about it.
type group struct{ noun, short string }

var groups = [...]group{
	{"builder", "Manage builds"},
	{"checkpoint", "Manage checkpoints"},
	{"container", "Manage containers"},
	{"context", "Manage contexts"},
	{"image", "Manage images"},
	{"manifest", "Manage image manifests and manifest lists"},
	{"network", "Manage networks"},
	{"registry", "Run a registry of your own"},
	{"system", "Manage the engine"},
	{"volume", "Manage volumes"},
}

// common are the commands that tare --help shows first.
var common = [...]string{"run", "exec", "ps", "build", "pull", "push", "images", "login", "logout", "search", "version", "info"}

var table = [...]entry{
	{"builder", "du", nil, nil, "Show the disk usage of the build cache", build.Du},
	{"builder", "prune", nil, nil, "Remove build cache", build.Prune},
	{"container", "attach", nil, []string{"attach"}, "Attach local standard input, output, and error streams to a running container", container.Attach},
	{"container", "commit", nil, []string{"commit"}, "Create a new image from a container's changes", container.Commit},
	{"container", "create", nil, []string{"create"}, "Create a new container", container.Create},
	{"container", "cp", nil, []string{"cp"}, "Copy files/folders between a container and the local filesystem", container.Cp},
	{"container", "diff", nil, []string{"diff"}, "Inspect changes to files or directories on a container's filesystem", container.Diff},
	{"container", "exec", nil, []string{"exec"}, "Execute a command in a running container", container.Exec},
	{"container", "export", nil, []string{"export"}, "Export a container's filesystem as a tar archive", container.Export},
	{"container", "inspect", nil, nil, "Display detailed information on one or more containers", system.InspectContainer},
	{"container", "kill", nil, []string{"kill"}, "Kill one or more running containers", container.Kill},
	{"container", "logs", nil, []string{"logs"}, "Fetch the logs of a container", container.Logs},
	{"container", "ls", []string{"list", "ps"}, []string{"ps"}, "List containers", container.Ls},
	{"container", "pause", nil, []string{"pause"}, "Pause all processes within one or more containers", container.Pause},
	{"container", "port", nil, []string{"port"}, "List port mappings or a specific mapping for the container", container.Port},
	{"container", "prune", nil, nil, "Remove all stopped containers", container.Prune},
	{"container", "rename", nil, []string{"rename"}, "Rename a container", container.Rename},
	{"container", "restart", nil, []string{"restart"}, "Restart one or more containers", container.Restart},
	{"container", "rm", []string{"remove"}, []string{"rm"}, "Remove one or more containers", container.Rm},
	{"container", "run", nil, []string{"run"}, "Create and run a new container from an image", container.Run},
	{"container", "start", nil, []string{"start"}, "Start one or more stopped containers", container.Start},
	{"container", "stats", nil, []string{"stats"}, "Display a live stream of container(s) resource usage statistics", container.Stats},
	{"container", "stop", nil, []string{"stop"}, "Stop one or more running containers", container.Stop},
	{"container", "top", nil, []string{"top"}, "Display the running processes of a container", container.Top},
	{"container", "unpause", nil, []string{"unpause"}, "Unpause all processes within one or more containers", container.Unpause},
	{"container", "update", nil, []string{"update"}, "Update configuration of one or more containers", container.Update},
	{"container", "wait", nil, []string{"wait"}, "Block until one or more containers stop, then print their exit codes", container.Wait},
	{"context", "create", nil, nil, "Create a context", contexts.Create},
	{"context", "export", nil, nil, "Export a context to a tar archive FILE or a tar stream on STDOUT.", contexts.Export},
	{"context", "import", nil, nil, "Import a context from a tar file", contexts.Import},
	{"context", "inspect", nil, nil, "Display detailed information on one or more contexts", contexts.Inspect},
	{"context", "ls", []string{"list"}, nil, "List contexts", contexts.Ls},
	{"context", "rm", []string{"remove"}, nil, "Remove one or more contexts", contexts.Rm},
	{"context", "show", nil, nil, "Print the name of the current context", contexts.Show},
	{"context", "update", nil, nil, "Update a context", contexts.Update},
	{"context", "use", nil, nil, "Set the current docker context", contexts.Use},
	{"image", "bootstrap", nil, nil, "Make a minimal image from a distribution's packages", image.Bootstrap},
	{"image", "build", nil, []string{"build"}, "Build an image from a Dockerfile", build.Build},
	{"image", "history", nil, []string{"history"}, "Show the history of an image", image.History},
	{"image", "import", nil, []string{"import"}, "Import the contents from a tarball to create a filesystem image", image.Import},
	{"image", "inspect", nil, nil, "Display detailed information on one or more images", system.InspectImage},
	{"image", "load", nil, []string{"load"}, "Load an image from a tar archive or STDIN", image.Load},
	{"image", "ls", []string{"list"}, []string{"images"}, "List images", image.Ls},
	{"image", "prune", nil, nil, "Remove unused images", image.Prune},
	{"image", "pull", nil, []string{"pull"}, "Download an image from a registry", image.Pull},
	{"image", "push", nil, []string{"push"}, "Upload an image to a registry", image.Push},
	{"image", "rm", []string{"remove"}, []string{"rmi"}, "Remove one or more images", image.Rm},
	{"image", "save", nil, []string{"save"}, "Save one or more images to a tar archive (streamed to STDOUT by default)", image.Save},
	{"image", "tag", nil, []string{"tag"}, "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", image.Tag},
	{"manifest", "annotate", nil, nil, "Add additional information to a local image manifest", manifest.Annotate},
	{"manifest", "create", nil, nil, "Create a local manifest list for annotating and pushing to a registry", manifest.Create},
	{"manifest", "inspect", nil, nil, "Display an image manifest, or manifest list", manifest.Inspect},
	{"manifest", "push", nil, nil, "Push a manifest list to a repository", manifest.Push},
	{"manifest", "rm", nil, nil, "Delete one or more manifest lists from local storage", manifest.Rm},
	{"network", "connect", nil, nil, "Connect a container to a network", network.Connect},
	{"network", "create", nil, nil, "Create a network", network.Create},
	{"network", "disconnect", nil, nil, "Disconnect a container from a network", network.Disconnect},
	{"network", "exposure", nil, nil, "Tell who can reach which port, and by which rule", network.Exposure},
	{"network", "inspect", nil, nil, "Display detailed information on one or more networks", system.InspectNetwork},
	{"network", "ls", []string{"list"}, nil, "List networks", network.Ls},
	{"network", "prune", nil, nil, "Remove all unused networks", network.Prune},
	{"network", "rm", []string{"remove"}, nil, "Remove one or more networks", network.Rm},
	{"network", "rules", nil, nil, "Print the wanted firewall rules", network.Rules},
	{"registry", "start", nil, nil, "Start a registry of your own in the background", registry.Start},
	{"registry", "status", nil, nil, "Tell whether that registry runs, and where", registry.Status},
	{"registry", "stop", nil, nil, "Stop that registry", registry.Stop},
	{"system", "dial-stdio", nil, nil, "Proxy the stdio stream to the daemon connection. Should not be invoked manually.", system.DialStdio},
	{"system", "df", nil, nil, "Show disk usage", system.Df},
	{"system", "events", nil, []string{"events"}, "Get real time events from the server", system.Events},
	{"system", "info", nil, []string{"info"}, "Display system-wide information", system.Info},
	{"system", "prune", nil, nil, "Remove unused data", system.Prune},
	{"volume", "clone", nil, nil, "Copy a volume", volume.Clone},
	{"volume", "create", nil, nil, "Create a volume", volume.Create},
	{"volume", "export", nil, nil, "Export a volume's content as a tar archive", volume.Export},
	{"volume", "import", nil, nil, "Make a volume of a tar archive", volume.Import},
	{"volume", "inspect", nil, nil, "Display detailed information on one or more volumes", system.InspectVolume},
	{"volume", "ls", []string{"list"}, nil, "List volumes", volume.Ls},
	{"volume", "prune", nil, nil, "Remove unused local volumes", volume.Prune},
	{"volume", "pull", nil, nil, "Make a volume of what a registry has", volume.Pull},
	{"volume", "push", nil, nil, "Upload a volume to a registry", volume.Push},
	{"volume", "rename", nil, nil, "Rename a volume", volume.Rename},
	{"volume", "rm", []string{"remove"}, nil, "Remove one or more volumes", volume.Rm},
	{"volume", "snapshot", nil, nil, "Keep the content of a volume as it is now", volume.Snapshot},
	{"checkpoint", "create", nil, nil, "Create a checkpoint from a running container", checkpoint.Create},
	{"checkpoint", "export", nil, nil, "Write a checkpoint and its container's changes to a tar archive", checkpoint.Export},
	{"checkpoint", "import", nil, nil, "Bring an exported checkpoint to a new container", checkpoint.Import},
	{"checkpoint", "inspect", nil, nil, "Display detailed information on a checkpoint", checkpoint.Inspect},
	{"checkpoint", "ls", []string{"list"}, nil, "List checkpoints for a container", checkpoint.Ls},
	{"checkpoint", "rm", []string{"remove"}, nil, "Remove a checkpoint", checkpoint.Rm},
	{"", "inspect", nil, nil, "Return low-level information on objects of any kind", system.Inspect},
	{"", "login", nil, nil, "Authenticate to a registry", registry.Login},
	{"", "logout", nil, nil, "Log out from a registry", registry.Logout},
	{"", "search", nil, nil, "Search Docker Hub for images", registry.Search},
	{"", "version", nil, nil, "Show the version information of tare and the engine", system.Version},
}

// refused are Docker's commands that are not there, and why.
var refused = [...]struct{ command, why string }{
	{"config", needsSwarm}, {"node", needsSwarm}, {"secret", needsSwarm}, {"service", needsSwarm}, {"stack", needsSwarm}, {"swarm", needsSwarm},
	{"plugin", "manages plugins of Docker's daemon, which tared does not run"},
	{"volume update", needsSwarm},
	{"trust", "works on content trust, which is not supported: name images by digest"},
}

const needsSwarm = "needs a swarm, which tared cannot be part of"

// names returns what the command is called without its noun.
func (e *entry) names() []string {
	if e.noun == "" {
		return []string{e.verb}
	}
	return e.top
}

func has(list []string, s string) bool {
	for _, v := range list {
		if v == s {
			return true
		}
	}
	return false
}

// find looks up the words of a command line: the entry and how many words name
// it. noun is true when the words are a noun without one of its verbs.
func find(words []string) (e *entry, used int, noun bool) {
	if len(words) == 0 {
		return nil, 0, false
	}
	for i := range groups {
		if groups[i].noun == words[0] {
			noun = true
		}
	}
	for i := range table {
		e := &table[i]
		if !noun {
			if has(e.names(), words[0]) {
				return e, 1, false
			}
			continue
		}
		if e.noun == words[0] && len(words) > 1 && (e.verb == words[1] || has(e.aliases, words[1])) {
			return e, 2, false
		}
	}
	return nil, 0, noun
}
