// Package image holds the commands about images, one operation per file.
package image
