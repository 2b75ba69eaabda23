// Package system holds the commands about the daemon and about objects of any
// kind, one operation per file.
package system
