// Package container is the noun itself: the life of a container from create
// to remove, its processes, its streams, its health and its restart policy. It
// decides; package supervise's process beside each container acts, and goes on
// while this one is away.
//
// On disk, below the data root:
//
//	containers/<id>/record.json      what the user asked for, with every default
//	                                 resolved; written by create, survives power loss
//	                                 unless the container removes itself
//	containers/<id>/state.json       what happened since; synced only where a restart
//	                                 policy needs it at the next boot, because after
//	                                 power loss nothing else of it is true any more
//	containers/<id>/hosts, hostname, resolv.conf
//	containers/<id>/<id>-json.log    the log, and what was rotated out of it (package logs)
//	containers/<id>/checkpoints/     each a directory with CRIU's images
//	containers/<id>/local-logs/      the log of another driver (package logs/forward)
//	log-spool/<id>/                  the same of a removed container, until it is delivered
//
// and below the exec root, which does not outlive a boot:
//
//	c/<id>/                          the OCI bundle, endpoint.json, health.json (the last
//	                                 results of the health check), and the supervising
//	                                 process's own files (package supervise)
//
// A directory whose name ends in "-removing" belongs to nobody any more and is
// being deleted; the next start collects it. A bundle's waits with the control
// groups of its run for a quiet moment.
//
// What is known of a container is its Record; package record keeps them and has the
// states that a container can be in. What clients ask of one that is to be made is
// settled and refused in package create. A Service does to one container what its verbs
// say: create.go, start.go, stop.go, pause.go, attach.go, update.go, remove.go, and when
// a run ends exit.go, restart.go (whether and when, package restart). What else there is
// to ask of containers are nouns, fields of the Service:
//
//	Listing      lists of them (package listing)
//	Mounts       volumes and what else is mounted (package mounts)
//	Execs        further processes (exec.go, execstart.go, over package session)
//	Health       probes (health.go; what they mean, package healthcheck)
//	Logbook      logs (package logbook)
//	Stats        use of resources (package stats); Processes, top (top.go, package ps)
//	Files        cp, diff, export, commit (copy.go, files.go, over package view)
//	Checkpoints  checkpoint.go, checkpointmove.go (package checkpoint)
//	Places       networks of one (places.go, connect.go, disconnect.go)
//	Pruning      prune.go
package container
