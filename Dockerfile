# docker build -t latchkey . ; how to run it: docs/operations.md, Containers.
FROM python:3.13-slim-trixie AS build
WORKDIR /app
COPY requirements.txt ./
RUN python -m venv /venv \
 && /venv/bin/python -m pip install --no-cache-dir --only-binary=:all: -r requirements.txt \
 && /venv/bin/python -m pip uninstall --yes pip
COPY config.py wsgi.py LICENSE ./
COPY console console
COPY templates templates
COPY static static
COPY docs/proxies docs/proxies
COPY docs/clients docs/clients
# Nothing can be compiled later: the root is read-only, and belongs to somebody else.
RUN python -m compileall -q console config.py wsgi.py

FROM python:3.13-slim-trixie
# A new volume takes over whose the directory is; one that was there before: chown 10001:10001.
RUN groupadd --gid 10001 latchkey \
 && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin latchkey \
 && install -d -m 700 -o 10001 -g 10001 /data
COPY --from=build /venv /venv
COPY --from=build /app /app
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LATCHKEY_HOST=0.0.0.0 \
    LATCHKEY_DATA_DIR=/data
WORKDIR /app
USER 10001:10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["python", "-m", "console", "healthcheck"]
# Without a shell in between, SIGTERM reaches the server, which finishes what is under way.
ENTRYPOINT ["python", "-m", "console"]
CMD ["serve"]
