# The relay as an image: one program, one volume, no shell needed, no root.
#
#   docker build --tag hookcast .
#   docker run --read-only --env HOOKCAST_ADMIN_TOKEN=… --volume hookcast:/data --publish 127.0.0.1:8080:8080 hookcast

ARG BUILDER=docker.io/library/rust:1-slim-bookworm
ARG RUNTIME=docker.io/library/debian:bookworm-slim

FROM ${BUILDER} AS build
WORKDIR /build
COPY . .
# The kept target folder saves building the dependencies again. Our own crates are always built: files may come with older
# times than what another checkout left there.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    find src crates migrations assets config.toml -type f -exec touch {} + \
    && cargo build --locked --profile dist --bin hookcast \
    && mkdir -p /out/data /out/etc/hookcast \
    && cp target/dist/hookcast /out/hookcast

FROM ${RUNTIME}
LABEL org.opencontainers.image.title="hookcast" \
      org.opencontainers.image.description="A relay from HTTP event streams to signed webhooks and back, over one durable log" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"

# The roots that TLS trusts; mount a file over it to trust others.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/hookcast /usr/local/bin/hookcast
# A volume made here belongs to the user below.
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build /out/etc/hookcast /etc/hookcast

# Every key of config.toml can be set as HOOKCAST__SECTION__KEY, or mount a file at /etc/hookcast/config.toml.
# Beyond loopback the relay listens only with tokens: set HOOKCAST_ADMIN_TOKEN, at least 32 characters.
ENV HOOKCAST__SERVER__LISTEN=0.0.0.0:8080 \
    HOOKCAST__STORAGE__URL=sqlite:///data/hookcast.db
WORKDIR /etc/hookcast
USER 65532:65532
VOLUME /data
# Streams without HTTP have a port of their own once HOOKCAST__SERVER__TCP_LISTEN is set, such as 0.0.0.0:8081.
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["hookcast", "health"]
ENTRYPOINT ["hookcast"]
CMD ["serve"]
