# The image of nearcase: docker build --target cpu -t REGISTRY/nearcase:0.1.0 .
# Targets: cpu, and gpu for onnxruntime on CUDA, whose libraries come with it (the node brings the driver alone).
# Pin the base by its digest: --build-arg DIGEST=@sha256:...   The one of today is told by:
#   docker buildx imagetools inspect docker.io/library/debian:bookworm-slim
ARG BASE=docker.io/library/debian:bookworm-slim
ARG DIGEST=

FROM ${BASE}${DIGEST} AS python
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 ca-certificates \
    && rm -rf /var/lib/apt/lists/*

FROM python AS wheel
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml README.md CHANGELOG.md LICENSE NOTICE ./
COPY server ./server
COPY models ./models
COPY evaluation ./evaluation
RUN python3 -m venv /opt/build \
    && /opt/build/bin/pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && python3 -m venv --without-pip /opt/nearcase

# Wheels only: nothing is compiled, so there is no compiler in any stage.
FROM wheel AS wheel-cpu
RUN /opt/build/bin/pip --python /opt/nearcase/bin/python install --no-cache-dir --only-binary=:all: \
    "$(echo /wheels/nearcase-*.whl)[server,cpu,text,qdrant,traces,parquet]"

FROM wheel AS wheel-gpu
RUN /opt/build/bin/pip --python /opt/nearcase/bin/python install --no-cache-dir --only-binary=:all: \
    "$(echo /wheels/nearcase-*.whl)[server,gpu,text,qdrant,traces,parquet]"

FROM python AS base
RUN groupadd --gid 10001 nearcase \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin nearcase \
    && install --directory --owner=10001 --group=10001 --mode=0750 /data
ENV PATH=/opt/nearcase/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /data
EXPOSE 50051 50052 9090
STOPSIGNAL SIGTERM
ENTRYPOINT ["nearcase"]
# On loopback: the settings file of a deployment says who may call, and from where.
CMD ["serve", "--data", "/data/nearcase"]

FROM base AS gpu
COPY --from=wheel-gpu /opt/nearcase /opt/nearcase
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001

FROM base AS cpu
COPY --from=wheel-cpu /opt/nearcase /opt/nearcase
USER 10001:10001
