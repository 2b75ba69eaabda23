FROM example/onbuild-of-parent
ONBUILD RUN echo third >/tmp/third
