FROM example/onbuild-of-middle
