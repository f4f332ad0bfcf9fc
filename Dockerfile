# The sidecar alone: a static program, and the certificates of the usual authorities.
#
#   docker build -t onlyonce --build-arg REVISION=$(git rev-parse --short HEAD) .
#   docker run --rm -v "$PWD/onlyonce.toml:/etc/onlyonce/onlyonce.toml:ro" -p 8080:8080 onlyonce
#
# In the configuration: server.listen = "0.0.0.0:8080" and admin.listen = "0.0.0.0:9464", or nobody outside the
# container reaches them. docs/deploy.md tells more; deploy/compose.yaml is a whole example.

FROM docker.io/library/rust:1.95-slim-bookworm AS build
# What a program is made of, as a list inside of it that scanners read, and as a file in the format CycloneDX.
RUN cargo install --quiet --locked cargo-auditable@^0.7 cargo-cyclonedx@^0.5
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY config config
COPY deploy/image/root /root-of-image
# `onlyonce --version` and the first line of the log tell it.
ARG REVISION
# With the C library inside: of its 3 MB the program needs one. The target is named so that build scripts are linked as usual.
RUN target=$(rustc -vV | sed -n 's/^host: //p') \
    && RUSTFLAGS="-C target-feature=+crt-static" ONLYONCE_COMMIT=$REVISION \
       cargo auditable build --release --locked --bin onlyonce --target "$target" \
    && /root-of-image "target/$target/release/onlyonce" /image \
    && cargo cyclonedx --format json --override-filename sbom \
    && install -D -m 644 sbom.json /image/usr/share/doc/onlyonce/sbom.cdx.json

FROM scratch
ARG REVISION
LABEL org.opencontainers.image.title="onlyonce" \
      org.opencontainers.image.description="A reverse proxy that makes POST requests safe to repeat" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /image /
# For store.url = "embedded:/var/lib/onlyonce". Mount a volume there, or the records go with the container.
COPY --from=build --chown=65532:65532 /image/var/lib/onlyonce /var/lib/onlyonce

USER 65532:65532
ENV ONLYONCE_CONFIG=/etc/onlyonce/onlyonce.toml
EXPOSE 8080 9464

# A check run by Docker would need a program in here that speaks HTTP, and there is none. Ask from outside instead:
# GET /healthz (alive) and GET /readyz (takes requests) on the admin address, as Kubernetes' httpGet probes do.
HEALTHCHECK NONE

ENTRYPOINT ["/usr/local/bin/onlyonce"]
CMD ["serve"]
