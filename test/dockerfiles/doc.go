// Package dockerfiles builds Dockerfiles of many kinds, as people write them, and
// compares the images with those that BuildKit makes of the same files.
//
// A directory of testdata is a case:
//
//	context/  what is built
//	served/   what the build fetches from $SERVER
//	flags     words for the command line of docker buildx build, one line each
//	build     a script in place of that command: all images $IMAGE… are compared
//	check     a script that uses the image $IMAGE by our engine
//	loose     files whose content is new with each build: a pattern a line
//	alone     why the peer cannot build it
//	golden    BuildKit's answer. Such a case needs nothing but busybox, and is
//	          compared with that in every run of the tests
//
// The scripts have docker and, by package served, $SERVER. With -update the answers of
// the peer are written.
package dockerfiles
