# The default image is for GPUs and CPUs: torch from PyPI includes the CUDA libraries and uses them if there is a GPU.
# With `--build-arg VARIANT=cpu` the image has torch without them. It is much smaller, and for CPUs only.
ARG PYTHON_IMAGE=python:3.11-slim
ARG VARIANT=cuda

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
RUN python -m venv /opt/l2v
ENV PATH=/opt/l2v/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Install the dependencies first, so that this layer, by far the largest, is cached when only the source changes. Each
# file must match the hash written by `make lock`, and only wheels are installed, so no package runs code.
ARG VARIANT
# PyPI has no torch for Linux without CUDA. PyTorch's own index has.
ARG CPU_INDEX=https://download.pytorch.org/whl/cpu
COPY docker/requirements-$VARIANT.txt requirements.txt
RUN if [ "$VARIANT" = cpu ]; then set -- --extra-index-url "$CPU_INDEX"; fi; \
    pip install --require-hashes --only-binary :all: "$@" -r requirements.txt && \
    # The packages' own tests, 0.2 GB.
    cd /opt/l2v/lib/python*/site-packages && rm -rf torch/test torch/bin/test_* torch/bin/protoc* && \
    find . -type d -name tests -prune -exec rm -r {} +
COPY pyproject.toml README.md LICENSE ./
COPY l2v ./l2v
COPY models ./models
COPY training ./training
COPY app ./app
# setuptools is already installed from the requirements.
RUN pip install --no-deps --no-build-isolation .

FROM ${PYTHON_IMAGE}
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin l2v && install -d -o l2v /models
COPY --from=build /opt/l2v /opt/l2v
COPY docker/licences.md /opt/l2v/licences.md
ENV PATH=/opt/l2v/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HOME=/models \
    L2V_HOST=0.0.0.0 \
    L2V_PORT=8080
VOLUME /models
USER 10001
WORKDIR /home/l2v
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open(f\"http://127.0.0.1:{os.environ['L2V_PORT']}/health\", timeout=2)"]
ENTRYPOINT ["l2v"]
CMD ["serve"]
