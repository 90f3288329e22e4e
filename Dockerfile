# The image of Tidegate: the controller, the command line, and what Applications are rendered and fetched with.

FROM golang:1.26-bookworm AS renderer
WORKDIR /src
COPY gitops/render-worker/go.mod gitops/render-worker/go.sum ./
RUN go mod download
COPY gitops/render-worker/ ./
RUN CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /out/tidegate-render-worker .

FROM rust:1.95-bookworm AS builder
# For the cryptography (aws-lc) and the allocator (jemalloc), and to link.
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake lld \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p tidegate \
    && install -D target/release/tidegate /out/tidegate

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates git openssh-client \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 65532 tidegate \
    && useradd --uid 65532 --gid 65532 --home-dir /var/lib/tidegate --create-home --shell /usr/sbin/nologin tidegate
COPY --from=renderer /out/tidegate-render-worker /usr/local/bin/
COPY --from=builder /out/tidegate /usr/local/bin/
# Called by one of these names, the program has the command line of the program of that name.
RUN for name in kubectl-argo-rollouts kubectl-tidegate argocd rollouts-controller; do \
        ln -s tidegate "/usr/local/bin/$name"; \
    done
USER 65532:65532
ENV HOME=/var/lib/tidegate
WORKDIR /var/lib/tidegate
# 8090 metrics, 8080 health, 8085 webhooks of Git servers.
EXPOSE 8090 8080 8085
ENTRYPOINT ["tidegate"]
CMD ["controller"]
