# Both stages are of one base image. For production name it by the digest that your registry has checked
# (`python:3.13-slim@sha256:...`): a tag may be moved.
FROM python:3.13-slim AS build
WORKDIR /srv
RUN python -m venv /srv/.venv
COPY requirements.lock .
RUN .venv/bin/pip install --no-cache-dir --require-hashes --no-deps --requirement requirements.lock
COPY pyproject.toml README.md ./
COPY app app
COPY migrations migrations
RUN .venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation --editable .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /srv broker && mkdir --mode 700 /data && chown broker /data
COPY --from=build /srv /srv
WORKDIR /srv
USER 10001
ENV PATH=/srv/.venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 BROKER_HOST=0.0.0.0 BROKER_DATA_DIR=/data
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8080, timeout=2); c.request('GET', '/health-check/ready'); raise SystemExit(c.getresponse().status != 204)"]
# The signal goes to the service itself, which drains before it ends.
CMD ["broker", "serve"]
