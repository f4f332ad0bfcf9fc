# The sidecar alone, on a base without shell and package manager.
#
#   docker build -t onlyonce --build-arg ONLYONCE_COMMIT=$(git rev-parse --short HEAD) .
#   docker run --rm -v "$PWD/onlyonce.toml:/etc/onlyonce/onlyonce.toml:ro" -p 8080:8080 onlyonce
#
# In the configuration: server.listen = "0.0.0.0:8080" and admin.listen = "0.0.0.0:9464", or nobody outside the
# container reaches them. deploy/compose.yaml is a whole example.

FROM docker.io/library/rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY config config
# Where it is given, `onlyonce --version` and the first line of the log tell it.
ARG ONLYONCE_COMMIT
RUN cargo build --release --locked --bin onlyonce && mkdir /records

# glibc, libgcc and nothing else; of the same Debian as the build.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/onlyonce /usr/local/bin/onlyonce
# For store.url = "embedded:/var/lib/onlyonce". Mount a volume there, or the records go with the container.
COPY --from=build --chown=65532:65532 /records /var/lib/onlyonce

USER 65532:65532
ENV ONLYONCE_CONFIG=/etc/onlyonce/onlyonce.toml
EXPOSE 8080 9464

# A check run by Docker would need a program in here that speaks HTTP, and there is none. Ask from outside instead:
# GET /healthz (alive) and GET /readyz (takes requests) on the admin address, as Kubernetes' httpGet probes do.
HEALTHCHECK NONE

ENTRYPOINT ["/usr/local/bin/onlyonce"]
CMD ["serve"]
