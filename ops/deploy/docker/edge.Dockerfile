# The edge, and every command that needs no model: topology, doctor, inferctl, nats-server.
#   docker build -f ops/deploy/docker/edge.Dockerfile -t inferflux/edge:0.1.0 .
FROM python:3.12.11-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN python -m venv /opt/inferflux \
    && /opt/inferflux/bin/pip install --no-cache-dir --constraint constraints.txt .

FROM python:3.12.11-slim-bookworm
RUN useradd --uid 10001 --no-create-home --home-dir /var/lib/inferflux --shell /usr/sbin/nologin inferflux \
    && install -d -o inferflux -g inferflux -m 0750 /var/lib/inferflux /run/inferflux /var/lib/nats
COPY --from=build /opt/inferflux /opt/inferflux
ENV PATH=/opt/inferflux/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    INFERFLUX_DATA_DIR=/var/lib/inferflux \
    INFERFLUX_LOG_FORMAT=json \
    INFERFLUX_METRICS__HOST=0.0.0.0
USER 10001:10001
EXPOSE 8080 9191
# The scrape port never speaks TLS. An edge without a worker yet is alive, and not ready: /readyz is for balancers.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9191/metrics', timeout=4).read()"]
ENTRYPOINT ["inferflux"]
CMD ["edge", "--host", "0.0.0.0"]
