# A worker with llama.cpp for NVIDIA GPUs. The host has the driver and the container toolkit.
#   docker build -f ops/deploy/docker/worker-cuda.Dockerfile -t inferflux/worker-cuda:0.1.0 .
FROM nvidia/cuda:12.8.1-devel-ubuntu24.04 AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ make python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# Volta to Hopper; a build for one generation alone is smaller and quicker.
ARG CUDA_ARCHITECTURES="70;75;80;86;89;90"
# The driver's library is on the host that runs it, not here.
ENV CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=${CUDA_ARCHITECTURES} -DCMAKE_EXE_LINKER_FLAGS=-Wl,--allow-shlib-undefined"
COPY constraints.txt .
RUN python3 -m venv /opt/inferflux \
    && /opt/inferflux/bin/pip install --no-cache-dir --constraint constraints.txt \
        "$(grep -E '^llama-cpp-python==' constraints.txt)"
COPY . .
RUN /opt/inferflux/bin/pip install --no-cache-dir --constraint constraints.txt .

FROM nvidia/cuda:12.8.1-runtime-ubuntu24.04
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 python3 \
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
