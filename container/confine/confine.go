// Package confine has the kernel's security modules confine containers: AppArmor by
// a profile that a program is executed under, SELinux by labels of processes and
// files.
package confine

// unconfined is how a container asks for no profile of AppArmor.
const unconfined = "unconfined"
