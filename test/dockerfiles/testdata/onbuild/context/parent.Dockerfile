FROM busybox
ONBUILD ARG WHO=nobody
ONBUILD WORKDIR /app
ONBUILD COPY --chown=5:6 app/ ./
ONBUILD RUN echo "built for $WHO" >built && ls >listed
ONBUILD ENV WHO=$WHO
ONBUILD USER 5
CMD ["cat", "built"]
