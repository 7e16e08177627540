# One image for all processes: `relayfile store`, `relayfile ingest`, `relayfile syncd`, and every command of the CLI.
# Exactly the packages of requirements.lock, hashes checked, wheels only; nothing is compiled and nothing is resolved.
# PYTHON_IMAGE may name a mirror, and should name a digest where an image must be the same bytes again.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# What a wheel says of its time is the same in every build.
ENV SOURCE_DATE_EPOCH=315532800
WORKDIR /src
# The lock alone first: a change of the code does not install everything again.
COPY requirements.lock ./
COPY tools/locked.py tools/
RUN python tools/locked.py requirements.lock hatchling > build.lock \
    && python tools/locked.py requirements.lock run > run.lock
RUN python -m venv /build \
    && /build/bin/python -m pip install --require-hashes --no-deps --only-binary :all: --requirement build.lock
RUN python -m venv --without-pip /opt/relayfile \
    && /build/bin/python -m pip --python /opt/relayfile/bin/python install --no-compile \
        --require-hashes --no-deps --only-binary :all: --requirement run.lock
COPY pyproject.toml README.md LICENSE ./
COPY relayfile relayfile/
RUN /build/bin/python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /build/bin/python -m pip --python /opt/relayfile/bin/python install --no-compile --no-deps /wheels/*.whl \
    && /build/bin/python -m pip --python /opt/relayfile/bin/python check
# The root file system is read-only where it runs: what Python would write beside its modules is there already.
RUN /opt/relayfile/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/relayfile/lib

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="relayfile" org.opencontainers.image.licenses="Apache-2.0"
RUN python -m pip uninstall --yes pip setuptools wheel \
    && groupadd --gid 65532 relayfile \
    && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /var/lib/relayfile --shell /usr/sbin/nologin relayfile \
    && install --directory --owner 65532 --group 65532 --mode 0750 /var/lib/relayfile
COPY --from=build /opt/relayfile /opt/relayfile
ENV PATH=/opt/relayfile/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 RELAYFILE_DATA_DIR=/var/lib/relayfile
USER 65532:65532
WORKDIR /var/lib/relayfile
ENTRYPOINT ["relayfile"]
